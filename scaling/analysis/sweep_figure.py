"""A sweep in one figure: the held-out loss over what was varied."""

from collections.abc import Sequence

import numpy as np
from etils import epath

from scaling.analysis.canvas import new_figure, plain_numbers, save
from scaling.results import Row

_VARIED = ("base_lr", "images", "embed", "layers", "mlp", "samples_seen")


def draw_sweep(rows: Sequence[Row], path: epath.Path, metric: str = "eval_loss") -> None:
    """Writes PATH.png and PATH.svg: a panel for each parametrization; the horizontal axis is the first field that
    varies, a line is a value of the second; means over seeds with the range of these. Nothing where nothing varies.
    """
    from matplotlib.ticker import NullLocator

    found = [row for row in rows if row.metric == metric and row.value is not None]
    varied = [name for name in _VARIED if len({getattr(row, name) for row in found}) > 1]
    if not varied:
        return
    x = varied[0]
    second = next((name for name in varied[1:] if _differs(found, name, x)), "")
    names = list(dict.fromkeys(row.parametrization for row in found))
    levels = sorted({getattr(row, second) for row in found}) if second else [None]
    ticks = sorted({getattr(row, x) for row in found})
    figure = new_figure(1.5 + 4.0 * len(names), 3.8)
    panels = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for name, panel in zip(names, panels, strict=True):
        panel.set(xscale="log", yscale="log", xlabel=x, title=name)
        panel.grid(alpha=0.3, which="both")
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks], rotation=45)
        plain_numbers(panel.yaxis)
        for i, level in enumerate(levels):
            mine = [r for r in found if r.parametrization == name and (level is None or getattr(r, second) == level)]
            places = sorted({getattr(r, x) for r in mine})
            values = [[r.value or 0.0 for r in mine if getattr(r, x) == place] for place in places]
            mean = np.array([np.mean(v) for v in values])
            spread = [mean - [min(v) for v in values], [max(v) for v in values] - mean]
            colour = f"C{i}" if len(levels) <= 10 else None
            panel.errorbar(places, mean, spread, marker="o", markersize=4, linewidth=1, capsize=2, color=colour,
                           label=None if level is None else f"{second} {level:g}")  # fmt: skip
    panels[0].set_ylabel(metric)
    if second and len(levels) <= 10:
        panels[-1].legend(fontsize=7)
    save(figure, path, ("png", "svg"))


def _differs(rows: Sequence[Row], name: str, x: str) -> bool:
    """Whether a field has several values at one place of x, and so is more than a consequence of it."""
    places: dict[float, set[float]] = {}
    for row in rows:
        places.setdefault(getattr(row, x), set()).add(getattr(row, name))
    return max(map(len, places.values())) > 1
