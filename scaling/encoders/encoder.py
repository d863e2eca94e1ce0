"""A pretrained encoder, read from a checkpoint, as a function from images to features."""

import dataclasses
import functools
import hashlib
import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from scaling.core.config import config_dict
from scaling.core.errors import UserError
from scaling.core.paths import check_folder, user_path
from scaling.core.rows import config_hash, provenance
from scaling.core.wording import for_python
from scaling.encoders.images import as_array, check_floats, check_normalised, check_pixels, normalised_pixels
from scaling.encoders.writing import write_parameters
from scaling.models.config import ViTConfig
from scaling.models.variants import Architecture, explicit_attention
from scaling.models.vit import POOLS, ViT
from scaling.parallel.batches import split_batch, whole
from scaling.parallel.mesh import MeshConfig, make_mesh, replicated
from scaling.training.config import RunConfig
from scaling.training.stored_config import KEPT, CutConfig, ImportConfig, KeptConfig, objective_of

BATCH = 128  # images per batch, over all devices

Read = TypeVar("Read")


@dataclasses.dataclass(frozen=True, repr=False)
class Encoder:
    """An encoder and the normalisation it was trained with.

    Attributes:
      config: the architecture.
      params: parameters of the encoder alone.
      train: the configuration of the run it comes from; `train.data` has mean and std of each band.
      step: step of that run.
      cuts: cuts of the encoder of that run, in order; see `scaling.training.stored_config.KeptConfig`.
      whole: `identity` of the encoder that this one was cut from in this process; empty if it was read from a
        checkpoint.
    """

    config: ViTConfig
    params: Any
    train: RunConfig
    step: int = 0
    cuts: tuple[CutConfig, ...] = ()
    whole: str = ""

    def __repr__(self) -> str:
        c = self.config
        count = sum(int(np.prod(np.shape(x))) for x in jax.tree.leaves(self.params))
        takes = "{} x {} pixels, {} bands".format(*c.image_shape, c.bands)
        return f"Encoder({takes} -> {c.width}, depth {c.depth}, patch {c.patch_size}, {count:,} parameters)"

    def features(
        self, images: np.ndarray, pool: str = "mean", batch_size: int = BATCH, normalised: bool = False
    ) -> np.ndarray:
        """Encodes images, with every batch split over all devices. If there are several processes, all of them must
        call it with the same images.

        Args:
          images: [N, h, w, C], or one image [h, w, C]: pixels of any dtype in the units of the training data, which are
            normalised here. An encoder trained on 8-bit images takes values from 0 to 255, one trained on reflectances
            takes reflectances.
          pool: `cls`, `mean` over the patches, or `tokens` for all tokens.
          batch_size: images per batch, over all devices.
          normalised: whether `images` are already normalised floats, as `normalise` returns them: (x - mean) / std,
            with the mean and std of the training data. They are then encoded as they are.

        Returns:
          float32 [N, D], or [N, T, D] for `tokens`; for a single image [D] or [T, D].

        Raises:
          UserError: images or pool that do not fit the encoder, pixels in units other than those of the training data,
            features that are not finite, or, with `normalised`, images that are certainly not normalised. If the
            mismatch is likely but not certain (very low contrast, negative values), a warning is logged instead.
        """
        images = as_array(images)
        alone = images.ndim == 3
        batch = images[None] if alone else images
        if normalised:
            self.check_pool(pool)
            self.check_normalised(batch)
            found = self.encode(batch, pool, batch_size)
        else:
            found = self._encode(batch, pool, batch_size, self.check_pixels, self.normalise)
        return found[0] if alone else found

    def encode(self, images: np.ndarray, pool: str = "mean", batch_size: int = BATCH) -> np.ndarray:
        """`features` of images [N, h, w, C] that are certainly normalised, as those of a `Split`."""
        return self._encode(images, pool, batch_size, self.check, None)

    def _encode(
        self,
        images: np.ndarray,
        pool: str,
        batch_size: int,
        check: Callable[[np.ndarray], None],
        prepare: Callable[[np.ndarray], np.ndarray] | None,
    ) -> np.ndarray:
        self.check_pool(pool)
        if not isinstance(batch_size, numbers.Integral) or batch_size < 1:
            raise UserError(f"batch_size={batch_size!r}: must be a whole number of images, 1 or more")
        check(images)
        encode = functools.partial(_encode, self.config, pool)
        return finite(in_batches(encode, self.replicated, images, batch_size, prepare))

    @for_python
    def save(self, path: epath.PathLike) -> None:
        """Writes the encoder as a checkpoint that `load_encoder` and every command read; its features are the same to
        the last bit.

        Args:
          path: a folder, local or in a bucket (gs://); it is created.

        Raises:
          UserError: the folder already has checkpoints, or cannot be written to.
        """
        folder = check_folder("output", user_path("output", path), checkpoints=True)
        kept = dataclasses.asdict(KeptConfig(self.config, self.cuts))
        params = {"encoder": jax.tree.map(np.asarray, self.params)}
        write_parameters(params, self.step, config_dict(self.train).to_dict() | {KEPT: kept}, folder)

    @functools.cached_property
    def replicated(self) -> Any:
        """The parameters on every device."""
        return jax.device_put(self.params, replicated(make_mesh(MeshConfig())))

    @property
    def identity(self) -> str:
        """Twelve characters that identify the parameters as read; they differ for another training.

        A cut made in this process is identified by its whole encoder: the last bits of fitted parameters depend on the
        devices.
        """
        if self.whole:
            return self.whole
        digest = hashlib.sha256()
        for path, x in jax.tree.leaves_with_path(self.params):
            digest.update(f"{jax.tree_util.keystr(path)}{x.shape}".encode())
            digest.update(np.asarray(x[tuple(slice(8) for _ in x.shape)], np.float32).tobytes())
        if pruned := [(cut.blocks, cut.of) for cut in self.cuts if cut.blocks]:
            digest.update(repr(pruned).encode())  # blocks beyond the eighth may be all that differs
        return digest.hexdigest()[:12]

    @property
    def objective(self) -> str:
        """The objective that the encoder was trained with; see `scaling.core.rows.Row`."""
        return objective_of(self.train)

    @property
    def architecture(self) -> Architecture:
        """The architecture, with the rule by which operations are counted in the family that it was imported from."""
        family = self.train.family if isinstance(self.train, ImportConfig) else ""
        return Architecture(self.config, explicit_attention=explicit_attention(family))

    def row_fields(self, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a `Row` that identify the encoder and the settings of a measurement."""
        seen = self.step * self.train.batch_size
        if self.cuts:
            name = f"{name} ({', '.join(map(str, self.cuts))})"
        about = {"model": name, "objective": self.objective, "step": self.step, "samples_seen": seen}
        return about | {"config_hash": config_hash(settings), **provenance()}

    def cut_fields(self, width_ratio: float, mode: str, ordering: str, recovery: str) -> dict[str, Any]:
        """The fields of a `Row` that describe the part of the whole encoder that is kept, after this cut too."""
        last = CutConfig(width_ratio=width_ratio, mode=mode, ordering=ordering, recovery=recovery)
        cuts = self.cuts if self.cuts and last == CutConfig(mode=mode) else (*self.cuts, last)
        named = {name: " then ".join(getattr(cut, name) for cut in cuts) for name in ("mode", "ordering", "recovery")}
        widths = math.prod(cut.width_ratio for cut in cuts)
        depth = self.config.depth / self.train.model.depth
        return {"width_ratio": widths, "depth_ratio": depth, **named}

    def after(self, cut: CutConfig) -> "Encoder":
        """The same encoder after a cut."""
        return dataclasses.replace(self, cuts=(*self.cuts, cut))

    def check_pool(self, pool: str) -> None:
        """Raises UserError for a pool that the encoder does not have."""
        if pool not in POOLS or (pool == "cls" and not self.config.class_token):
            offered = [name for name in POOLS if name != "cls" or self.config.class_token]
            raise UserError(f"pool={pool!r} is not supported by this encoder; use {', '.join(offered)}")

    def check(self, images: np.ndarray) -> None:
        """Raises UserError for images that the encoder does not take."""
        check_floats(images, self.config)

    def check_normalised(self, images: np.ndarray, where: str = "images") -> None:
        """Raises UserError for images [N, h, w, C] that are said to be normalised and that the encoder does not take,
        or that are certainly not normalised; logs a warning if they perhaps are not.
        """
        check_normalised(images, self.config, self.train.data, where)

    def check_pixels(self, pixels: np.ndarray) -> None:
        """Raises UserError for pixels [N, h, w, C] that the encoder does not take, see `features`; logs a warning if
        they may be in other units.
        """
        check_pixels(pixels, self.config, self.train.data)

    def normalise(self, images: np.ndarray) -> np.ndarray:
        """Pixels [..., C] of any dtype in the units of the training data -> normalised float32, as `features` takes
        them.

        Raises:
          UserError: an imported checkpoint without normalisation, another number of bands, or NaN or infinity.
        """
        return normalised_pixels(images, self.train.data)


def finite(features: np.ndarray) -> np.ndarray:
    """The features [N, ...] as they are. Raises UserError if those of an image are not finite."""
    if bad := np.flatnonzero(~np.isfinite(features).all(tuple(range(1, features.ndim)))).tolist():
        raise UserError(
            f"the features of {len(bad):,} of {len(features):,} images are not finite, the first of image {bad[0]}; "
            "give other images, or another checkpoint"
        )
    return features


def in_batches(
    function: Callable[[Any, jax.Array], jax.Array],
    params: Any,
    images: np.ndarray,
    batch_size: int,
    prepare: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Applies function(params, batch) to all images, each batch split over all devices. Returns float32.

    Args:
      function: parameters and images [B, ...] -> [B, ...], jitted.
      params: parameters, replicated on every device.
      images: [N, ...]; the same in all processes.
      batch_size: B, rounded up to a multiple of the number of devices.
      prepare: function applied to the images of a batch first, on the host.

    Returns:
      [N, ...], in every process.
    """
    mesh = make_mesh(MeshConfig())
    size = math.ceil(batch_size / mesh.size) * mesh.size
    parts = []
    for i in range(0, max(len(images), 1), size):  # also once without images, which gives the right shape
        some = images[i : i + size]
        part = np.asarray(prepare(some) if prepare else some, np.float32)
        padded = np.pad(part, [(0, size - len(part))] + [(0, 0)] * (part.ndim - 1))  # one shape, one compilation
        parts.append(whole(function(params, split_batch(padded, mesh)))[: len(part)])
    return np.concatenate(parts)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _encode(c: ViTConfig, pool: str, params: Any, images: jax.Array) -> jax.Array:
    tokens: Any = ViT(c).apply({"params": params}, images)
    return POOLS[pool](tokens, c).astype(jnp.float32)
