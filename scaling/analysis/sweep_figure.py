"""A sweep in one figure: held-out loss over the varied field. Runs on one line differ in nothing else."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from scaling.analysis.sweep_fields import WORDS, RunFields, centre_of_star, runs_of, varied, with_followers
from scaling.core.canvas import curve_style, new_figure, plain_axes, plain_numbers, save, sizes_as_ticks
from scaling.core.rows import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_sweep(rows: Sequence[Row], path: epath.Path, metric: str = "eval_loss") -> None:
    """Writes PATH.png and PATH.svg, unless nothing varies.

    The horizontal axis is the first varied field, and a line has one value of each other field, or of the budget if
    runs of equal compute form profiles. A star of runs has a panel for each of its arms, with the other fields at the
    centre. Each parametrization has its own panels. Seeds are shown as mean and range; if some have no number the line
    has a gap, since the mean of the others would be biased towards successful runs, and the figure states it.
    """
    found = [row for row in rows if row.metric == metric]
    if all(row.value is None for row in found):
        return
    runs = runs_of(found)
    differing = varied(runs)
    if not differing or differing[0] in (*WORDS, "name"):
        return
    centre = centre_of_star(runs, differing)
    arms = list(centre) or differing[:1]
    rest = [name for name in differing if name not in arms]
    names = list(dict.fromkeys(row.parametrization for row in found))
    columns, lines = (len(arms), len(names)) if centre else (len(names), 1)
    figure = new_figure(1.0 + 3.3 * columns + (1.6 if rest else 0.0), 2.9 * lines)
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True)
    words = {level: _label(dict(zip(rest, level, strict=True))) for level in sorted({_at(run, rest) for run in runs})}
    for panel, (name, x) in zip(panels.flat, itertools.product(names, arms), strict=True):
        others = {arm: value for arm, value in centre.items() if arm != x}
        pairs = [(run, row) for run, row in zip(runs, found, strict=True) if row.parametrization == name]
        pairs = [(run, row) for run, row in pairs if _at(run, others) == tuple(others.values())]
        _axes(panel, with_followers(x, runs), sorted({run[x] for run, _ in pairs}))
        panel.set_title(": ".join(word for word in (name, _label(others)) if word), loc="left", fontsize=8)
        for i, level in enumerate(words):
            members = [(run[x], row) for run, row in pairs if _at(run, rest) == level]
            seeds_line(panel, members, label=words[level], **curve_style(i, len(words)))
    several = len({row.seed for row in found}) > 1
    for panel in panels[:, 0]:
        panel.set_ylabel(f"{metric}\n(mean and range over seeds)" if several else metric)
    if rest:
        drawn = {line.get_label(): line for panel in panels.flat for line in panel.containers}
        shown = [drawn[word] for word in words.values()]
        figure.legend(
            handles=shown, loc="outside right upper", fontsize=7, frameon=False, ncols=1 + (len(shown) - 1) // 25
        )
    if missing := sum(row.value is None for row in found):
        why = f"{missing} of {len(found)} runs have no {metric}: a gap where one of the seeds has none"
        figure.supxlabel(why, fontsize=8)
    save(figure, path, ("png", "svg"))


def _at(run: RunFields, names: Iterable[str]) -> tuple[Any, ...]:
    return tuple(run[name] for name in names)


def _label(values: Mapping[str, Any]) -> str:
    """A label such as `embed 64, layers 4`; words are shown without their field."""
    words = [v if isinstance(v, str) else f"{name} {v:.3g}" if isinstance(v, float) else f"{name} {v}"
             for name, v in values.items()]  # fmt: skip
    return ", ".join(words)


def _axes(panel: "Axes", label: str, ticks: list[float]) -> None:
    panel.set(xscale="log", yscale="log", xlabel=label)
    plain_axes(panel)
    panel.grid(which="minor", axis="y", alpha=0.25, linewidth=0.5)  # less than a decade has few major ticks
    plain_numbers(panel.yaxis)
    sizes_as_ticks(panel.xaxis, ticks)


def seeds_line(panel: "Axes", members: Sequence[tuple[float, Row]], **style: Any) -> None:
    """Rows at their positions: means over seeds, with their range if there are several; NaN if one has no value."""
    places = sorted({place for place, _ in members})
    if not places:
        return
    values = [[np.nan if row.value is None else row.value for at, row in members if at == place] for place in places]
    mean = np.array([np.mean(v) for v in values])
    below_above = [mean - [min(v) for v in values], [max(v) for v in values] - mean]
    spread = (
        np.maximum(below_above, 0.0) if max(map(len, values)) > 1 else None
    )  # the mean of equal numbers can be off by rounding
    drawn: dict[str, Any] = {"marker": "o", "markersize": 3, "linewidth": 1.1, "capsize": 2} | style
    panel.errorbar(places, mean, spread, **drawn)
