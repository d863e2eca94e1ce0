"""Curves over compute: what slimmed encoders score, what they keep, and how their features are spread."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from scaling.analysis.tables import controls, curves
from scaling.core.canvas import new_figure, save
from scaling.core.rows import LABELS, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FORMATS = ("png", "svg")
_SPECTRA = ("mean_feature_correlation", "explained_variance_slope", "participation_ratio")
_STYLES = ("-", "--", "-.", ":")
_PARTLY = " (gaps: not defined for all seeds)"


def draw_curves(rows: Sequence[Row], path: epath.Path) -> None:
    """One figure per data set and probe, `PATH_DATASET_PROBE.png` and `.svg`: score, retention above chance, and
    distance from the full encoder's features, against relative compute (`full` convention).

    Lines are means over seeds, bands the widest of the seeds' 95 % intervals; controls are dashed. Where a score is
    defined for some seeds only, a line has a gap and a control no line; the legend says so.
    """
    for dataset, probe in _distinct((r.dataset, r.probe) for r in rows if r.probe not in ("features", LABELS)):
        there = [r for r in rows if r.dataset == dataset]
        score = min({r.metric for r in there if r.probe == probe and not _derived(r.metric)}, key=_macro_first)
        panels = [
            (probe, score, score.replace("_", " ")),
            (probe, f"{score}_retention_above_chance", "retention above chance"),
        ]
        panels.append(("features", "relative_error", "relative error of the features"))
        figure = new_figure(5 * len(panels) + 2, 4.2)
        grid = figure.subplots(1, len(panels))
        for axes, (by, metric, label) in zip(grid, panels, strict=True):
            _panel(axes, [r for r in there if (r.probe, r.metric) == (by, metric)], label)
        if any(r.value for r in there if r.metric == "relative_error"):
            grid[-1].set_yscale("log", nonpositive="mask")  # the full encoder is at zero
        _legend(figure)
        figure.suptitle(f"{dataset}, {probe}")
        save(figure, path.with_name(f"{path.name}_{dataset}_{probe}"), _FORMATS)


def draw_spectra(rows: Sequence[Row], path: epath.Path) -> None:
    """One figure per data set, `PATH_DATASET.png` and `.svg`: correlation, slope and effective dimensions of the
    features against relative compute.
    """
    for dataset in _distinct(r.dataset for r in rows):
        figure = new_figure(5 * len(_SPECTRA) + 2, 4.2)
        for axes, statistic in zip(figure.subplots(1, len(_SPECTRA)), _SPECTRA, strict=True):
            found = [r for r in rows if r.dataset == dataset and r.metric.startswith(statistic)]
            _panel(axes, found, found[0].metric.replace("_", " ") if found else statistic)
        _legend(figure)
        figure.suptitle(dataset)
        save(figure, path.with_name(f"{path.name}_{dataset}"), _FORMATS)


def _panel(axes: "Axes", rows: Sequence[Row], label: str) -> None:
    for number, (curve, there) in enumerate(curves(rows).items()):
        x, mean, low, high = _over_seeds(there)
        if np.isnan(mean).any():
            curve += _PARTLY
        color, style = f"C{number % 10}", _STYLES[number // 10 % len(_STYLES)]
        axes.plot(x, mean, style, color=color, marker=".", markersize=4, linewidth=1.2, label=curve)
        axes.fill_between(x, low, high, color=color, alpha=0.12, linewidth=0)
    for number, (control, there) in enumerate(controls(rows).items()):
        values = [r.value for r in there]
        known = [value for value in values if value is not None]
        mean_of_all = float(np.mean(known)) if len(known) == len(values) else np.nan
        style, control = _STYLES[1 + number % (len(_STYLES) - 1)], control + _PARTLY * (len(known) < len(values))
        axes.axhline(mean_of_all, color="0.25", linestyle=style, linewidth=0.9, label=control)
    axes.set(xscale="log", xlabel="relative compute (full convention)", ylabel=label)
    axes.grid(alpha=0.3)


def _legend(figure: "Figure") -> None:
    """One for all panels, beside them."""
    lines = {label: line for axes in figure.axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if lines:
        figure.legend(list(lines.values()), list(lines), loc="outside right upper", fontsize=7)


def _over_seeds(rows: Iterable[Row]) -> tuple[np.ndarray, ...]:
    """Compute, mean, low and high of each width, in order. Points of equal compute are one (they are one encoder).

    A mean is NaN where some seeds have no value: that of the others would be of those that went well.
    """
    points: dict[float, list[Row]] = {}
    for row in rows:
        points.setdefault(row.compute, []).append(row)
    x = sorted(compute for compute, there in points.items() if any(r.value is not None for r in there))
    fields: list[Callable[[Row], Any]] = [
        lambda r: np.nan if r.value is None else r.value,
        lambda r: np.nan if r.low is None else r.low,  # no band where there is no interval
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
