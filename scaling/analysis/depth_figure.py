"""Figures of the similarity of an encoder's states, and of the decision where to end it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from etils import epath

from scaling.core.canvas import new_figure, plain_axes, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_similarity(
    matrix: np.ndarray, path: epath.Path, names: tuple[str, str] = ("state", "state"), measure: str = "CKA"
) -> None:
    """Writes PATH.png and PATH.svg of a matrix [S, T]."""
    figure = new_figure(4.2, 3.4)
    _matrix(figure.subplots(), matrix, names, measure)
    save(figure, path, ("png", "svg"))


def draw_decision(
    matrix: np.ndarray,
    candidates: Sequence[int],
    curves: dict[str, np.ndarray],
    keep: Sequence[int],
    labels: tuple[str, str],
    path: epath.Path,
) -> None:
    """Writes PATH.png and PATH.svg: the states beside the score of every candidate.

    Args:
      matrix: CKA of all states [L + 1, L + 1].
      candidates: candidate of each score.
      curves: label -> scores.
      keep: indices of the kept blocks, from 0.
      labels: labels of the axes of the scores.
      path: path without ending.
    """
    figure = new_figure(8.4, 3.4)
    left, right = figure.subplots(1, 2)
    _matrix(left, matrix, ("state", "state"), "CKA")
    kept = [i + 1 for i in keep]
    left.plot(kept, kept, "s", color="white", markersize=4, markeredgecolor="black", label="blocks that stay")
    left.legend(loc="upper left", fontsize=8)
    for i, (label, scores) in enumerate(curves.items()):
        right.plot(
            candidates,
            scores,
            "o-" if i == 0 else "--",
            label=label,
            color="black" if i == 0 else "0.6",
            markersize=3,
            linewidth=1.1,
        )
    right.set_xlabel(labels[0])
    right.set_ylabel(labels[1])
    right.legend(fontsize=7, frameon=False)
    plain_axes(right)
    save(figure, path, ("png", "svg"))


def _matrix(axes: "Axes", matrix: np.ndarray, names: tuple[str, str], measure: str) -> None:
    image = axes.imshow(matrix, vmin=min(0.0, float(matrix.min())), vmax=1.0, origin="lower", cmap="viridis")
    axes.set_ylabel(names[0])
    axes.set_xlabel(names[1])
    axes.figure.colorbar(image, ax=axes, label=measure)
