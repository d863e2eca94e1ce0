"""Rows of a few sizes, and of several learning rates and seeds."""

import dataclasses

from tests.rows import ROW

ROWS = [
    dataclasses.replace(ROW, metric="loss", params=n, seed=s, value=v, train_flops=10**15)
    for n, s, v in ((10, 0, 0.9), (10, 1, 0.8), (20, 0, 0.5), (40, 0, -0.1))
]
RATES = [
    dataclasses.replace(ROW, metric="loss", params=n, seed=s, base_lr=lr, value=v, model=f"w{n}_lr{lr:g}_seed{s}")
    for n, lr, s, v in (
        (10, 0.1, 0, 0.5), (10, 0.1, 1, 0.7), (10, 0.2, 0, 0.4), (10, 0.2, 1, 0.9), (20, 0.1, 0, 0.4),
        (20, 0.2, 0, 0.3), (20, 0.2, 1, 0.3), (20, 0.4, 0, float("nan")), (20, 0.8, 0, None),
    )
]  # fmt: skip
