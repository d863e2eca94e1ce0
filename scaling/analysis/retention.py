"""Curves over compute: scores, retention and feature spectra of slimmed encoders."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from scaling.analysis.tables import controls, curves
from scaling.core.canvas import LABEL_SIZE, LINES, MOST_CURVES, PRINTED, direct_labels, new_figure, plain_axes, save
from scaling.core.errors import UserError
from scaling.core.rows import LABELS, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SPECTRA = ("mean_feature_correlation", "explained_variance_slope", "participation_ratio")
_STYLES = ("-", "--", "-.", ":")
_LETTER = 0.56  # mean width of a letter over its height
_PARTLY = " (gaps: not defined for all seeds)"


def draw_curves(rows: Sequence[Row], path: epath.Path, wanted: Sequence[str] = (), note: str = "") -> list[str]:
    """Draws one figure per data set and probe, `PATH_DATASET_PROBE` as .png, .svg and .pdf: score, retention above
    chance, and distance from the full encoder's features, against relative compute (`full` convention). Returns a line
    for each figure that does not have all curves.

    Lines are means over seeds, bands the widest of the seeds' 95 % intervals; controls are grey. If a score is defined
    for only some seeds, a line has a gap, a control has no line, and the name states it. wanted: see `choose_curves`;
    note: a line above the panels.
    """
    said = []
    for dataset, probe in _distinct((r.dataset, r.probe) for r in rows if r.probe not in ("features", LABELS)):
        there = [r for r in rows if r.dataset == dataset]
        score = min({r.metric for r in there if r.probe == probe and not _derived(r.metric)}, key=_macro_first)
        panels = [
            (probe, score, score.replace("_", " ")),
            (probe, f"{score}_retention_above_chance", "retention above chance"),
            ("features", "relative_error", "relative error of the features"),
        ]
        found = [([r for r in there if (r.probe, r.metric) == (by, metric)], label) for by, metric, label in panels]
        chosen, all_ = choose_curves(found[0][0], wanted), curves(found[0][0])
        file = path.with_name(f"{path.name}_{dataset}_{probe}")
        figure = _figure(found, chosen, distance=True)
        if note:
            figure.suptitle(note, fontsize=LABEL_SIZE)
        save(figure, file, PRINTED)
        if len(chosen) < len(all_):
            said.append(
                f"{file.name}: {len(chosen)} of {len(all_)} curves, all are in the tables; --curves=all draws them"
            )
    return said


def draw_spectra(rows: Sequence[Row], path: epath.Path, wanted: Sequence[str] = ()) -> None:
    """Draws one figure per data set, `PATH_DATASET` as .png, .svg and .pdf: correlation, slope and effective
    dimensions of the features against relative compute.
    """
    for dataset in _distinct(r.dataset for r in rows):
        panels = []
        for statistic in _SPECTRA:
            found = [r for r in rows if r.dataset == dataset and r.metric.startswith(statistic)]
            panels.append((found, found[0].metric.replace("_", " ") if found else statistic))
        chosen = choose_curves(panels[0][0] or panels[-1][0], [w for w in wanted if w == "all"])
        save(_figure(panels, chosen), path.with_name(f"{path.name}_{dataset}"), PRINTED)


def _figure(panels: Sequence[tuple[list[Row], str]], chosen: Sequence[str], distance: bool = False) -> "Figure":
    """Panels with the same curves; the first one names them."""
    figure = new_figure(3.3 * len(panels) + 1.6, 2.9)
    grid = np.atleast_1d(figure.subplots(1, len(panels)))
    found = [_panel(axes, rows, label, chosen) for axes, (rows, label) in zip(grid, panels, strict=True)]
    if distance and any(row.value for row in panels[-1][0]):
        grid[-1].set_yscale("log", nonpositive="mask")  # the full encoder is at zero
    shared = _shared([name for name, *_ in found[0][0]])
    if shared:
        grid[0].set_title(shared.strip(), loc="left", fontsize=7)
    figure.draw_without_rendering()  # positions of the names depend on the size of the axes
    for number, (axes, (ends, levels)) in enumerate(zip(grid, found, strict=True)):
        said = [end for end in ends if number == 0 or end[0].endswith(_PARTLY)]
        names = [(name.removeprefix(shared), x, y, color) for name, x, y, color in said]
        if names:  # all curves meet at the full encoder, so they are named at the other end
            _make_room(axes, max(len(name) for name, *_ in names))
        direct_labels(axes, names, "left")
        direct_labels(axes, [(name, axes.get_xlim()[1], y, colour) for name, y, colour in levels])
    return figure


def _shared(names: Sequence[str]) -> str:
    """The first word of the names, if there are several and all share it."""
    first = {name.split(" ")[0] for name in names}
    return f"{first.pop()} " if len(names) > 1 and len(first) == 1 and all(" " in name for name in names) else ""


def _make_room(axes: "Axes", letters: int) -> None:
    """Moves the left end of a logarithmic axis so that names with this many letters fit before the curves."""
    width = axes.get_window_extent().width / axes.figure.dpi * 72 / LABEL_SIZE  # of the axes, in letter heights
    share = min(letters * _LETTER / width + 0.05, 0.7)
    low, high = axes.get_xlim()
    axes.set_xlim(low * (low / high) ** (share / (1 - share)), high)


Ends = list[tuple[str, float, float, str]]


def _panel(
    axes: "Axes", rows: Sequence[Row], label: str, chosen: Sequence[str]
) -> tuple[Ends, list[tuple[str, float, str]]]:
    """Draws some curves and all controls; curves are named at the smallest compute, and controls at their lines."""
    ends, levels = Ends(), []
    there = curves(rows)
    for name, (color, dash, mark) in zip(chosen, itertools.cycle(LINES)):
        if name not in there:
            continue
        x, mean, low, high = _over_seeds(there[name])
        axes.plot(x, mean, linestyle=dash, color=color, marker=mark, markersize=3, linewidth=1.1)
        axes.fill_between(x, low, high, color=color, alpha=0.12, linewidth=0)
        known = np.flatnonzero(np.isfinite(mean))
        if len(known):
            partly = _PARTLY if np.isnan(mean).any() else ""
            ends.append((name + partly, float(x[known[0]]), float(mean[known[0]]), color))
    for number, (control, those) in enumerate(controls(rows).items()):
        values = [r.value for r in those]
        known_values = [value for value in values if value is not None]
        mean_of_all = float(np.mean(known_values)) if len(known_values) == len(values) else np.nan
        control += _PARTLY * (len(known_values) < len(values))
        axes.axhline(mean_of_all, color="0.45", linestyle=_STYLES[1 + number % (len(_STYLES) - 1)], linewidth=0.8)
        if np.isfinite(mean_of_all):
            levels.append((control, mean_of_all, "0.35"))
        else:
            axes.text(
                0.98, 0.02 + 0.07 * number, control, transform=axes.transAxes, ha="right", fontsize=6, color="0.35"
            )
    axes.set(xscale="log", xlabel="operations, relative to the full encoder", ylabel=label)
    plain_axes(axes)
    return ends, levels


def choose_curves(rows: Sequence[Row], wanted: Sequence[str] = ()) -> list[str]:
    """Names of the curves to be drawn.

    Args:
      rows: rows of one score.
      wanted: parts of their names, each of which must match a curve, or `all`; by default the published cut (the first
        units, no repair) and those with the highest mean score, five in total.

    Raises:
      UserError: no curve has such a name.
    """
    there = curves(rows)
    if "all" in wanted:
        return list(there)
    for part in wanted:
        if not any(part in name for name in there):
            raise UserError(f"--curves={part}: no curve has this in its name; the curves are {', '.join(there)}")
    if wanted:
        return [name for name in there if any(part in name for part in wanted)]
    means = {name: np.mean([r.value for r in those if r.value is not None]) for name, those in there.items()}
    plain = [name for name, those in there.items() if (those[0].ordering, those[0].recovery) == ("first", "none")]
    best = sorted(there, key=lambda name: (name not in plain[:1], -means[name]))[:MOST_CURVES]
    return [name for name in there if name in best]


def _over_seeds(rows: Iterable[Row]) -> tuple[np.ndarray, ...]:
    """Compute, mean, low and high of each width, in order. Points of equal compute are merged (they are one encoder).

    The mean is NaN if some seeds have no value: that of the others would be biased towards successful runs.
    """
    points: dict[float, list[Row]] = {}
    for row in rows:
        points.setdefault(row.compute, []).append(row)
    x = sorted(compute for compute, there in points.items() if any(r.value is not None for r in there))
    fields: list[Callable[[Row], Any]] = [
        lambda r: np.nan if r.value is None else r.value,
        lambda r: np.nan if r.low is None else r.low,  # no band without an interval
        lambda r: np.nan if r.high is None else r.high,
    ]
    mean, low, high = ([[field(r) for r in points[c]] for c in x] for field in fields)
    return np.array(x), *(
        np.array([f(v) for v in part]) for f, part in ((np.mean, mean), (np.min, low), (np.max, high))
    )


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _derived(metric: str) -> bool:
    return "_retention" in metric or metric.endswith("_gain")


def _macro_first(metric: str) -> tuple[bool, str]:
    return not metric.startswith("macro"), metric
