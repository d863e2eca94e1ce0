"""The primary tests of S2, as `PLAN.md` has them: pretraining set, probed domain, Holm over both and two probes.

PYTHONPATH=. python results/redundancy/decide.py runs/slim_redundancy/rows.jsonl
"""

import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import stats

from scaling.analysis.significance import holm
from scaling.core.rows import LABELS, Row, read_rows
from scaling.evaluation.scores import seed_interval
from scaling.studies.floors import DEPTH_0, above_floors

SETS, WIDTH, PROBES = ("rssccn7", "caltech101"), 0.1, ("knn", "linear")


class Kept(NamedTuple):
    """Gains of the cut and of the full encoder over depth 0 on one set, and whether the latter is significant."""

    cut: float
    full: float
    defined: bool


def _tested(row: Row) -> bool:
    """Whether a test is of this row: depth 0, or a trained encoder whole or as published at s = 0.1. Its other floors
    and cuts, which take most of the time, are not.
    """
    published = (row.ordering, row.recovery) == ("first", "none") and row.width_ratio in (WIDTH, 1)
    return row.ordering == DEPTH_0 or (published and row.objective != "none")


def measured(rows: list[Row], probe: str) -> dict[str, dict[str, Kept]]:
    """Encoder -> set -> what is kept above depth 0 by the published cut at s = 0.1."""
    found: dict[str, dict[str, Kept]] = {}
    asked = [
        row for row in rows if row.dataset in SETS and (row.probe == LABELS or (row.probe == probe and _tested(row)))
    ]
    for above in above_floors(asked):
        span, (low, _) = above.span
        for row, share, _ in above.kept:
            if row.width_ratio == WIDTH:
                kept = Kept(share * span, span, low is not None and low > 0)
                found.setdefault(row.model, {})[above.where[0]] = kept
    return {model: sets for model, sets in found.items() if len(sets) == len(SETS)}


def arrangements(labels: list[str]) -> Iterator[tuple[str, ...]]:
    """Every different way to hand out these labels: 1,680 of three times three."""

    def fill(left: dict[str, int]) -> Iterator[tuple[str, ...]]:
        if not any(left.values()):
            yield ()
        for name, count in left.items():
            if count:
                yield from ((name, *rest) for rest in fill({**left, name: count - 1}))

    return fill({name: labels.count(name) for name in sorted(set(labels))})


def between(values: np.ndarray, labels: tuple[str, ...]) -> float:
    """Sum of squares between the groups."""
    names = np.array(labels)
    parts = [values[names == name] for name in sorted(set(labels))]
    return float(sum(len(part) * (part.mean() - values.mean()) ** 2 for part in parts))


def of_pretraining(values: np.ndarray, labels: list[str]) -> float:
    """Exact p of the permutation test of no difference between the pretraining sets."""
    observed = between(values, tuple(labels))
    drawn = [between(values, order) for order in arrangements(labels)]
    return float(np.mean([x >= observed - 1e-12 for x in drawn]))


def of_domain(differences: np.ndarray) -> float:
    """Exact two-sided p of the sign test; zeros are ties and leave it."""
    signs = differences[differences != 0]
    return float(stats.binomtest(int((signs > 0).sum()), len(signs)).pvalue) if len(signs) else 1.0


Measured = dict[str, dict[str, dict[str, Kept]]]  # probe -> encoder -> set -> what is kept


def all_measured(rows: list[Row]) -> Measured:
    """What is kept with every probe; takes most of the time."""
    return {probe: measured(rows, probe) for probe in PROBES}


def gains(kept: dict[str, dict[str, Kept]]) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    """The encoders, their pretraining sets, and the gains of cut and full encoder, [encoders, sets] each."""
    models = sorted(kept)
    cut, full = (np.array([[getattr(kept[m][d], f) for d in SETS] for m in models]) for f in ("cut", "full"))
    return models, [model.partition("_")[2] for model in models], cut, full


def decide(rows: list[Row]) -> list[tuple[str, float, float, str]]:
    """(test, own p, p after Holm over the four, what was found)."""
    return decided(all_measured(rows))


def decided(found: Measured) -> list[tuple[str, float, float, str]]:
    """`decide` of what is measured already."""
    tests = []
    for probe, kept in found.items():
        models, labels, cut, full = gains(kept)
        sure = np.array([[kept[m][d].defined for d in SETS] for m in models])
        if (full.sum(1) > 0).all():
            what, values = "R of both sets", cut.sum(1) / full.sum(1)
        else:
            what, values = "points lost (a denominator is not above zero)", 100 * (full - cut).mean(1)
        groups = {name: values[np.array(labels) == name] for name in sorted(set(labels))}
        words = ", ".join(f"{name} {x.mean():.3f} ({len(x)})" for name, x in groups.items())
        tests.append((f"{probe} (a) pretraining", of_pretraining(values, labels), f"{what}: {words}"))
        both = sure.all(1)
        difference = np.divide(cut, full, out=np.zeros_like(cut), where=both[:, None]) @ np.array([1.0, -1.0])
        low, high = seed_interval(difference[both]) if both.sum() > 1 else (None, None)
        ends = "" if low is None or high is None else f"{difference[both].mean():+.3f} ({low:+.3f} to {high:+.3f}), "
        ties = ", ".join(m for m, defined in zip(models, both, strict=True) if not defined) or "none"
        tests.append(
            (
                f"{probe} (b) domain",
                of_domain(difference * both),
                f"R({SETS[0]}) - R({SETS[1]}) {ends}not defined: {ties}",
            )
        )
    adjusted = holm([p for _, p, _ in tests])
    return [(name, p, float(q), words) for (name, p, words), q in zip(tests, adjusted, strict=True)]


def main() -> None:
    for name, p, adjusted, words in decide([row for file in sys.argv[1:] for row in read_rows(file)]):
        print(f"{name:<24} p {p:.4f}, Holm {adjusted:.4f}{' *' * (adjusted < 0.05)}   {words}")


if __name__ == "__main__":
    main()
