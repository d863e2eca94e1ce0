"""Which runs share a budget of compute."""

import numpy as np

SAME = 0.05  # computes that differ by less are one budget: a whole number of steps rarely costs exactly as much


def budget_numbers(compute: np.ndarray) -> np.ndarray:
    """The number of the budget of each run [n], from 0 at the smallest compute: a new one begins where sorted computes
    [n], positive, rise by more than `SAME`. Computes without such gaps are one budget, however far they reach; `spans`
    says how far.
    """
    order = np.argsort(compute, kind="stable")
    steps = np.diff(np.log(compute[order])) > np.log1p(SAME)
    numbers = np.zeros(len(compute), int)
    numbers[order[1:]] = np.cumsum(steps)
    return numbers


def spans(compute: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Largest over smallest compute of each budget [b]. Within `SAME` of its middle it is at most (1 + SAME)^2."""
    largest, smallest = np.zeros(numbers.max() + 1), np.full(numbers.max() + 1, np.inf)
    np.maximum.at(largest, numbers, compute)
    np.minimum.at(smallest, numbers, compute)
    return largest / smallest
