"""A law in one figure: all rows, the fit with its band, and the extrapolation dashed."""

import itertools
from typing import TYPE_CHECKING

import numpy as np
from etils import epath

from scaling.analysis.laws.forms import FORMS
from scaling.analysis.laws.report import Law
from scaling.core.canvas import LINES, PRINTED, direct_labels, new_figure, plain_axes, plain_numbers, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_REACH = 10.0  # factor beyond the largest input up to which the law is drawn


def draw(
    law: Law,
    inputs: np.ndarray,
    values: np.ndarray,
    names: tuple[str, ...],
    path: epath.Path,
    colour: np.ndarray | None = None,
    colour_name: str = "",
) -> None:
    """Writes PATH.png, .svg and .pdf.

    Args:
      law: the fitted law.
      inputs: [n, k]; the first is the horizontal axis, a second one sets the lightness of the points, with lines for a
        few of its values; others are held at their median.
      values: [n].
      names: names of the inputs and of the value.
      path: path without ending.
      colour, colour_name: colours of the points [n], numbers or words, instead of the second input.
    """
    figure = new_figure(5.4, 3.4)
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log", xlabel=names[0], ylabel=names[-1])
    if values.max() < 10 * values.min():
        plain_numbers(axes.yaxis)
    second = inputs[:, 1] if inputs.shape[1] > 1 else np.ones(len(inputs))
    levels = np.unique(np.quantile(second, [0, 0.5, 1], method="nearest"))
    if law.ray is not None:  # for inputs that vary together the law is known only along their line
        levels = levels[:1]
    third, third_name = (second, names[1]) if colour is None else (colour, colour_name)
    _points(figure, axes, (inputs[:, 0], values), third, third_name)
    ends = []
    for level, (line, dash, _) in zip(levels, LINES, strict=False):
        first, last = inputs[:, 0].min(), inputs[:, 0].max()
        for low, high, beyond in ((first, last, False), (last, _REACH * last, True)):
            x = np.geomspace(low, high, 60)
            at = np.tile(np.median(inputs, axis=0), (60, 1))
            at[:, 0] = x
            if inputs.shape[1] > 1:
                at[:, 1] = level if law.ray is None else law.ray.second(x)
            at = at if inputs.shape[1] > 1 else x[:, None]
            below, above = law.band(at)
            predicted = law.fit.predict(at)
            axes.plot(x, predicted, linestyle=":" if beyond else dash, color=line, linewidth=1.1)
            axes.fill_between(x, below, above, color=line, alpha=0.15, linewidth=0)
        one = len(levels) == 1
        ends.append((_formula(law) if one else f"{names[1]} {level:.3g}", float(x[-1]), float(predicted[-1]), line))
    plain_axes(axes)
    figure.draw_without_rendering()  # positions of the names depend on the size of the axes
    if len(levels) == 1:
        axes.text(0.98, 0.96, ends[0][0], transform=axes.transAxes, ha="right", va="top", fontsize=8)
    else:
        direct_labels(axes, ends)
    save(figure, path, PRINTED)


def _formula(law: Law) -> str:
    """The formula and its constants, on two lines."""
    known = {name: x for name, x in law.fit.constants.items() if name not in law.undetermined}
    numbers = ", ".join(f"{name} = {x:.3g}" for name, x in known.items())
    return f"{FORMS[law.fit.form].formula}\n{numbers}"


def _points(
    figure: "Figure", axes: "Axes", points: tuple[np.ndarray, np.ndarray], colour: np.ndarray, name: str
) -> None:
    """Draws points: a mark and a colour for each word, a lightness for numbers."""
    x, y = points
    if colour.dtype.kind not in "if":
        for word, (line, _, mark) in zip(np.unique(colour), itertools.cycle(LINES)):
            here = colour == word
            axes.scatter(x[here], y[here], color=line, marker=mark, label=str(word) or "(none)", zorder=3, s=14)
        axes.legend(title=name, fontsize=7, frameon=False)
        return
    if len(np.unique(colour)) == 1:
        axes.scatter(x, y, color="0.25", zorder=3, s=14)
        return
    norm = "log" if colour.min() > 0 else "linear"
    drawn = axes.scatter(x, y, c=colour, norm=norm, cmap="cividis", edgecolors="0.3", linewidths=0.3, zorder=3, s=16)
    figure.colorbar(drawn, label=name)
