"""The loss curve of a run."""

from typing import Any

from etils import epath

from scaling.core.canvas import LINES, new_figure, plain_axes, save


def loss_curve(path: epath.Path, rows: list[dict[str, float]]) -> None:
    """Draws training and held-out loss over the steps.

    Args:
      path: PNG file to write.
      rows: rows of `metrics.jsonl`, with `step`, `loss` and, if measured, `eval_loss`.
    """
    figure = new_figure(4.6, 2.9)
    axes = figure.subplots()
    for name, label, mark, (shade, *_) in (
        ("loss", "training batch", "", LINES[3]),
        ("eval_loss", "held out", "o", LINES[0]),
    ):
        points = [(row["step"], row[name]) for row in rows if name in row]
        style: dict[str, Any] = {"marker": mark if len(points) > 1 else "o", "markersize": 3, "linewidth": 1.1}
        axes.plot(*zip(*points, strict=True), color=shade, label=label, **style)
    axes.set(xlabel="step", ylabel="loss")
    plain_axes(axes)
    axes.legend(fontsize=7, frameon=False)
    save(figure, path.with_suffix(""))
