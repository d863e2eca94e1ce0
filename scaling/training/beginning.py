"""Initial parameters of pretraining that come from another checkpoint instead of being drawn."""

import dataclasses
import logging
from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from scaling.core.errors import UserError
from scaling.core.rows import config_hash
from scaling.models.config import ViTConfig
from scaling.models.positions import resample_positions
from scaling.models.resampling import resize_kernel
from scaling.models.vit import abstract_vit
from scaling.parallel.mesh import replicated
from scaling.training.config import RunConfig, TrainConfig
from scaling.training.reading import opened_to_read, step_to_read
from scaling.training.state import State, describe_mismatch
from scaling.training.step import TrainStep
from scaling.training.stored import StoredCheckpoints
from scaling.training.stored_config import ImportConfig, kept_config, stored_config

log = logging.getLogger(__name__)

# Fields of an encoder that may differ: how it is computed, and sizes by which parameters are resampled.
_FREE = ("attention", "half_logits", "remat", "unroll", "image_size", "image_width", "patch_size")


@dataclasses.dataclass(frozen=True)
class Beginning:
    """The checkpoint that pretraining begins with; called with a TrainStep, it makes the state before the first step.

    Attributes:
      checkpoint, step: working directory and step of the checkpoint.
      encoder: architecture of its encoder.
      objective: objective of its other networks; None if unknown.
      identity: identifies its parameters.
    """

    checkpoint: str
    step: int
    encoder: ViTConfig
    objective: Any
    identity: str

    def check(self, c: TrainConfig) -> None:
        """Raises UserError for a run whose encoder computes something else; the message names every field that
        differs.
        """
        where = f"--init_from={self.checkpoint}"
        if c.parametrization.name != "standard":
            raise UserError(
                f"{where}: parametrization.name={c.parametrization.name} initialises parameters at its own scales, so "
                "it cannot start from a checkpoint; set parametrization.name=standard"
            )
        try:
            self.encoder.check_pretraining()
        except UserError as e:
            raise UserError(f"{where} holds an encoder that cannot be pretrained here: {e}") from e
        ours, theirs = (dataclasses.asdict(model) for model in (c.model, self.encoder))
        if differ := [name for name in ours if name not in _FREE and ours[name] != theirs[name]]:
            named = ", ".join(f"model.{name}={theirs[name]!r} (now {ours[name]!r})" for name in differ)
            advice = " ".join(f"--config.model.{name}={theirs[name]}" for name in differ)
            raise UserError(f"{where} holds an encoder of another kind: {named}; set {advice}")
        if self.encoder.groups > 1 and c.model.grid != self.encoder.grid:
            raise UserError(f"{where}: takes images of {self.encoder.sides} pixels only; set model.image_size to that")

    def __call__(self, train_step: TrainStep) -> State:
        """The state before the first step: networks of the checkpoint where they fit, others drawn. The choice is
        logged.
        """
        with opened_to_read(self.checkpoint) as checkpoints:
            taken = self.told(train_step, checkpoints)
            params = {network: self._read(checkpoints, train_step, network) for network in taken}
        state: State = train_step.start({**_drawn(train_step, taken), **params})
        return state

    def say(self, train_step: TrainStep) -> None:
        """Logs the networks that are taken from the checkpoint."""
        with opened_to_read(self.checkpoint) as checkpoints:
            self.told(train_step, checkpoints)

    def told(self, train_step: TrainStep, checkpoints: StoredCheckpoints) -> list[str]:
        """The networks that are taken from the checkpoint; logs the origin of every network."""
        stored, where = checkpoints.stored(self.step), f"{self.checkpoint}, step {self.step:,}"
        ours, taken = train_step.config.model, ["encoder"]
        log.info("the encoder is that of %s", where)
        if ours.patch_size != self.encoder.patch_size:
            log.info("patch_size %d -> %d: the embedding is resampled", self.encoder.patch_size, ours.patch_size)
        if ours.grid != self.encoder.grid and ours.position != "none":
            how = "resampled" if ours.position == "learned" else "the fixed ones of the new grid"
            log.info("patches %s -> %s: positions are %s", _times(self.encoder.grid), _times(ours.grid), how)
        for network, shapes in train_step.abstract.params.items():
            if network == "encoder":
                continue
            names, there = {network: train_step.names[network]}, {k: x for k, x in stored.items() if k == network}
            why = describe_mismatch(names, {network: shapes}, there) if there else "it has none"
            if why:
                log.info("%s: initialised at random (%s)", network, why)
                continue
            taken.append(network)
            log.info("%s: loaded%s", network, self._changes(train_step))
        return taken

    def _changes(self, train_step: TrainStep) -> str:
        """The fields in which an objective of the same kind differs, as text."""
        ours: Any = train_step.config.objective
        if type(ours) is not type(self.objective):
            return ""
        before = dataclasses.asdict(self.objective)
        fields = {name: (before[name], x) for name, x in dataclasses.asdict(ours).items() if before[name] != x}
        return "".join(f"; objective.{name} {was!r} -> {now!r}" for name, (was, now) in fields.items())

    def _read(self, checkpoints: StoredCheckpoints, train_step: TrainStep, network: str) -> Any:
        """A network in the run's shapes, sharded over the devices; parameters to be resampled are replicated first."""
        shapes, names = train_step.abstract.params[network], train_step.names[network]
        theirs = abstract_vit(self.encoder)[0] if network == "encoder" else shapes
        placed, everywhere = train_step.shardings.params[network], replicated(train_step.mesh)
        reading = jax.tree.map(lambda x, y, at: at if x.shape == y.shape else everywhere, theirs, shapes, placed)
        groups = {network: theirs}, {network: reading}, {network: names}
        params = checkpoints.restore_params(self.step, *groups)[network]
        return params if network != "encoder" else self._resampled(params, train_step.config.model, placed)

    def _resampled(self, p: Any, ours: ViTConfig, placed: Any) -> Any:
        theirs = self.encoder
        if ours.patch_size != theirs.patch_size and "patch" in p:
            kernel = _resized(np.asarray(p["patch"]["kernel"]), theirs, ours)
            p = {**p, "patch": {**p["patch"], "kernel": jax.device_put(kernel, placed["patch"]["kernel"])}}
        if ours.grid != theirs.grid and "position" in p:
            table = np.asarray(p["position"]["embedding"])
            table = resample_positions(table, theirs.grid, ours.grid, antialias=False)
            p = {**p, "position": {"embedding": jax.device_put(table, placed["position"]["embedding"])}}
        return p


