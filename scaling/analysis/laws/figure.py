"""A law in one figure: all rows, the fit with its band, and the extrapolation dashed."""

import numpy as np
from etils import epath

from scaling.analysis.canvas import new_figure, plain_numbers, save
from scaling.analysis.laws.forms import FORMS
from scaling.analysis.laws.report import Law

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
      colour, colour_name: of the points [n], in the place of the second input.
    """
    figure = new_figure(6.0, 4.2)
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log", xlabel=names[0], ylabel=names[-1], title=FORMS[law.fit.form].formula)
    if values.max() < 10 * values.min():
        plain_numbers(axes.yaxis)
    second = inputs[:, 1] if inputs.shape[1] > 1 else np.ones(len(inputs))
    levels = np.unique(np.quantile(second, [0, 0.5, 1], method="nearest"))
    third = second if colour is None else colour
    colours = axes.scatter(inputs[:, 0], values, c=third, norm="log", cmap="viridis", zorder=3, s=18)
    for level in levels:
        line = "0.3" if colour is not None or len(levels) == 1 else colours.cmap(colours.norm(level))
        first, last = inputs[:, 0].min(), inputs[:, 0].max()
        for low, high, style in ((first, last, "-"), (last, _REACH * last, "--")):
            x = np.geomspace(low, high, 60)
            at = x[:, None] if inputs.shape[1] == 1 else np.stack([x, np.full(60, level)], axis=1)
            below, above = law.band(at)
            axes.plot(x, law.fit.predict(at), style, color=line)
            axes.fill_between(x, below, above, color=line, alpha=0.2, linewidth=0)
    if len(np.unique(third)) > 1:
        figure.colorbar(colours, label=names[1] if colour is None else colour_name)
    save(figure, path, ("png", "svg"))
