"""What was varied in a sweep, seen from its rows: fields, budgets of compute, a star."""

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
    """What may have been varied, as each run has it. The first field is the one to draw over."""
    budgets = _budgets(rows)
    numbers = (*_SHAPE, "base_lr", "images") if budgets else _NUMBERS
    runs = [{name: getattr(row, name) for name in numbers} for row in rows]
    for i, (run, row) in enumerate(zip(runs, rows, strict=True)):
        run |= {"train_flops": budgets[i]} if budgets else {}
        run |= {name: getattr(row, name) for name in WORDS}
    keys = [(*run.values(), row.parametrization, row.seed) for run, row in zip(runs, rows, strict=True)]
    if len(set(keys)) < len(keys):  # a row does not have all that a sweep can vary: the name of the run does
        for run, row in zip(runs, rows, strict=True):
            run["name"] = unsaid(row)
    return runs


def _budgets(rows: Sequence[Row]) -> list[float]:
    """The compute of each run, the same for all of a profile; empty where these are no profiles.

    They are where most runs are one of at least three of equal compute that differ in shape and length, and more
    lengths occur than budgets: in a grid, which has few lengths, equal compute is an accident.
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
    """The parts of a run's name that say something else than the fields of its row: neither width64 nor mup."""
    said = [getattr(row, name) for name in (*_NUMBERS, "step", "seed")]
    known = {row.parametrization, *(f"{value:g}" for value in said), *map(str, said)}
    parts = row.model.split("_")
    return "_".join(part for part in parts if part not in known and part.lstrip(string.ascii_letters) not in known)


def varied(runs: Sequence[RunFields]) -> list[str]:
    """The fields that have several values, of those that go together the first."""
    kept: list[str] = []
    for name in runs[0] if runs else ():
        if len({run[name] for run in runs}) > 1 and not any(_go_together(runs, name, other) for other in kept):
            kept.append(name)
    return kept


def _go_together(runs: Sequence[RunFields], a: str, b: str) -> bool:
    """Whether each of two fields follows from the other, like the hidden width in proportion to the width."""
    pairs = {(run[a], run[b]) for run in runs}
    return len(pairs) == len({x for x, _ in pairs}) == len({y for _, y in pairs}) > 1


def centre_of_star(runs: Sequence[RunFields], varied: Sequence[str]) -> dict[str, Any]:
    """The most frequent values of the fields of which no run has two that are different from them; often empty."""
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
    """The name of a field, with those that follow from it."""
    others = [name for name in runs[0] if name != x and _go_together(runs, name, x)]
    return f"{x} (with {', '.join(others)})" if others else x
