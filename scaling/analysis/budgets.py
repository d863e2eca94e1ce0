"""Groups of runs that share a compute budget."""

import numpy as np

SAME = 0.05  # computes that differ by less are one budget: a whole number of steps rarely costs exactly as much


def budget_numbers(compute: np.ndarray) -> np.ndarray:
    """Index of the budget of each run [n], from 0 at the smallest compute. A new budget begins where the sorted
    computes [n], positive, rise by more than `SAME`. Computes without such gaps are one budget, whatever their range;
    see `spans`.
    """
    order = np.argsort(compute, kind="stable")
    steps = np.diff(np.log(compute[order])) > np.log1p(SAME)
    numbers = np.zeros(len(compute), int)
    numbers[order[1:]] = np.cumsum(steps)
    return numbers


def spans(compute: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Largest over smallest compute of each budget [b]; at most (1 + SAME)^2 if all are within `SAME` of its middle."""
    largest, smallest = np.zeros(numbers.max() + 1), np.full(numbers.max() + 1, np.inf)
    np.maximum.at(largest, numbers, compute)
    np.minimum.at(smallest, numbers, compute)
    return largest / smallest
