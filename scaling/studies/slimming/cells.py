"""The settings of a slimming study, and the encoders that follow from them."""

import dataclasses
from collections.abc import Iterator

from scaling.core.errors import UserError
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
    """A slimming study: what is measured.

    Attributes:
      study: a name for the rows.
      widths, modes: see `scaling.slimming.widths`.
      every_depth: whether the mode `layers` keeps every number of blocks, one to all, whatever the widths are.
      orderings, recoveries: see `scaling.slimming.orderings` and `recovery`; every pair of them is measured. Of
        the mode `layers`, which keeps the first blocks as they are, there is one encoder a width.
      controls: see `scaling.encoders.controls`; `random_weights` is cut to every width too.
      floors: see `scaling.encoders.handmade`; features that nobody learned, controls too. (They change no other row,
        and no hash of a configuration.)
      datasets: what the encoders are probed on, by name.
      probes: see `scaling.evaluation.probes`; `finetune` trains every encoder, the controls that have no blocks aside.
      finetune: how; data and cut are those of the cell.
      neighbours, distance: of the k-NN probe.
      pool: cls, or mean over the patches.
      calibration: how many unlabelled images orderings and recoveries may look at.
      calibration_source, calibration_split: where these come from: `pretraining` (the default where anything looks at
        them), the training images of the encoder; the spec of a source and its split; or `probed`, training images of
        the data set that is probed, which are then in the gallery of its nearest neighbours.
      components: how many enter the slope of the explained variance.
      draws: of the bootstrap.
      seeds: of whatever is drawn at random; a cell without chance is measured once.
    """

    study: str = "slim"
    widths: tuple[float, ...] = PUBLISHED_WIDTHS
    modes: tuple[str, ...] = ("inner",)
    every_depth: bool = False
    orderings: tuple[str, ...] = ("first",)
    recoveries: tuple[str, ...] = ("none",)
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

    @property
    def calibrates(self) -> bool:
        """Whether anything looks at calibration images."""
        pairs = ((ordering, recovery) for ordering in self.orderings for recovery in self.recoveries)
        return self.calibration > 0 and any(uses_images(*pair) for pair in pairs)

    def check(self) -> None:
        """Raises UserError for a name that is not known, or nothing to measure."""
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
        for field in ("widths", "modes", "datasets", "probes", "seeds"):
            if not getattr(self, field):
                raise UserError(f"{field} is empty: there is nothing to measure")
        for mode in self.modes:
            mode_axes(mode)
        if self.every_depth and ("layers",) not in map(mode_axes, self.modes):
            raise UserError("every_depth=True: is of the mode layers; set modes=('layers',)")
        if self.pool not in ("mean", "cls"):
            raise UserError(f"pool={self.pool!r}: cls or mean")
        if FINETUNE in self.probes:
            self.finetune.check()


@dataclasses.dataclass(frozen=True)
class Cell:
    """One encoder of a study; `mode` is `control` for the controls that are not cut, `ordering` their name."""

    width: float
    mode: str
    ordering: str = "first"
    recovery: str = "none"
    weights: str = "pretrained"
    seed: int = 0


def cells(c: SlimmingStudyConfig, depth: int) -> Iterator[Cell]:
    """All of them, the full encoder's width included, without those that differ by a seed that nothing depends on.

    depth: blocks of the full encoder.
    """
    by_chance = {"random", "energy"} | ({"svd"} if c.calibration else set())
    probes_by_chance = not {"linear", FINETUNE}.isdisjoint(c.probes)  # the linear one holds images out by its seed
    for name in c.controls:
        if name != RANDOM:
            yield Cell(1.0, "control", name)
    for name in c.floors:
        yield Cell(1.0, "control", name)
    for mode in c.modes:
        whole = mode_axes(mode) == ("layers",)
        widths = tuple(n / depth for n in range(1, depth + 1)) if whole and c.every_depth else c.widths
        for ordering in ("first",) if whole else c.orderings:
            for recovery in ("none",) if whole else c.recoveries:
                chance = ordering in by_chance or recovery != "none" or probes_by_chance
                for seed in c.seeds if chance else c.seeds[:1]:
                    yield from (Cell(width, mode, ordering, recovery, seed=seed) for width in widths)
        if RANDOM in c.controls:
            for seed in c.seeds:
                yield from (Cell(width, mode, weights=RANDOM, seed=seed) for width in widths)
