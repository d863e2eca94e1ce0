"""Pareto fronts of cost and error, and the distance between fronts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from scaling.core.canvas import LINES, new_figure, plain_axes, save

Points = Sequence[tuple[float, float]]  # (cost, error); smaller is better for both


def front(points: Points) -> list[int]:
    """Indices of the points that no other point dominates, by cost; among equal points the first."""
    order = sorted(range(len(points)), key=lambda i: (*points[i], i))
    best, found = np.inf, []
    for i in order:
        if points[i][1] < best:
            best = points[i][1]
            found.append(i)
    return found


def draw_fronts(
    points: Points, fronts: Mapping[str, Points], limit: tuple[float, str], label: str, path: epath.Path
) -> None:
    """Writes PATH.png and PATH.svg.

    Args:
      points: all candidates.
      fronts: label -> the points of a front by cost; the first is drawn on top.
      limit: the budget, and its name.
      label: label of the costs.
      path: path without ending.
    """
    figure = new_figure(5.4, 3.4)
    axes: Any = figure.subplots()
    axes.plot(
        *zip(*points, strict=True), ".", color="0.75", markersize=4, label=f"{len(points):,} candidates", zorder=1
    )
    for i, (name, line) in enumerate(fronts.items()):
        shade, dash, mark = LINES[i % len(LINES)]
        style = {"color": shade, "ls": dash, "marker": mark, "markersize": 3, "lw": 1.1, "zorder": 5 if i == 0 else 4}
        axes.step(*zip(*line, strict=True), where="post", label=name, **style)
    axes.axvline(limit[0], color="black", lw=0.8, ls=":", label=limit[1])
    axes.set(xscale="log", xlabel=label, ylabel="distance from the whole encoder's features", ylim=(0, None))
    axes.legend(fontsize=7, frameon=False)
    plain_axes(axes)
    save(figure, path, ("png", "svg"))
