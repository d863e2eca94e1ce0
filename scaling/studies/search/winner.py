"""The best candidate within a budget: checked, compared with cuts along one axis alone, and written."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from scaling.core.errors import UserError
from scaling.core.rows import Row
from scaling.encoders.loading import describe_encoder
from scaling.studies.search.budgets import LATENCY, Budget
from scaling.studies.search.latency import seconds
from scaling.studies.search.run import ERROR, Bench, Measured, candidate_row
from scaling.studies.search.space import Candidate, Space
from scaling.training.stored_config import CutConfig

log = logging.getLogger(__name__)

WINNER, GAIN, LATENCY_SECONDS = f"winner_{ERROR}", "gain_over_", "latency_seconds"


@dataclasses.dataclass(frozen=True)
class WinnerJob:
    """A job of `scaling.studies.grid`.

    Attributes:
      space, found: all candidates, and those that were measured.
      budget: budget that the winner meets.
      rivals: name -> candidates of a single way to cut, the best of which is compared with the winner.
      batch: images per batch, for latencies.
      bench: makes the `Bench`.
      origin: fields of the winner's `CutConfig`s.
      about: fields of the rows.
      output: folder of the checkpoint.
    """

    name: str
    space: Space
    found: Sequence[Measured]
    budget: Budget
    rivals: Mapping[str, Sequence[Measured]]
    batch: int
    bench: Callable[[], Bench]
    ordering: str
    origin: dict[str, Any]
    about: dict[str, Any]
    output: epath.Path

    @property
    def cost(self) -> float:
        return 1.0 + len(self.rivals)

    def run(self) -> list[Row]:
        winner, rivals, took = self._choose()
        bench = self.bench()
        errors = bench.one(winner.candidate)[0]
        row = candidate_row(self.space, winner.candidate, self.ordering, self.about, metric=WINNER)
        rows = [dataclasses.replace(row, **bench.estimates([errors], ERROR))]
        for name, rival in rivals.items():
            gain = bench.estimates([bench.one(rival.candidate)[0], errors], ERROR)
            other = candidate_row(self.space, rival.candidate, self.ordering, self.about, metric=GAIN + name)
            rows.append(dataclasses.replace(other, **gain))
        if took:
            rows.append(dataclasses.replace(row, metric=LATENCY_SECONDS, value=took[winner.candidate]))
        return rows

    def save(self, winner: Candidate) -> None:
        """Writes the checkpoint of the candidate that won according to the rows, replacing an incomplete one; a
        complete one is kept.
        """
        if _is_written(self.output, cuts_of(winner, self.ordering, self.origin)):
            return
        if (left := self.output / "checkpoints").exists():
            left.rmtree()
        bench = self.bench()
        encoder = bench.one(winner)[1]()
        for cut in cuts_of(winner, self.ordering, self.origin | {"calibration_images": bench.calibration_images}):
            encoder = encoder.after(cut)
        encoder.save(self.output)

    def _choose(self) -> tuple[Measured, dict[str, Measured], dict[Candidate, float]]:
        """The winner, the rivals that meet the budget, and the measured latencies of whole candidates."""
        took: dict[Candidate, float] = {}

        def whole(candidate: Candidate) -> float:
            if candidate not in took:
                took[candidate] = seconds(self.space.config(candidate), self.batch)[1]
            return took[candidate]

        timed = whole if self.budget.kind == LATENCY else None
        found = {name: best_within(some, self.budget, timed) for name, some in self.rivals.items()}
        rivals = {name: one for name, one in found.items() if one}
        best = best_within(self.found, self.budget, timed)
        if not best:
            cheapest = min(self.found, key=lambda one: one.cost)
            cost = took.get(cheapest.candidate, cheapest.cost)
            raise UserError(
                f"--budget={self.budget}: no candidate meets it; the cheapest that was measured, {cheapest.candidate}, "
                f"costs {self.budget.said(cost)}: give that, or smaller --widths"
            )
        return min((best, *rivals.values()), key=lambda one: one.error), rivals, took


def best_within(
    some: Sequence[Measured], budget: Budget, whole: Callable[[Candidate], float] | None = None
) -> Measured | None:
    """The candidate with the smallest error within a budget.

    Args:
      some: candidates to choose from.
      budget: the limit; if `whole` is given, a latency that measured times are compared with.
      whole: measures the seconds of a whole candidate. In order of their errors, candidates are measured that meet the
        budget by the table of blocks, with its times scaled by the smallest ratio measured so far; if none of these
        meets it, the cheapest is measured.

    Returns:
      The candidate, or None if none meets the budget.
    """
    left = sorted(some, key=lambda one: one.error)
    if whole is None or not left:
        return next((one for one in left if one.cost <= budget.limit), None)
    best: Measured | None = None
    cheapest = min(left, key=lambda one: one.cost)
    ratio, ratios, said = 1.0, list[float](), budget.said
    while True:
        one = next((one for one in left if one.cost * ratio <= budget.limit), None if best else cheapest)
        if one is None or one not in left:
            return best
        took = whole(one.candidate)
        ratios.append(took / one.cost)
        ratio = min(ratios)
        if took <= budget.limit:
            best, left = one, left[: left.index(one)]
        else:
            log.info(
                "%s takes %s, but %s was predicted; trying the next candidate",
                one.candidate,
                said(took),
                said(one.cost),
            )
            left.remove(one)


def cuts_of(candidate: Candidate, ordering: str, origin: dict[str, Any]) -> list[CutConfig]:
    """The cuts that give a candidate; `origin` has further fields."""
    how: dict[str, Any] = {"ordering": ordering, "recovery": "ridge", **origin}
    cuts = [CutConfig(width_ratio=share, mode=mode, **how) for mode, share in candidate.widths.cuts]
    if not candidate.whole_depth:
        cuts.append(CutConfig(mode="layers", blocks=candidate.blocks, of=candidate.of, rule="search", **how))
    return cuts


def _is_written(folder: epath.Path, cuts: Sequence[CutConfig]) -> bool:
    """Whether a folder has a complete checkpoint whose last cuts are these."""
    try:
        there = describe_encoder(folder).cuts
    except UserError:
        return False

    def kept(some: Sequence[CutConfig]) -> list[tuple[Any, ...]]:
        return [(cut.width_ratio, cut.mode, cut.ordering, cut.recovery, cut.blocks, cut.of) for cut in some]

    return len(there) >= len(cuts) and kept(there[len(there) - len(cuts) :]) == kept(cuts)
