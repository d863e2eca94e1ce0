"""The loss curve of a run."""

from etils import epath

from scaling.core.canvas import new_figure, save


def loss_curve(path: epath.Path, rows: list[dict[str, float]]) -> None:
    """Draws training and held-out loss over the steps.

    Args:
      path: PNG file to write.
      rows: rows of `metrics.jsonl`, with `step`, `loss` and, if measured, `eval_loss`.
    """
    figure = new_figure(6, 4)
    axes = figure.subplots()
    for name, label, style in (("loss", "training batch", "-"), ("eval_loss", "held out", "o-")):
        points = [(row["step"], row[name]) for row in rows if name in row]
        axes.plot(*zip(*points, strict=True), style if len(points) > 1 else "o", label=label, markersize=4)
    axes.set(xlabel="step", ylabel="loss")
    axes.grid(alpha=0.3)
    axes.legend()
    save(figure, path.with_suffix(""))
