"""The settings of a slimming study, and the encoders that follow from them."""

import dataclasses
import itertools
from collections.abc import Iterator

from scaling.core.errors import UserError
from scaling.data.sources.registry import store_specs
from scaling.encoders.controls import CONTROLS
from scaling.encoders.handmade import FLOORS
from scaling.encoders.slimmed import uses_images
from scaling.evaluation.probes import PROBES
from scaling.slimming.orderings import ORDERINGS
from scaling.slimming.recovery import RECOVERIES
from scaling.slimming.widths import PUBLISHED_WIDTHS, mode_axes
from scaling.studies.slimming.datasets import DatasetConfig
from scaling.training.config import FinetuneConfig

RANDOM = "random_weights"
FINETUNE = "finetune"
PRETRAINING, PROBED = "pretraining", "probed"


@dataclasses.dataclass(frozen=True)
class SlimmingStudyConfig:
    """Settings of a slimming study.

    Attributes:
      study: name of the study in rows.
      widths, modes: see `scaling.slimming.widths`.
      every_depth: whether the mode `layers` keeps every number of blocks, one to all, whatever the widths are.
      orderings, recoveries: see `scaling.slimming.orderings` and `recovery`; every pair of them is measured. The mode
        `layers`, which keeps the first blocks unchanged, has one encoder per width.
      pairs: the pairs to measure, each ORDERING+RECOVERY, instead of every one; at the full width, where a repair has
        nothing to do, the first of them alone.
      controls: see `scaling.encoders.controls`; `random_weights` is cut to every width too.
      floors: see `scaling.encoders.handmade`; hand-made features, which are controls too. (They change no other row and
        no hash of a configuration.)
      datasets: data sets that the encoders are probed on, by name.
      probes: see `scaling.evaluation.probes`; `finetune` trains every encoder except the controls without blocks.
      finetune: recipe of that training; data and cut are those of the cell.
      neighbours, distance: number of neighbours and metric of the k-NN probe.
      pool: cls, or mean over the patches.
      calibration: number of unlabelled images that orderings and recoveries may use.
      calibration_source, calibration_split: source of these images: `pretraining` (the default if any are used), the
        training images of the encoder; the spec of a source and its split; or `probed`, training images of the probed
        data set, which are then in the gallery of its nearest neighbours.
      components: number of components in the slope of the explained variance.
      draws: number of bootstrap draws.
      seeds: seeds of all random draws; a deterministic cell is measured once.
    """

    study: str = "slim"
    widths: tuple[float, ...] = PUBLISHED_WIDTHS
    modes: tuple[str, ...] = ("inner",)
    every_depth: bool = False
    orderings: tuple[str, ...] = ("first",)
    recoveries: tuple[str, ...] = ("none",)
    pairs: tuple[str, ...] = ()
    controls: tuple[str, ...] = tuple(CONTROLS)
    floors: tuple[str, ...] = FLOORS
    datasets: dict[str, DatasetConfig] = dataclasses.field(default_factory=dict)
    probes: tuple[str, ...] = ("knn",)
    finetune: FinetuneConfig = dataclasses.field(default_factory=FinetuneConfig)
    neighbours: int = 5
    distance: str = "cosine"
    pool: str = "mean"
    calibration: int = 256
    calibration_source: str = ""
    calibration_split: str = "train"
    components: int = 32
    draws: int = 1000
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if not self.calibration_source and self.calibrates:
            object.__setattr__(self, "calibration_source", PRETRAINING)
        if self.calibration_source not in (PRETRAINING, PROBED):
            store_specs(self, "calibration_source")

    @property
    def calibrates(self) -> bool:
        """Whether calibration images are used at all."""
        return self.calibration > 0 and any(uses_images(*pair) for pair in self.cuts)

    @property
    def cuts(self) -> tuple[tuple[str, str], ...]:
        """The pairs of an ordering and a recovery."""
        if not self.pairs:
            return tuple(itertools.product(self.orderings, self.recoveries))
        return tuple((ordering, recovery) for ordering, _, recovery in (pair.partition("+") for pair in self.pairs))

    def check(self) -> None:
        """Raises UserError for an unknown name, or nothing to measure."""
        known = {
            "orderings": ORDERINGS,
            "recoveries": RECOVERIES,
            "controls": CONTROLS,
            "floors": FLOORS,
            "probes": (*PROBES, FINETUNE),
        }
        for field, names in known.items():
            for name in getattr(self, field):
                if name not in names:
                    raise UserError(f"{field}: unknown {name!r}; choose from: {', '.join(names)}")
        for pair, (ordering, recovery) in zip(self.pairs, self.cuts, strict=False):
            if ordering not in ORDERINGS or recovery not in RECOVERIES:
                raise UserError(f"pairs: {pair!r} is not ORDERING+RECOVERY; write for example svd+ridge")
        if self.pairs and self.pairs[0] != "first+none":
            raise UserError(
                f"pairs={self.pairs}: must begin with first+none, the published cut, which all others are compared with"
            )
        if self.pairs and (self.orderings, self.recoveries) != (("first",), ("none",)):
            raise UserError(
                f"orderings={self.orderings}, recoveries={self.recoveries}: are not used beside pairs={self.pairs}; "
                "leave them out, or set pairs=()"
            )
        for field in ("widths", "modes", "datasets", "probes", "seeds"):
            if not getattr(self, field):
                raise UserError(f"{field} is empty: there is nothing to measure")
        for mode in self.modes:
            mode_axes(mode)
        if self.every_depth and ("layers",) not in map(mode_axes, self.modes):
            raise UserError("every_depth=True: is only for the mode layers; set modes=('layers',)")
        if self.pool not in ("mean", "cls"):
            raise UserError(f"pool={self.pool!r}: must be cls or mean")
        if FINETUNE in self.probes:
            self.finetune.check()


@dataclasses.dataclass(frozen=True)
class Cell:
    """One encoder of a study; for controls that are not cut, `mode` is `control` and `ordering` their name."""

    width: float
    mode: str
    ordering: str = "first"
    recovery: str = "none"
    weights: str = "pretrained"
    seed: int = 0


def cells(c: SlimmingStudyConfig, depth: int) -> Iterator[Cell]:
    """All cells, including the full encoder, without those that differ only in a seed that they do not depend on.

    depth: blocks of the full encoder.
    """
    by_chance = {"random", "energy"} | ({"svd"} if c.calibration else set())
    probes_by_chance = not {"linear", FINETUNE}.isdisjoint(c.probes)  # the linear probe holds images out by its seed
    for name in c.controls:
        if name != RANDOM:
            yield Cell(1.0, "control", name)
    for name in c.floors:
        yield Cell(1.0, "control", name)
    for mode in c.modes:
        whole = mode_axes(mode) == ("layers",)
        widths = tuple(n / depth for n in range(1, depth + 1)) if whole and c.every_depth else c.widths
        cuts = (("first", "none"),) if whole else c.cuts
        for ordering, recovery in cuts:
            chance = ordering in by_chance or recovery != "none" or probes_by_chance
            narrower = tuple(s for s in widths if s < 1) if c.pairs and (ordering, recovery) != cuts[0] else widths
            for seed in c.seeds if chance else c.seeds[:1]:
                yield from (Cell(width, mode, ordering, recovery, seed=seed) for width in narrower)
        if RANDOM in c.controls:
            for seed in c.seeds:
                yield from (Cell(width, mode, weights=RANDOM, seed=seed) for width in widths)
