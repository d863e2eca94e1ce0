"""A law in one figure: all rows, the fit with its band, and the extrapolation dashed."""

import numpy as np
from etils import epath

from scaling.analysis.canvas import new_figure, save
from scaling.analysis.laws.forms import FORMS
from scaling.analysis.laws.report import Law

_REACH = 10.0  # how far beyond the largest input the law is drawn


def draw(law: Law, inputs: np.ndarray, values: np.ndarray, names: tuple[str, ...], path: epath.Path) -> None:
    """Writes PATH.png and PATH.svg.

    Args:
      law: fitted.
      inputs: [n, k]; the first is the axis, a second one is the colour, and lines are drawn for a few of its values.
      values: [n].
      names: of the inputs and of the value.
      path: without ending.
    """
    figure = new_figure(6.0, 4.2)
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log", xlabel=names[0], ylabel=names[-1], title=FORMS[law.fit.form].formula)
    second = inputs[:, 1] if inputs.shape[1] > 1 else np.ones(len(inputs))
    levels = np.unique(np.quantile(second, [0, 0.5, 1], method="nearest"))
    colours = axes.scatter(inputs[:, 0], values, c=np.log10(second), cmap="viridis", zorder=3, s=18)
    for level in levels:
        colour = colours.cmap(colours.norm(np.log10(level)))
        first, last = inputs[:, 0].min(), inputs[:, 0].max()
        for low, high, style in ((first, last, "-"), (last, _REACH * last, "--")):
            x = np.geomspace(low, high, 60)
            at = x[:, None] if inputs.shape[1] == 1 else np.stack([x, np.full(60, level)], axis=1)
            below, above = law.band(at)
            axes.plot(x, law.fit.predict(at), style, color=colour)
            axes.fill_between(x, below, above, color=colour, alpha=0.2, linewidth=0)
    if inputs.shape[1] > 1:
        figure.colorbar(colours, label=f"log10 {names[1]}")
    save(figure, path, ("png", "svg"))
