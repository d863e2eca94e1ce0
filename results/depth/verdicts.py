"""Every number of this study, from its rows: chosen depths, rules at equal depth, depth against width against both.

PYTHONPATH=. python results/depth/verdicts.py
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scaling.core.rows import LABELS, Row, read_rows
from scaling.evaluation.outcomes import predictions_of
from scaling.evaluation.scores import Predictions, percentile_interval

HERE = Path(__file__).parent
SCORE, NEAR = "macro_accuracy", 0.01  # a depth is enough if its score is within a point of the whole encoder's
ENCODERS = {"deep12": 12, "deep24": 24, "galileo_nano": 4}  # blocks of each
PROBES = ("knn", "linear", "finetune")
RULES = ("shortgpt", "angular", "cka_interval")


class Where(NamedTuple):
    """What was scored: an encoder or `random`, its blocks, the data set and the probe."""

    model: str
    blocks: int
    dataset: str
    probe: str


class Difference(NamedTuple):
    """A difference of two scores on the same images, in points, with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.1f} ({self.low:+.1f} to {self.high:+.1f})"


def scored(rows: list[Row], depth: int = 12) -> dict[Where, Predictions]:
    """The outcomes of all scores of one file, whose encoders are cut from one of this depth."""
    labels = {row.dataset: row.outcomes for row in rows if row.probe == LABELS}
    found = {}
    for row in rows:
        if row.metric == SCORE and row.outcomes and row.probe in PROBES:
            name = "random" if row.objective == "none" else row.model
            where = Where(name, round(row.depth_ratio * depth), row.dataset, row.probe)
            if row.mode != "control" or row.ordering == "depth_0":
                found[where] = predictions_of(row.outcomes, labels[row.dataset])
    return found


def score(one: Predictions) -> float:
    return float(one.scores()[SCORE])


def difference(one: Predictions, other: Predictions) -> Difference:
    """Paired: both are resampled with the same images."""
    assert np.array_equal(one.truth, other.truth)
    low, high = percentile_interval(one.replicates()[SCORE] - other.replicates()[SCORE])
    assert low is not None
    assert high is not None
    return Difference(100 * (score(one) - score(other)), 100 * low, 100 * high)


def curve(found: dict[Where, Predictions], model: str, dataset: str, probe: str) -> dict[int, Predictions]:
    """Blocks -> outcomes of one curve, by depth."""
    some = {w.blocks: x for w, x in found.items() if (w.model, w.dataset, w.probe) == (model, dataset, probe)}
    return dict(sorted(some.items()))


def enough(line: dict[int, Predictions]) -> int:
    """The smallest number of blocks with a score within a point of that of all of them."""
    return next(blocks for blocks, one in line.items() if score(one) >= score(line[max(line)]) - NEAR)


def chosen_depths(encoder: str, found: dict[Where, Predictions], keep: int) -> Iterator[dict[str, Any]]:
    """A row for every set and probe: the depth that `simpler` chose beside the curve that it did not see."""
    for dataset, probe in sorted({(w.dataset, w.probe) for w in found if w.model == encoder and w.blocks}):
        line = curve(found, encoder, dataset, probe)
        random = curve(found, "random", dataset, probe)
        if keep not in line:
            continue
        best = max(line, key=lambda blocks: score(line[blocks]))
        yield {
            "encoder": encoder,
            "set": dataset,
            "probe": probe,
            "whole": score(line[max(line)]),
            "chosen": score(line[keep]),
            "chosen - whole": difference(line[keep], line[max(line)]),
            "best": (best, score(line[best])),
            "best - chosen": difference(line[best], line[keep]),
            "enough": enough(line),
            "random, as many": score(random[keep]) if keep in random else None,
            "depth 0": score(line[0]) if 0 in line else None,
        }


def at_equal_depth(
    encoder: str, found: dict[Where, Predictions], chosen: dict[Where, Predictions]
) -> Iterator[tuple[str, Where, Difference]]:
    """(rule, where, its score minus that of the first blocks, as many)."""
    for where, one in chosen.items():
        name, _, rule = where.model.rpartition("_")
        if name == encoder and rule in ("shortgpt", "angular", "interval"):
            first = found.get(where._replace(model=encoder))
            if first is not None:
                yield where.model.removeprefix(f"{encoder}_"), where, difference(one, first)


def main() -> None:
    decisions = json.loads((HERE / "decisions.json").read_text())
    for encoder, depth in ENCODERS.items():
        file = HERE / f"{encoder}.rows.jsonl"
        if not file.exists():
            continue
        found = scored(read_rows(file), depth)
        for name, decision in decisions[encoder].items():
            keep, random = (tuple(part["keep"]) for part in (decision, decision["random_encoder"]))
            same = sum(half["count"] for half in decision["halves"] if tuple(half["keep"]) == keep)
            grown = [len(one["keep"]) for one in decision["first_images"]]
            print(f"{encoder} {name}: keeps {_said(keep)}, random weights {_said(random)}, halves {same}/50, {grown}")
        for line in chosen_depths(encoder, found, len(decisions[encoder]["simpler"]["keep"])):
            print("  ", *(f"{name} {_word(x)}" for name, x in line.items()), sep="  ")
    chosen = scored(read_rows(HERE / "chosen.rows.jsonl"))
    found = scored(read_rows(HERE / "deep12.rows.jsonl"))
    for rule, where, gain in at_equal_depth("deep12", found, chosen):
        print(f"{rule} minus the first {where.blocks}, {where.dataset} {where.probe}: {gain}")
    for where, one in chosen.items():
        if where.model.endswith("_joint"):
            name = where.model.removesuffix("_joint")
            for axis in ("depth", "width"):
                rivals = [x for w, x in chosen.items() if w.model == f"{name}_{axis}" and w[2:] == where[2:]]
                for other in rivals:
                    print(f"{name}, {where.dataset} {where.probe}: both {100 * score(one):.1f}, minus {axis} alone "
                          f"{difference(one, other)}")  # fmt: skip


def _said(keep: tuple[int, ...]) -> str:
    return f"first {len(keep)}" if keep == tuple(range(len(keep))) else ",".join(map(str, keep))


def _word(x: Any) -> str:
    if isinstance(x, float):
        return f"{100 * x:.1f}"
    if isinstance(x, tuple) and not isinstance(x, Difference):
        return f"{x[0]}: {100 * x[1]:.1f}"
    return str(x)


if __name__ == "__main__":
    main()
