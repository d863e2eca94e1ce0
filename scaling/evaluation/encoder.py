"""A pretrained encoder, read from a checkpoint, as a function from images to features."""

import dataclasses
import functools
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from scaling.data.pipeline import normalise
from scaling.errors import UserError
from scaling.models.vit import POOLS, ViT, ViTConfig, abstract_vit, encoder_config, with_learned_positions
from scaling.parallel.mesh import MeshConfig, make_mesh, replicated
from scaling.results import config_hash, provenance
from scaling.slimming.cutting import axis_sizes, cut
from scaling.slimming.widths import mode_plan
from scaling.training.checkpoints import Checkpoints
from scaling.training.config import RunConfig, stored_config


@dataclasses.dataclass(frozen=True)
class Encoder:
    """An encoder and the normalisation it was trained with.

    Attributes:
      config: the architecture.
      params: of the encoder alone.
      train: the configuration of the run it comes from; `train.data` has mean and std of each band.
      step: of that run.
    """

    config: ViTConfig
    params: Any
    train: RunConfig
    step: int = 0

    def features(self, images: np.ndarray, pool: str = "mean", batch_size: int = 128) -> np.ndarray:
        """Encodes normalised images.

        Args:
          images: float [N, h, w, C].
          pool: `cls`, `mean` over the patches, or `tokens` for all of them.
          batch_size: images at once.

        Returns:
          float32 [N, D], or [N, T, D] for `tokens`.

        Raises:
          UserError: images or pool that do not fit the encoder.
        """
        c = self.config
        self.check(images)
        if pool not in POOLS or (pool == "cls" and not c.class_token):
            raise UserError(f"pool={pool!r} is not offered by this encoder; use mean or tokens")
        parts = []
        for i in range(0, max(len(images), 1), batch_size):  # once for no images: the shape is right then too
            part = images[i : i + batch_size].astype(np.float32)
            padded = np.pad(part, [(0, batch_size - len(part)), (0, 0), (0, 0), (0, 0)])  # one shape, one compilation
            parts.append(np.asarray(_encode(c, pool, self.params, padded))[: len(part)])
        return np.concatenate(parts)

    def row_fields(self, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a `Row` that say what was measured with which settings."""
        seen = self.step * self.train.batch_size
        about = {"model": name, "objective": "mae", "step": self.step, "samples_seen": seen}
        return about | {"config_hash": config_hash(settings), **provenance()}

    def check(self, images: np.ndarray) -> None:
        """Raises UserError for images that the encoder does not take."""
        c = self.config
        expected = (c.image_size, c.image_size, c.bands)
        if images.ndim != 4 or images.shape[1:] != expected:
            takes = ", ".join(map(str, expected))
            raise UserError(f"images of shape {list(images.shape)}, the encoder takes [N, {takes}]")
        if not np.isfinite(images).all():
            raise UserError("the images contain NaN or infinity")

    def normalise(self, images: np.ndarray) -> np.ndarray:
        """Images in the units of the data -> the encoder's input.

        Raises:
          UserError: the checkpoint, an imported one, does not say how.
        """
        if not self.train.data.mean:
            raise UserError("the checkpoint does not say how its images are normalised; give mean and std, or .npy")
        return normalise(images, self.train.data.mean, self.train.data.std)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _encode(c: ViTConfig, pool: str, params: Any, images: jax.Array) -> jax.Array:
    tokens: Any = ViT(c).apply({"params": params}, images)
    return POOLS[pool](tokens, c).astype(jnp.float32)


def cuttable(params: Any, c: ViTConfig, cut: Collection[str]) -> tuple[Any, ViTConfig]:
    """The same encoder with all that these axes run through in its parameters: fixed positions become learned ones."""
    return with_learned_positions(params, c) if "embed" in cut and c.position == "sincos" else (params, c)


def load_encoder(
    checkpoint: epath.PathLike, step: int | None = None, width: float = 1.0, slim: str = "inner"
) -> Encoder:
    """Reads the encoder of a working directory's newest checkpoint, or of the step named.

    Args:
      checkpoint: the --workdir of a training run.
      step: which of its checkpoints.
      width, slim: the published slimming (`scaling.slimming.widths`), before anything else is read: the full encoder
        never is in memory. For other orderings see `scaling.evaluation.slimmed`.

    Raises:
      UserError: there is no checkpoint, or no such width or mode.
    """
    checkpoints, step = _open(epath.Path(checkpoint), step)
    train = stored_config(checkpoints.config(step))
    c = encoder_config(train.model)
    shapes, names = abstract_vit(c)
    plan = mode_plan(axis_sizes(shapes, names), width, slim)
    everywhere = replicated(make_mesh(MeshConfig()))
    shardings = jax.tree.map(lambda _: everywhere, {"encoder": shapes})
    params = checkpoints.restore_params(step, {"encoder": shapes}, shardings, {"encoder": names}, plan)["encoder"]
    checkpoints.close()
    fixed, c = cuttable({}, c, plan)  # position embeddings that are not stored
    if fixed:
        params |= cut(fixed, {"position": abstract_vit(c)[1]["position"]}, {"embed": plan["embed"]})
    return Encoder(c.resized(plan), params, train, step)


def _open(directory: epath.Path, step: int | None) -> tuple[Checkpoints, int]:
    """The checkpoints of a working directory and the step to read: the one asked for, or the newest."""
    if not (directory / "checkpoints").is_dir():
        raise UserError(f"--checkpoint={directory} has no folder `checkpoints`; give the --workdir of a training run")
    checkpoints = Checkpoints(directory, read_only=True)
    there = checkpoints.steps()
    if not there:
        raise UserError(f"--checkpoint={directory} has no complete checkpoint yet")
    step = there[-1] if step is None else step
    if step not in there:
        raise UserError(
            f"--checkpoint={directory} has no checkpoint of step {step}; there are {', '.join(map(str, there))}"
        )
    return checkpoints, step
