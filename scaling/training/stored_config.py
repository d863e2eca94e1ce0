"""Configurations as checkpoints have them: of runs, imports and cuts, in the form of today or of earlier versions."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from scaling.core.config import divided, from_config_dict
from scaling.core.rows import IN_MODEL_AT_FIRST
from scaling.models.config import ViTConfig
from scaling.objectives import OBJECTIVES, ObjectiveConfig, objective_config, title
from scaling.training.config import FinetuneConfig, RunConfig, TrainConfig


@dataclasses.dataclass(frozen=True)
class ImportConfig(RunConfig):
    """Origin of an imported checkpoint; `data` has the normalisation that it was trained with.

    Attributes:
      family: see `scaling.interop.families`.
      file, sha256: the converted file.
      licence: licence of the weights.
      objective: pretraining objective of the weights; empty if the file does not state it, or in older checkpoints.
      networks: names of the networks in the file.
      decoder: configuration of the decoder, if it is one of them.
      band_names: names of the channels, in order.
    """

    family: str = ""
    file: str = ""
    sha256: str = ""
    licence: str = ""
    objective: str = ""
    networks: tuple[str, ...] = ("encoder",)
    band_names: tuple[str, ...] = ()
    decoder: ObjectiveConfig = dataclasses.field(
        default_factory=partial(objective_config, "mae"), metadata={"kinds": OBJECTIVES}
    )


def named_blocks(blocks: Sequence[int]) -> str:
    """Indices of blocks as text: `0-2` or `0,2,3`."""
    if len(blocks) > 1 and tuple(blocks) == tuple(range(blocks[0], blocks[-1] + 1)):
        return f"{blocks[0]}-{blocks[-1]}"
    return ",".join(map(str, blocks))


@dataclasses.dataclass(frozen=True)
class CutConfig:
    """A cut of an encoder, and the repair of the rest.

    Attributes:
      checkpoint, step: origin of the encoder that was cut.
      width_ratio, mode, ordering, recovery, seed: see `scaling.encoders.slimmed`.
      calibration, calibration_split, calibration_bands: source of the unlabelled images used by the cut, or their file;
        empty if it used none.
      calibration_images: number of these images that were used.
      blocks, of: indices of the blocks kept, from 0, and the number of blocks before; () for a cut in width.
      rule: rule that chose the blocks, see `scaling.slimming.depth`.
    """

    checkpoint: str = ""
    step: int = 0
    width_ratio: float = 1.0
    mode: str = "inner"
    ordering: str = "first"
    recovery: str = "none"
    seed: int = 0
    calibration: str = ""
    calibration_split: str = ""
    calibration_bands: tuple[int, ...] = ()
    calibration_images: int = 0
    blocks: tuple[int, ...] = ()
    of: int = 0
    rule: str = ""

    def __str__(self) -> str:
        if self.blocks:
            repaired = "" if self.recovery == "none" else f", {self.recovery}"
            return f"blocks {named_blocks(self.blocks)} of {self.of}, {self.rule}{repaired}"
        how = [name for name in (self.ordering, self.recovery) if name not in ("first", "none")]
        return " ".join([f"width {self.width_ratio:g}", self.mode, *how])


@dataclasses.dataclass(frozen=True)
class KeptConfig:
    """Part of the configuration of a cut encoder's checkpoint, beside that of the run of the whole encoder.

    Attributes:
      model: architecture after the cuts.
      cuts: cuts from the whole encoder to this one, in order.
    """

    model: ViTConfig = dataclasses.field(default_factory=ViTConfig)
    cuts: tuple[CutConfig, ...] = ()


def objective_of(c: RunConfig) -> str:
    """The objective that an encoder was trained with, in rows of measurements; see `scaling.core.rows.Row`."""
    if isinstance(c, ImportConfig):
        return c.objective or c.family
    return title(c.objective) if isinstance(c, TrainConfig) else "finetune"


KEPT = "kept"  # name of that part in a stored configuration


def stored_config(values: Mapping[str, Any]) -> RunConfig:
    """The configuration that a checkpoint was written with: of pretraining, fine-tuning or an import."""
    own = _split_model({field: value for field, value in values.items() if field != KEPT})
    return from_config_dict(run_kind(values), own)


def run_kind(values: Mapping[str, Any]) -> type[RunConfig]:
    """The kind of run of a configuration, by its fields."""
    kinds: dict[str, type[RunConfig]] = {"epochs": FinetuneConfig, "family": ImportConfig}
    return next((kind for field, kind in kinds.items() if field in values), TrainConfig)


def _split_model(values: dict[str, Any]) -> dict[str, Any]:
    """A stored configuration in today's form; in old ones the objective was part of `model`."""
    place = next((place for field, place in _PLACES.items() if field in values), "objective")
    if place in values or not hasattr(values.get("model"), "items"):
        return values
    encoder, theirs = divided(ViTConfig, values["model"])
    return values | {"model": encoder, place: {"name": IN_MODEL_AT_FIRST[place], **theirs}}


_PLACES = {"epochs": "task", "family": "decoder"}  # by a field of that configuration


def kept_config(values: Mapping[str, Any]) -> KeptConfig | None:
    """The `KeptConfig` of a cut encoder; None for a whole one."""
    return from_config_dict(KeptConfig, values[KEPT], KEPT) if KEPT in values else None
