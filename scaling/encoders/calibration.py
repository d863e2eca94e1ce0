"""Activations of a full encoder on a few hundred unlabelled images, to which a narrower one is fitted."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling.core.errors import UserError
from scaling.encoders.encoder import Encoder
from scaling.encoders.repairing import Blocks, Repaired, Walk
from scaling.models.activations import moments, residual_streams
from scaling.models.config import ViTConfig
from scaling.models.vit import stem
from scaling.parallel.batches import mesh_that_splits, split_batch, whole
from scaling.parallel.mesh import replicated

BATCH = 32  # images per batch
_TOKENS = 32  # tokens per image, drawn once, used by the least squares; 16 were nearly as good as all 65


def images_used(images: int) -> int:
    """Number of the images that a `Calibration` uses: a multiple of 32, if there are at least 32."""
    return images // BATCH * BATCH or images


def check_varied(images: np.ndarray) -> None:
    """Raises UserError for images [N, h, w, C] that are constant, or all the same."""
    if images.size and all((image == image[:1, :1]).all() for image in images):
        raise UserError(f"images: all pixels of each of the {len(images)} images are the same; give images that differ")
    if len(images) > 1 and all((image == images[0]).all() for image in images[1:]):
        raise UserError(f"images: all {len(images)} images are the same; give images that differ")


class Calibration:
    """Statistics of the full encoder, computed once for all widths.

    Args:
      encoder: the full encoder.
      images: normalised [N, h, w, C], of which `images_used` are used; those left out are evenly spread, since images
        may be ordered by class.

    Raises:
      UserError: images that the encoder does not take, or that do not vary.
    """

    def __init__(self, encoder: Encoder, images: np.ndarray):
        encoder.check(images)
        if not len(images):
            raise UserError("there are no calibration images; give a few hundred")
        check_varied(images)
        self._encoder = encoder
        batch, used = min(BATCH, len(images)), images_used(len(images))
        images = images[np.arange(used) * len(images) // used].astype(np.float32)
        self._images = np.split(images, len(images) // batch)
        self._mesh = mesh_that_splits(batch)
        c = encoder.config
        order = np.random.default_rng(0).random((len(images), c.tokens)).argsort(1)[:, :_TOKENS]
        self._tokens = np.split(np.sort(order, axis=1), len(self._images))

    def _split(self, x: np.ndarray) -> jax.Array:
        """A batch [B, ...], split over the devices."""
        return split_batch(x, self._mesh)

    @functools.cached_property
    def _params(self) -> Any:
        return jax.device_put(self._encoder.params, replicated(self._mesh))

    @functools.cached_property
    def moments(self) -> Any:
        """See `scaling.models.activations.moments`; float64."""
        c, total = self._encoder.config, None
        for images in self._images:
            part = jax.tree.map(lambda x: whole(x).astype(np.float64), moments(self._params, self._split(images), c))
            total = part if total is None else jax.tree.map(np.add, total, part)
        return jax.tree.map(lambda x: x / len(self._images), total)

    @functools.cached_property
    def _embedded(self) -> list[jax.Array]:
        """For each batch all tokens before the first block, [B, T, D]."""
        return [_stem(self._params, self._split(images), self._encoder.config) for images in self._images]

    @functools.cached_property
    def _streams(self) -> list[np.ndarray]:
        """For each batch the drawn tokens after every sublayer, [2 L, B, K, D]."""
        c, drawn = self._encoder.config, zip(self._images, self._tokens, strict=True)
        return [whole(residual_streams(self._params, self._split(x), self._split(t), c)) for x, t in drawn]

    def repair(
        self,
        params: Any,
        c: ViTConfig,
        channels: np.ndarray,
        blocks: Sequence[int] | None = None,
        gaps_only: bool = False,
    ) -> Any:
        """Fits the output projections of a smaller encoder, one sublayer after the other; see `repairing`.

        Args:
          params, c: parameters (numpy) and configuration of the smaller encoder.
          channels: int [D], the channels of the full encoder that its tokens have.
          blocks: blocks of the full encoder that it has. The MLP before missing blocks is fitted to the tokens after
            them, and thus replaces them: the linear replacement of ReplaceMe (Shopkhoev et al., 2505.02819), folded
            into the output kernel, all of whose entries are free. None for the first blocks, the last of which is
            fitted to its own tokens.
          gaps_only: whether only MLPs before missing blocks are fitted.

        Returns:
          Parameters of the same shapes.
        """
        kept = tuple(range(c.depth)) if blocks is None else tuple(blocks)
        end = c.depth if blocks is None else self._encoder.config.depth
        walk = self._walk(dict(zip(kept, _layers(params, c), strict=True)), channels, end, gaps_only)
        (found,) = walk.along([kept], [x[..., channels] for x in self._embedded], [])
        return with_layers(params, found.layers)

    def repaired(
        self, params: Any, c: ViTConfig, channels: np.ndarray, sets: Sequence[Blocks], images: np.ndarray
    ) -> Iterator[Repaired]:
        """Applies `repair` to several sets of blocks of a narrower encoder. Common beginnings are computed once.

        Args:
          params, c: parameters (numpy) and configuration of the narrower encoder with all blocks.
          channels: see `repair`.
          sets: sets of blocks.
          images: further images, normalised [N, h, w, C], which pass every repaired encoder.
        """
        walk = self._walk(dict(enumerate(_layers(params, c))), channels, c.depth)
        entering, others = ([x[..., channels] for x in xs] for xs in (self._embedded, self.embedded(images)))
        return walk.along(sets, entering, others)

    def embedded(self, images: np.ndarray) -> list[jax.Array]:
        """For each batch of normalised images all tokens before the first block, [B, T, D]."""
        batches = np.split(images, range(BATCH, len(images), BATCH))
        return [_stem(self._params, jnp.asarray(part), self._encoder.config) for part in batches]

    def _walk(
        self, layers: Mapping[int, tuple[Any, ViTConfig]], channels: np.ndarray, end: int, gaps_only: bool = False
    ) -> Walk:
        def targets(sublayer: int) -> list[jax.Array]:
            return [self._split(s[sublayer][..., channels]) for s in self._streams]

        return Walk(layers, list(map(self._split, self._tokens)), targets, end, gaps_only)


def _layers(params: Any, c: ViTConfig) -> list[tuple[Any, ViTConfig]]:
    """Parameters and configuration of every block."""
    return [(jax.tree.map(lambda x, i=i: x[i], params["blocks"]), one) for i, one in enumerate(c.of_blocks)]


def with_layers(params: Any, layers: Sequence[Any]) -> Any:
    """The parameters of an encoder with its blocks replaced by these."""
    return params | {"blocks": jax.tree.map(lambda *x: np.stack(x), *layers)}


@functools.partial(jax.jit, static_argnums=2)
def _stem(p: Any, images: jax.Array, c: ViTConfig) -> jax.Array:
    return stem(p, images, c)
