"""A search from its settings to its winner, as jobs of one grid."""

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from etils import epath

from scaling.core.errors import UserError
from scaling.core.files import write_whole
from scaling.core.rows import Row, config_hash
from scaling.encoders.encoder import Encoder
from scaling.encoders.loading import load_encoder
from scaling.encoders.similarity import measure
from scaling.encoders.splits import Split, gathered
from scaling.encoders.unlabelled import looked_at
from scaling.slimming.orderings import ORDERINGS
from scaling.studies.grid import Job
from scaling.studies.journal import Journal
from scaling.studies.search import latency
from scaling.studies.search.budgets import LATENCY, PARAMS, Budget
from scaling.studies.search.confirming import ConfirmJob, Labelled
from scaling.studies.search.latency import BLOCK, STEM, BlockTime, LatencyTable, table_widths
from scaling.studies.search.run import (
    ERROR,
    SELECTION,
    Bench,
    Measured,
    by_name,
    candidate_row,
    divided,
    explore,
    front_of,
    widths_job,
)
from scaling.studies.search.space import BLOCKS, Candidate, Space, Widths
from scaling.studies.search.winner import WINNER, WinnerJob

UNIFORM, DEPTH = "uniform width", "depth alone"
_SETTINGS, _LEAST = "search.json", 32

Cost = Callable[[Candidate], float]


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """Settings of a search.

    Attributes:
      axes: axes to cut; `layers` is the depth. () for all axes with more than one unit, except `embed`.
      widths: fractions of every axis except `layers` that candidates may keep.
      blocks: see `Space`.
      candidates: approximate number of candidates to measure.
      ordering: ordering of the units, see `scaling.slimming.orderings`.
      pool: pooling of the features that are compared: cls, mean or tokens.
      batch: images per batch, for latencies.
      seed: seed of the division of the images into three parts.
    """

    axes: tuple[str, ...] = ()
    widths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    blocks: str = "prefix"
    candidates: int = 300
    ordering: str = "svd"
    pool: str = "mean"
    batch: int = 1
    seed: int = 0

    def check(self, encoder: Encoder) -> None:
        """Raises UserError for values that are not known, or not of this encoder."""
        for field, known in (("blocks", BLOCKS), ("ordering", ORDERINGS)):
            if getattr(self, field) not in known:
                raise UserError(f"--{field}={getattr(self, field)}: must be one of {', '.join(known)}")
        for field in ("candidates", "batch"):
            if getattr(self, field) < 1:
                raise UserError(f"--{field}={getattr(self, field)}: must be at least 1")
        encoder.check_pool(self.pool)

    def space(self, encoder: Encoder, influence: np.ndarray | None = None) -> Space:
        """The candidates; before the influence of blocks is known, those with the first blocks represent all."""
        c = encoder.config
        several = [a for a, n in (("layers", c.depth), ("branch", c.branches), ("heads", c.heads)) if n > 1]
        axes = self.axes or (*several, "head_dim", "mlp")
        blocks = "prefix" if self.needs_influence and influence is None else self.blocks
        return Space(encoder.architecture, axes, self.widths, blocks, influence)

    @property
    def needs_influence(self) -> bool:
        return self.blocks in ("shortgpt", "all")


def check_budget(space: Space, budget: Budget, cost: Cost) -> None:
    """Raises UserError for a budget that the whole encoder already meets, or that no candidate meets."""
    whole = cost(space.uncut)
    if budget.limit >= whole:
        raise UserError(f"--budget={budget}: the whole encoder costs only {budget.said(whole)}; set a smaller budget")
    cheapest = min(space.cheapest, key=cost)
    if cost(cheapest) > budget.limit:
        raise UserError(
            f"--budget={budget}: no candidate meets it; the cheapest, {cheapest}, costs {budget.said(cost(cheapest))}: "
            "give that, or smaller --widths"
        )


def counted(space: Space, kind: str) -> Cost:
    """The counted cost of a candidate: parameters, or operations relative to the whole encoder."""
    if kind == PARAMS:
        return lambda candidate: float(space.cost(candidate)[0])
    return lambda candidate: space.cost(candidate)[2]["full"]


