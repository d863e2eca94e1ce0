"""The probes by name. Each is called (train, test, validation or None, **options) and returns `Predictions`.

A split is a pair of features [n, d] and labels, integers [n] or 0 and 1 [n, L]. Options: `k` and `metric` for nearest
neighbours; `strengths`, `metric` and `seed` for the linear probe.
"""

from collections.abc import Callable

from scaling.evaluation.knn import knn_probe
from scaling.evaluation.linear import linear_probe
from scaling.evaluation.scores import Predictions

PROBES: dict[str, Callable[..., Predictions]] = {"knn": knn_probe, "linear": linear_probe}
