"""The varied fields of a sweep, derived from its rows: fields, compute budgets, a star of runs."""

import collections
import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from scaling.analysis.budgets import SAME, budget_numbers, spans
from scaling.core.rows import Row

WORDS = ("dataset", "objective")
_SHAPE = ("embed", "layers", "mlp")
_NUMBERS = ("base_lr", "images", *_SHAPE, "samples_seen")

RunFields = dict[str, Any]


def runs_of(rows: Sequence[Row]) -> list[RunFields]:
    """Fields that may have been varied, for each run. The first field is the one to draw over."""
    budgets = _budgets(rows)
    numbers = (*_SHAPE, "base_lr", "images") if budgets else _NUMBERS
    runs = [{name: getattr(row, name) for name in numbers} for row in rows]
    for i, (run, row) in enumerate(zip(runs, rows, strict=True)):
        run |= {"train_flops": budgets[i]} if budgets else {}
        run |= {name: getattr(row, name) for name in WORDS}
    keys = [(*run.values(), row.parametrization, row.seed) for run, row in zip(runs, rows, strict=True)]
    if len(set(keys)) < len(keys):  # a row lacks some fields that a sweep can vary; the name of the run has them
        for run, row in zip(runs, rows, strict=True):
            run["name"] = unsaid(row)
    return runs


def _budgets(rows: Sequence[Row]) -> list[float]:
    """Compute of each run, equal within a profile; empty if the runs do not form profiles.

    They do if most runs belong to groups of at least three with equal compute that differ in shape and length, and
    there
    are more lengths than budgets: in a grid, which has few lengths, equal compute is a coincidence.
    """
    compute = np.array([row.train_flops for row in rows], float)
    if not len(rows) or compute.min() <= 0:
        return []
    numbers = budget_numbers(compute)
    groups = [np.flatnonzero(numbers == b).tolist() for b in range(numbers.max() + 1)]
    shapes = [{(rows[i].embed, rows[i].layers, rows[i].mlp) for i in group} for group in groups]
    lengths = [{rows[i].samples_seen for i in group} for group in groups]
    narrow = spans(compute, numbers) <= (1 + SAME) ** 2
    several = [min(len(s), len(n)) >= 3 for s, n in zip(shapes, lengths, strict=True)]
    profiles = [group for group, is_one in zip(groups, narrow & several, strict=True) if is_one]
    if 2 * sum(map(len, profiles)) <= len(rows) or len(set().union(*lengths)) <= len(groups):
        return []
    mean = {i: float(compute[group].mean()) for group in groups for i in group}
    return [mean[i] for i in range(len(rows))]


def unsaid(row: Row) -> str:
    """The parts of a run's name that add something to the fields of its row (not `width64` or `mup`, which the row
    already has).
    """
    said = [getattr(row, name) for name in (*_NUMBERS, "step", "seed")]
    known = {row.parametrization, *(f"{value:g}" for value in said), *map(str, said)}
    parts = row.model.split("_")
    return "_".join(part for part in parts if part not in known and part.lstrip(string.ascii_letters) not in known)


def varied(runs: Sequence[RunFields]) -> list[str]:
    """The fields with several values; of fields that vary together only the first."""
    kept: list[str] = []
    for name in runs[0] if runs else ():
        if len({run[name] for run in runs}) > 1 and not any(_go_together(runs, name, other) for other in kept):
            kept.append(name)
    return kept


def _go_together(runs: Sequence[RunFields], a: str, b: str) -> bool:
    """Whether two fields determine each other, like the hidden width in proportion to the width."""
    pairs = {(run[a], run[b]) for run in runs}
    return len(pairs) == len({x for x, _ in pairs}) == len({y for _, y in pairs}) > 1


def centre_of_star(runs: Sequence[RunFields], varied: Sequence[str]) -> dict[str, Any]:
    """The most frequent values of fields, if no run differs from them in two fields; often empty."""
    numbers = [name for name in varied if name in _NUMBERS]
    centre = {name: collections.Counter(run[name] for run in runs).most_common(1)[0][0] for name in numbers}
    outside = {name: {i for i, run in enumerate(runs) if run[name] != centre[name]} for name in numbers}
    best: list[str] = []
    for first in numbers:
        arms = [first]
        arms += [n for n in numbers if n != first and all(outside[n].isdisjoint(outside[arm]) for arm in arms)]
        best = max(best, arms, key=len)
    return {name: centre[name] for name in numbers if name in best} if len(best) > 1 else {}


def with_followers(x: str, runs: Sequence[RunFields]) -> str:
    """The name of a field, with the fields that it determines."""
    others = [name for name in runs[0] if name != x and _go_together(runs, name, x)]
    return f"{x} (with {', '.join(others)})" if others else x
