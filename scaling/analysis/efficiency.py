"""Data-efficiency curves: the score of a fine-tuned encoder over the number of its training images."""

from collections.abc import Sequence

import numpy as np
from etils import epath

from scaling.analysis.sweep_figure import seeds_line
from scaling.analysis.tables import line
from scaling.core.canvas import curve_style, new_figure, plain_axes, save, sizes_as_ticks
from scaling.core.rows import LABELS, Row

HEADLINE = ("miou", "map", "macro_accuracy", "macro_map")  # the metric that is drawn: the first that there is


def curves_over_images(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, dict[int, list[Row]]]]:
    """(data set, metric) -> curve -> images -> the rows of its seeds that have a value."""
    found: dict[tuple[str, str], dict[str, dict[int, list[Row]]]] = {}
    of_name: dict[str, set[str]] = {}
    for row in rows:
        if row.probe != LABELS:
            of_name.setdefault(f"{row.model} ({row.probe})", set()).add(row.config_hash)
    for row in rows:
        if row.probe != LABELS and row.value is not None:
            curve = f"{row.model} ({row.probe})"
            if len(of_name[curve]) > 1:  # rows of different recipes are not seeds of one curve
                curve += f", config {row.config_hash}"
            of_curve = found.setdefault((row.dataset, row.metric), {}).setdefault(curve, {})
            of_curve.setdefault(row.images, []).append(row)
    return found


def efficiency_tables(rows: Sequence[Row]) -> str:
    """Markdown: a table for every data set and metric, a line for every encoder, a column for every number of
    images; for several seeds the mean and their range, for one its interval over the test images.
    """
    parts = []
    for (dataset, metric), curves in curves_over_images(rows).items():
        sizes = sorted({images for of_curve in curves.values() for images in of_curve})
        lines = [f"### {dataset}: {metric.replace('_', ' ')}", ""]
        lines += [line(["", *(f"{images:,} images" for images in sizes)]), line(["---"] * (len(sizes) + 1))]
        lines += [line([curve, *(_cell(there.get(images, [])) for images in sizes)]) for curve, there in curves.items()]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _cell(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    values = [row.value for row in rows if row.value is not None]
    if len(values) > 1:
        return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f}, {len(values)} seeds)"
    low, high = rows[0].low, rows[0].high
    return f"{values[0]:.3f}" + (f" ({low:.3f} to {high:.3f})" if low is not None and high is not None else "")


def draw_efficiency(rows: Sequence[Row], path: epath.Path) -> None:
    """Draws one panel for every data set, `PATH.png` and `.svg`: its first metric of `HEADLINE`; lines are means
    over seeds, bars their range.
    """
    found = curves_over_images(rows)
    there = {dataset: [metric for name, metric in found if name == dataset] for dataset, _ in found}
    panels = [(name, next((m for m in HEADLINE if m in metrics), metrics[0])) for name, metrics in there.items()]
    if not panels:
        return
    figure = new_figure(5 * len(panels), 2.9)
    for axes, (dataset, metric) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        curves = found[dataset, metric]
        for number, (curve, of_curve) in enumerate(curves.items()):
            members = [(images, row) for images, rows in of_curve.items() for row in rows]
            seeds_line(axes, members, label=curve, **curve_style(number, len(curves)))
        axes.set(xscale="log", xlabel="training images", ylabel=metric.replace("_", " "))
        axes.set_title(dataset, loc="left", fontsize=8)
        plain_axes(axes)
        sizes_as_ticks(axes.xaxis, sorted({images for of_curve in curves.values() for images in of_curve}))
        axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save(figure, path, ("png", "svg"))