class Search:
    """One search in one folder.

    Args:
      encoder: the whole encoder.
      name: name of the encoder in rows.
      opened: the images.
      c: settings of the search.
      budget: budget of the winner.
      output: the folder; a search in it is resumed.
      labelled: images to confirm the winner on.
      checkpoint: origin of the encoder, to be recorded in the winner.

    Raises:
      UserError: too few images, or another checkpoint in the folder.
    """

    def __init__(
        self,
        encoder: Encoder,
        name: str,
        opened: Split,
        c: SearchConfig,
        budget: Budget,
        output: epath.Path,
        labelled: Labelled | None = None,
        checkpoint: str = "",
    ):
        _check_images(opened.images)
        self._encoder, self._opened, self._c, self.budget, self._output = encoder, opened, c, budget, output
        self._labelled, self._checkpoint = labelled, checkpoint
        self.space = c.space(encoder, self._influence if c.needs_influence else None)
        what = {"axes": list(self.space.shares), "widths": c.widths, "sets": self.space.sets, "ordering": c.ordering}
        self._settings = {"encoder": encoder.identity, "pool": c.pool, "seed": c.seed, **what, **looked_at(opened)}
        self._settings["parts"] = "fit, selection, held out"
        fields = {"dataset": opened.source, "split": opened.split, "seed": c.seed}
        self._about = fields | encoder.row_fields(name, self._settings)
        self._all = self._settings | {"budget": str(budget), "candidates": c.candidates}
        if budget.kind == LATENCY:
            self._all |= {"batch": c.batch, "device": latency.computer()}
        self.journal = Journal(output)
        self._file = output / _SETTINGS
        if (output / "checkpoints").exists() and not self._is_of_this():
            raise UserError(f"--output={output} has a checkpoint of something else; choose another folder")

    def _is_of_this(self) -> bool:
        try:
            return bool(json.loads(self._file.read_text()) == json.loads(json.dumps(self._all, default=str)))
        except (OSError, ValueError):
            return False

    @functools.cached_property
    def images(self) -> np.ndarray:
        (images,) = gathered(((part.images,) for part in self._opened.parts()), self._opened.images)
        _check_images(len(images))
        return images

    @functools.cached_property
    def _influence(self) -> np.ndarray:
        """Influence of every block, on the images to fit to; see `scaling.slimming.depth.shortgpt`."""
        fitted = self.images[divided(len(self.images), self._c.seed)[0]]
        states = measure([self._encoder], ((fitted[i : i + 128],) for i in range(0, len(fitted), 128))).states()
        return 1 - np.diagonal(states.cosine, offset=1)

    @functools.cached_property
    def bench(self) -> Bench:
        return Bench(self._encoder, self.images, self._c.ordering, self._c.pool, self._c.seed)

    def run(self, grid: Callable[[list[Any], Journal], None]) -> list[Measured]:
        """Measures candidates and chooses the winner. The journal must be open.

        grid: runs jobs, and raises if some fail.
        """
        write_whole(self._file, json.dumps(self._all, indent=2, default=str) + "\n")
        cost = self.cost(grid)
        check_budget(self.space, self.budget, cost)

        def measured(widths: list[Widths]) -> list[Measured]:
            shared = self._c.ordering, self._about, lambda: self.bench
            grid([widths_job(self.space, w, *shared) for w in widths], self.journal)
            return self.measured(cost)

        found = explore(self.space, self._c.candidates, self.budget.limit, measured)
        grid([job := self._winner(found)], self.journal)
        job.save(self.named(self._won))
        if self._labelled:
            grid([self._confirmation(self._labelled)], self.journal)
        return found

    def cost(self, grid: Callable[[list[Any], Journal], None]) -> Cost:
        """The cost function for the kind of the budget; for latencies the table is measured first."""
        if self.budget.kind != LATENCY:
            return counted(self.space, self.budget.kind)
        about = self._about | {"config_hash": self._hash("batch", "device", "encoder", "axes", "widths")}
        jobs = []
        for widths in table_widths(self.space):
            candidate = self.space.whole_depth(widths)
            row = dataclasses.replace(candidate_row(self.space, candidate, "", about), recovery="", mode=str(widths))
            name = f"time of {widths}, {about['config_hash']}"
            jobs.append(BlockTime(name, self.space.config(candidate), self._c.batch, row))
        grid(jobs, self.journal)
        rows = [row for row in self.journal.rows if row.config_hash == about["config_hash"]]
        entries = {m: {r.mode: float(r.value or 0) for r in rows if r.metric == m} for m in (STEM, BLOCK)}
        return LatencyTable(self.space, entries)

    def measured(self, cost: Cost) -> list[Measured]:
        """All candidates with rows."""
        known, mine = by_name(self.space), self._about["config_hash"]
        rows = [row for row in self.journal.rows if row.config_hash == mine and row.mode in known]
        errors, held_out = ({r.mode: float(r.value or 0) for r in rows if r.metric == m} for m in (SELECTION, ERROR))
        return [Measured(known[mode], cost(known[mode]), errors[mode], held_out[mode]) for mode in held_out]

    @property
    def count(self) -> int:
        """Number of candidates with rows."""
        return sum(r.config_hash == self._about["config_hash"] and r.metric == ERROR for r in self.journal.rows)

    def named(self, name: str) -> Candidate:
        """A candidate by its name in rows."""
        return by_name(self.space)[name]

    def _hash(self, *names: str) -> str:
        return config_hash({name: self._all[name] for name in names})

    @property
    def decided(self) -> list[Row]:
        """The rows of the winner and of those compared with it."""
        mine = self._hash(*self._all)
        return [row for row in self.journal.rows if row.config_hash == mine]

    @property
    def _won(self) -> str:
        return next(row.mode for row in self.decided if row.metric == WINNER)

    @property
    def confirmation(self) -> list[Row]:
        """The rows of the probe; empty if none was requested."""
        mine = self._hash_of_probe(self._labelled) if self._labelled else ""
        return [row for row in self.journal.rows if row.config_hash == mine]

    def _hash_of_probe(self, labelled: Labelled) -> str:
        return config_hash(self._all | {"confirm": dataclasses.asdict(labelled)})

    def _confirmation(self, labelled: Labelled) -> Job:
        about = self._about | {"config_hash": self._hash_of_probe(labelled)}
        winner = self.named(self._won)
        whole = dataclasses.replace(candidate_row(self.space, self.space.uncut, "first", about), recovery="none")
        rows = {"whole": whole, "winner": candidate_row(self.space, winner, self._c.ordering, about)}
        name = f"{labelled.probe} on {labelled.source}, {about['config_hash']}"
        return ConfirmJob(name, labelled, self._c.pool, self._encoder, lambda: load_encoder(self._output), rows)

    def fronts(self, found: list[Measured]) -> dict[str, list[Measured]]:
        """Fronts by name: of all candidates, and of each single way to cut."""
        uniform = set(self.space.uniform)
        return {
            "depth, width and branches": front_of(found),
            UNIFORM: front_of(found, lambda c: c.whole_depth and c.widths in uniform),
            DEPTH: front_of(found, lambda c: c.whole_width),
        }

    def _winner(self, found: list[Measured]) -> WinnerJob:
        rivals = {name.replace(" ", "_"): self.fronts(found)[name] for name in (UNIFORM, DEPTH)}
        about = self._about | {"config_hash": self._hash(*self._all)}
        origin: dict[str, Any] = {"checkpoint": self._checkpoint, "step": self._encoder.step, "seed": self._c.seed}
        origin |= {"calibration": self._opened.source, "calibration_split": self._opened.split}
        origin["calibration_bands"] = self._opened.bands
        return WinnerJob(
            f"winner of {self.budget}, {about['config_hash']}",
            *(self.space, found, self.budget, rivals, self._c.batch, lambda: self.bench, self._c.ordering),
            *(origin, about, self._output),
        )


def _check_images(images: int) -> None:
    if images < _LEAST:
        raise UserError(
            f"--images={images}: at least {_LEAST} are needed: half for the repairs, a quarter to choose among "
            "candidates, and a quarter for the reported errors; give a few hundred"
        )
