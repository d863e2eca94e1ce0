"""Boxes that many tests draw."""

import math

import numpy as np


def random_boxes(count: int, seed: int = 0, spread: float = 60.0, sides=(5.0, 90.0), at: float = 0.0) -> np.ndarray:
    """[count, 5], around (at, at)."""
    rng = np.random.default_rng(seed)
    middle = at + rng.normal(0, spread, (count, 2))
    return np.concatenate((middle, rng.uniform(*sides, (count, 2)), rng.uniform(-4, 4, (count, 1))), axis=1)


def hard_pairs(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random, nearly equal, parallel and tiny boxes near (4000, 4000), a quarter each; float32 numbers as float64."""
    rng = np.random.default_rng(seed)
    part = count // 4
    draw = [random_boxes(part, seed + i, spread=30, at=4000) for i in range(8)]
    draw[3] = draw[2] + rng.normal(0, 1, (part, 5)) * 10.0 ** rng.uniform(-8, -1, (part, 1))
    draw[5] = draw[4] + np.array([5, 5, 9, 9, 0]) * rng.normal(0, 1, (part, 5)) * rng.integers(0, 2, (part, 5))
    draw[5][:, 4] += rng.integers(-2, 3, part) * math.pi / 2
    draw[6][:, 2:4] *= 10.0 ** rng.uniform(-7, 0, (part, 2))
    draw[7] = draw[6] * (1, 1, 1.2, 0.8, 1) + np.concatenate((0.2 * draw[6][:, 2:4], np.zeros((part, 3))), axis=1)
    draw[7][:, 4] += rng.normal(0, 1, part) * 10.0 ** rng.uniform(-6, 0, part)
    pairs = [np.concatenate(draw[i::2]).astype(np.float32).astype(np.float64) for i in (0, 1)]
    for boxes in pairs:
        boxes[:, 2:4] = np.abs(boxes[:, 2:4])
    return pairs[0], pairs[1]
