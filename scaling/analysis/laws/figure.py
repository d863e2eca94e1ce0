"""A law in one figure: all rows, the fit with its band, and the extrapolation dashed."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from scaling.analysis.laws.forms import FORMS
from scaling.analysis.laws.report import Law
from scaling.core.canvas import new_figure, plain_numbers, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_REACH = 10.0  # how far beyond the largest input the law is drawn


def draw(
    law: Law,
    inputs: np.ndarray,
    values: np.ndarray,
    names: tuple[str, ...],
    path: epath.Path,
    colour: np.ndarray | None = None,
    colour_name: str = "",
) -> None:
    """Writes PATH.png and PATH.svg.

    Args:
      law: fitted.
      inputs: [n, k]; the first is the axis, a second one is the colour, and lines are drawn for a few of its values.
      values: [n].
      names: of the inputs and of the value.
      path: without ending.
      colour, colour_name: of the points [n], numbers or words, in the place of the second input.
    """
    figure = new_figure(6.0, 4.2)
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log", xlabel=names[0], ylabel=names[-1], title=FORMS[law.fit.form].formula)
    if values.max() < 10 * values.min():
        plain_numbers(axes.yaxis)
    second = inputs[:, 1] if inputs.shape[1] > 1 else np.ones(len(inputs))
    levels = np.unique(np.quantile(second, [0, 0.5, 1], method="nearest"))
    if law.ray is not None:  # of inputs that rise together the law is known along their line alone
        levels = levels[:1]
    third, third_name = (second, names[1]) if colour is None else (colour, colour_name)
    colour_at = _points(figure, axes, (inputs[:, 0], values), third, third_name)
    for level in levels:
        line = "0.3" if law.ray is not None or colour is not None or len(levels) == 1 else colour_at(level)
        first, last = inputs[:, 0].min(), inputs[:, 0].max()
        for low, high, style in ((first, last, "-"), (last, _REACH * last, "--")):
            x = np.geomspace(low, high, 60)
            other = np.full(60, level) if law.ray is None else law.ray.second(x)
            at = x[:, None] if inputs.shape[1] == 1 else np.stack([x, other], axis=1)
            below, above = law.band(at)
            axes.plot(x, law.fit.predict(at), style, color=line)
            axes.fill_between(x, below, above, color=line, alpha=0.2, linewidth=0)
    save(figure, path, ("png", "svg"))


def _points(
    figure: "Figure", axes: "Axes", points: tuple[np.ndarray, np.ndarray], colour: np.ndarray, name: str
) -> Callable[[float], Any]:
    """Draws points with a legend for words, a bar for numbers; returns the colour of a number."""
    x, y = points
    if colour.dtype.kind not in "if":
        for i, word in enumerate(np.unique(colour)):
            axes.scatter(x[colour == word], y[colour == word], color=f"C{i}", label=word, zorder=3, s=18)
        axes.legend(title=name)
        return lambda _: "0.3"
    norm = "log" if colour.min() > 0 else "linear"
    drawn = axes.scatter(x, y, c=colour, norm=norm, cmap="viridis", zorder=3, s=18)
    if len(np.unique(colour)) > 1:
        figure.colorbar(drawn, label=name)
    return lambda level: drawn.to_rgba(np.array([level]))[0]
