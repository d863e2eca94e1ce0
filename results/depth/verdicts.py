"""Every number of this study, from its rows: decisions, chosen depths, depth against width against both.

PYTHONPATH=. python results/depth/verdicts.py
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scaling.analysis.tables import table
from scaling.core.rows import LABELS, Row, read_rows
from scaling.evaluation.outcomes import predictions_of
from scaling.evaluation.scores import Predictions, percentile_interval

HERE = Path(__file__).parent
SCORE, NEAR = "macro_accuracy", 0.01  # a depth is enough if its score is within a point of the whole encoder's
ENCODERS = {"deep12": 12, "deep24": 24, "galileo_nano": 4}  # blocks of each
PROBES = ("knn", "linear")


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
            name = "random" if row.objective == "none" else row.model.partition(" (")[0]
            if row.mode == "control" and row.ordering != "depth_0":
                name = row.ordering
            where = Where(name, round(row.depth_ratio * depth), row.dataset, row.probe)
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


def decided(decisions: dict[str, dict[str, Any]]) -> Iterator[list[str]]:
    """Lines of the table of decisions."""
    yield ["encoder", "rule", "images", "keeps", "random weights keep", "halves that agree", "blocks, by images"]
    for encoder, found in decisions.items():
        for name, decision in found.items():
            rule, _, images = name.partition(" ")
            keep, random = (tuple(part["keep"]) for part in (decision, decision["random_encoder"]))
            same = sum(half["count"] for half in decision["halves"] if tuple(half["keep"]) == keep)
            draws = sum(half["count"] for half in decision["halves"])
            grown = ", ".join(f"{one['images']}: {len(one['keep'])}" for one in decision["first_images"])
            yield [encoder, rule, images, _blocks(keep), _blocks(random), f"{same} of {draws}", grown]


def chosen_depths(
    encoder: str, found: dict[Where, Predictions], decisions: dict[str, dict[str, Any]]
) -> Iterator[list[str]]:
    """Lines of the table of the depths that `simpler` chose on the unlabelled images of each set, beside all others.
    For four blocks it can choose two alone.
    """
    for dataset, probe in sorted({(w.dataset, w.probe) for w in found if w.model == encoder and w.blocks}):
        keep = len(decisions[f"simpler {dataset}"]["keep"]) if decisions else 2
        line, random = (curve(found, name, dataset, probe) for name in (encoder, "random"))
        whole, best = max(line), max(line, key=lambda blocks: score(line[blocks]))
        floor = found.get(Where("handmade", 0, dataset, probe))
        cells = map(_percent, (floor, line.get(0), line[keep], random.get(keep), line[whole]))
        compared = [str(difference(line[keep], line[whole])), f"{best}: {_percent(line[best])}", str(enough(line))]
        yield [encoder, dataset, probe, str(keep), *cells, *compared]


def finetuned(rows: list[Row]) -> Iterator[list[str]]:
    """Lines of the table of fine-tuned depths, whose rows have no outcomes."""
    line = {round(12 * r.depth_ratio): r for r in rows if (r.probe, r.metric) == ("finetune", SCORE)}
    yield ["blocks", *map(str, line)]
    scores = ((100 * (x or 0) for x in (r.value, r.low, r.high)) for r in line.values())
    yield ["fine-tuned", *(f"{value:.1f} ({low:.1f} to {high:.1f})" for value, low, high in scores)]


def under_one_budget(chosen: dict[Where, Predictions]) -> Iterator[list[str]]:
    """Lines of the table of the search: both axes, depth alone and width alone."""
    yield ["set", "probe", "depth alone", "width alone", "both", "both - depth", "both - width"]
    for where, both in chosen.items():
        name, _, kind = where.model.partition("_")
        if kind == "joint":
            rivals = [chosen[where._replace(model=f"{name}_{axis}", blocks=12)] for axis in ("depth", "width")]
            apart = [str(difference(both, other)) for other in rivals]
            yield [where.dataset, where.probe, *map(_percent, rivals), _percent(both), *apart]


def main() -> None:
    decisions = json.loads((HERE / "decisions.json").read_text())
    compared = ["these - all", "best", "enough"]
    lines = [["encoder", "set", "probe", "keeps", "hand-made", "no block", "these", "random", "all", *compared]]
    for encoder, depth in ENCODERS.items():
        found = scored(read_rows(HERE / f"{encoder}.rows.jsonl"), depth)
        lines += chosen_depths(encoder, found, decisions.get(encoder, {}))
    tuned = finetuned(read_rows(HERE / "finetuned.rows.jsonl"))
    searched = under_one_budget(scored(read_rows(HERE / "chosen.rows.jsonl")))
    for rows in (decided(decisions), lines, tuned, searched):
        print("\n".join(table(rows)) + "\n")


def _blocks(keep: tuple[int, ...]) -> str:
    return f"the first {len(keep)}" if keep == tuple(range(len(keep))) else ", ".join(map(str, keep))


def _percent(one: Predictions | None) -> str:
    return "" if one is None else f"{100 * score(one):.1f}"


if __name__ == "__main__":
    main()