def _drawn(train_step: TrainStep, taken: Collection[str]) -> dict[str, Any]:
    """The networks that are not in the checkpoint, as a run that draws all networks draws them."""
    places = {network: at for network, at in train_step.shardings.params.items() if network not in taken}

    def draw(seed: jax.Array) -> dict[str, Any]:
        return {network: train_step.objective.init(seed)[network] for network in places}

    drawn: dict[str, Any] = train_step.compiled(draw, (), places, scalars=(np.int32(train_step.config.seed),))()
    return drawn


def _times(grid: tuple[int, int]) -> str:
    return "{} x {}".format(*grid)


def _resized(kernel: np.ndarray, theirs: ViTConfig, ours: ViTConfig) -> np.ndarray:
    """The kernel that embeds patches, [patch, ..., embed], for patches of another size."""
    rest, side = kernel.shape[1:], theirs.patch_size
    images = np.moveaxis(kernel.reshape(side, side, theirs.bands, -1), (3, 2), (0, 1))  # [D, C, p, p]
    resized = np.moveaxis(resize_kernel(images, ours.patch_size), (0, 1), (3, 2))
    return np.ascontiguousarray(resized.reshape(ours.patch_values, *rest))


def read_beginning(c: TrainConfig) -> Beginning:
    """The checkpoint that `c.init_from` names, checked.

    Raises:
      UserError: no such checkpoint, or its encoder is not that of the run.
    """
    folder = epath.Path(c.init_from)
    give = "a --workdir, or what convert wrote"
    with step_to_read(f"--init_from={folder}", folder, give=give) as (checkpoints, step):
        values = checkpoints.config(step)
    train, kept = stored_config(values), kept_config(values)
    beginning = Beginning(
        str(folder), step, kept.model if kept else train.model, _objective(train), f"{config_hash(values)}, step {step}"
    )
    beginning.check(c)
    return beginning


def _objective(train: RunConfig) -> Any:
    if isinstance(train, ImportConfig):
        return train.decoder
    return train.objective if isinstance(train, TrainConfig) else None


def begun_with(c: TrainConfig, workdir: epath.Path) -> tuple[TrainConfig, Beginning | None]:
    """A run's configuration with the identity of its initial parameters, and these; None for a run that draws its
    own or is resumed, which reads nothing of `init_from`.
    """
    if not c.init_from:
        return c, None
    stored: Mapping[str, Any] = {}
    if (workdir / "checkpoints").is_dir():
        with opened_to_read(workdir) as checkpoints:
            newest = checkpoints.newest()
            stored = checkpoints.config(newest) if newest is not None else {}
    if stored:
        return dataclasses.replace(c, encoder=stored.get("encoder", "")), None
    beginning = read_beginning(c)
    return dataclasses.replace(c, encoder=beginning.identity), beginning
