"""The best candidate within a budget: checked, compared with what one axis alone gives, and written."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from scaling.core.errors import UserError
from scaling.core.rows import Row
from scaling.encoders.encoder import describe_encoder
from scaling.evaluation.distance import error_interval, relative_error
from scaling.studies.search.budgets import LATENCY, Budget
from scaling.studies.search.latency import seconds
from scaling.studies.search.run import ERROR, Bench, Measured, candidate_row
from scaling.studies.search.space import Candidate, Space
from scaling.training.config import CutConfig

log = logging.getLogger(__name__)

WINNER, GAIN, LATENCY_SECONDS = f"winner_{ERROR}", "gain_over_", "latency_seconds"
_CHECKED = 10  # candidates whose time is measured before the budget is called too small


@dataclasses.dataclass(frozen=True)
class WinnerJob:
    """A job of `scaling.studies.grid`.

    Attributes:
      space, found: the candidates, and those that were measured.
      budget: that the winner meets.
      rivals: name -> the best candidate within the budget of one way to cut alone, where there is one.
      batch: images at once, of a latency.
      bench: makes what candidates are measured on.
      origin: fields of the `CutConfig`s that the winner remembers.
      about: fields of the rows.
      output: where the checkpoint goes.
    """

    name: str
    space: Space
    found: Sequence[Measured]
    budget: Budget
    rivals: dict[str, Candidate]
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
        winner, took = self._checked()
        bench = self.bench()
        errors = bench.one(winner)[0]
        spread = bench.distance.spread
        row = candidate_row(self.space, winner, self.ordering, self.about, metric=WINNER)
        low, high = error_interval([errors], spread)
        rows = [dataclasses.replace(row, value=relative_error(errors, spread), low=low, high=high)]
        for name, rival in self.rivals.items():
            others = errors if rival == winner else bench.one(rival)[0]
            gain = relative_error(others, spread) - relative_error(errors, spread)
            low, high = error_interval([others, errors], spread)
            other = candidate_row(self.space, rival, self.ordering, self.about, metric=GAIN + name)
            rows.append(dataclasses.replace(other, value=gain, low=low, high=high))
        if took is not None:
            rows.append(dataclasses.replace(row, metric=LATENCY_SECONDS, value=took))
        return rows

    def save(self, winner: Candidate) -> None:
        """Writes the checkpoint of the candidate that the rows say has won, in the place of one that is not complete;
        one that is there is kept.
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

    def _checked(self) -> tuple[Candidate, float | None]:
        """The best that meets the budget, a latency as it is measured on all of the candidate, and that."""
        within = sorted((one for one in self.found if one.cost <= self.budget.limit), key=lambda one: one.error)
        if self.budget.kind != LATENCY:
            return within[0].candidate, None
        for one in within[:_CHECKED]:
            took = seconds(self.space.config(one.candidate), self.batch)[1]
            if took <= self.budget.limit:
                return one.candidate, took
            said = self.budget.said
            log.info("%s takes %s, %s by the table; the next is tried", one.candidate, said(took), said(one.cost))
        raise UserError(
            f"--budget={self.budget}: the {min(_CHECKED, len(within))} best candidates that meet it by the table of "
            f"blocks take longer when they are measured whole, the last {self.budget.said(took)}; give a little more"
        )


def cuts_of(candidate: Candidate, ordering: str, origin: dict[str, Any]) -> list[CutConfig]:
    """How a candidate was cut; `origin` has further fields."""
    how: dict[str, Any] = {"ordering": ordering, "recovery": "ridge", **origin}
    cuts = [CutConfig(width_ratio=share, mode=axis, **how) for axis, share in candidate.widths.shares]
    if not candidate.whole_depth:
        cuts.append(CutConfig(mode="layers", blocks=candidate.blocks, of=candidate.of, rule="search", **how))
    return cuts


def _is_written(folder: epath.Path, cuts: Sequence[CutConfig]) -> bool:
    """Whether a folder has a complete checkpoint, whose last cuts are these."""
    try:
        there = describe_encoder(folder).cuts
    except UserError:
        return False

    def kept(some: Sequence[CutConfig]) -> list[tuple[Any, ...]]:
        return [(cut.width_ratio, cut.mode, cut.ordering, cut.recovery, cut.blocks, cut.of) for cut in some]

    return len(there) >= len(cuts) and kept(there[len(there) - len(cuts) :]) == kept(cuts)
