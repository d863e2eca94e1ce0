"""Results of probes in words."""

from collections.abc import Mapping

from scaling.evaluation.scores import Interval, Predictions


def summary(what: str, source: str, training: int, predictions: Mapping[str, Predictions]) -> str:
    """Scores with their intervals, one line each, and the score of chance.

    Args:
      what: name of the probe.
      source: spec of the images.
      training: number of training images.
      predictions: predictions for the same test images, by name.
    """
    first = next(iter(predictions.values()))
    score = "accuracy" if "accuracy" in first.metrics else "mean average precision"
    lines = [f"{what} {score} on {source}, {training:,} training images, {len(first.truth):,} test images"]
    several = len(first.metrics) - 1
    width = max(11, *(len(name) + 1 for name in predictions))
    for name, each in predictions.items():
        ranges = map(_range, each.intervals().values())
        lines.append(f"  {name:<{width}} {_percent(each.scores())}  95% interval {' ('.join(ranges)}{')' * several}")
    lines.append(f"  {'chance':<{width}} {_percent(first.chance())}")
    if absent := first.absent_labels():
        lines.append(f"  {len(absent)} of {first.truth.shape[1]} labels have no test image and are left out")
    return "\n".join(lines)


def _range(interval: Interval) -> str:
    low, high = interval
    return "not defined" if low is None or high is None else f"{low:.1%} to {high:.1%}"


def _percent(scores: Mapping[str, float]) -> str:
    """`57.9% (mean of the classes 57.8%)`, or one score alone."""
    first, *others = (f"{score:.1%}" for score in scores.values())
    return first + "".join(f" (mean of the classes {score})" for score in others)
