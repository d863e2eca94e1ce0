"""What a full encoder does on a few hundred unlabelled images, and making a narrower one do the same."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling.core.errors import UserError
from scaling.encoders.encoder import Encoder
from scaling.models.activations import moments, residual_streams
from scaling.models.config import ViTConfig
from scaling.models.transformer import SUBLAYERS, Groups, add_units, through
from scaling.models.vit import stem
from scaling.parallel.batches import mesh_that_splits, split_batch, whole
from scaling.parallel.mesh import replicated
from scaling.slimming.recovery import ridge

_BATCH = 32
_TOKENS = 32  # of each image, drawn once, that enter the least squares; 16 were nearly as good as all 65


class Calibration:
    """Statistics of the full encoder, computed once for all widths.

    Args:
      encoder: the full one.
      images: normalised [N, h, w, C]; more than 32 are used in multiples of 32, those that are left out evenly spread
        (they may come in the order of their classes).

    Raises:
      UserError: images that the encoder does not take.
    """

    def __init__(self, encoder: Encoder, images: np.ndarray):
        encoder.check(images)
        if not len(images):
            raise UserError("there are no calibration images; give a few hundred")
        self._encoder = encoder
        batch = min(_BATCH, len(images))
        used = len(images) // batch * batch
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
        """Per batch all tokens before the first block, [B, T, D]."""
        return [_stem(self._params, self._split(images), self._encoder.config) for images in self._images]

    @functools.cached_property
    def _streams(self) -> list[np.ndarray]:
        """Per batch the drawn tokens after every sublayer, [2 L, B, K, D]."""
        c, drawn = self._encoder.config, zip(self._images, self._tokens, strict=True)
        return [whole(residual_streams(self._params, self._split(x), self._split(t), c)) for x, t in drawn]

    def repair(self, params: Any, c: ViTConfig, channels: np.ndarray) -> Any:
        """Fits the output projections of a narrower encoder, one sublayer after the other.

        Each sees the tokens that the narrower encoder, repaired up to there, really has, and is fitted so that after
        its residual sum they are those of the full encoder: what the sublayers before got wrong is corrected too. (To
        fit what the sublayer of the full encoder adds was worse at every width: 0.33 for 0.26 of the features off at
        width 0.05 of a small autoencoder.)

        Args:
          params, c: of the narrower encoder, numpy.
          channels: int [D], the channels of the full encoder that its tokens have.

        Returns:
          Parameters of the same shapes.
        """
        xs = [x[..., channels] for x in self._embedded]
        layers = []
        for i, c_block in enumerate(c.of_blocks):
            layer = jax.tree.map(lambda x, i=i: x[i], params["blocks"])
            for j, sublayer in enumerate(SUBLAYERS):
                targets = [s[2 * i + j][..., channels] for s in self._streams]
                rows = zip(xs, map(self._split, targets), map(self._split, self._tokens), strict=True)
                sums = _add([_sums(layer, x, target, tokens, c_block, sublayer) for x, target, tokens in rows])
                out = layer[f"{sublayer}_out"]
                kernel, bias = ridge(out["kernel"], out["bias"], sums)
                layer = layer | {f"{sublayer}_out": {"kernel": kernel, "bias": bias}}
                xs = [_advance(layer, x, c_block, sublayer) for x in xs]
            layers.append(layer)
        return params | {"blocks": jax.tree.map(lambda *x: np.stack(x), *layers)}


def _add(parts: list[Any]) -> Any:
    return functools.reduce(
        lambda a, b: jax.tree.map(np.add, a, b), (jax.tree.map(lambda x: whole(x).astype(np.float64), p) for p in parts)
    )


@functools.partial(jax.jit, static_argnums=2)
def _stem(p: Any, images: jax.Array, c: ViTConfig) -> jax.Array:
    return stem(p, images, c)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _advance(p: Groups, x: jax.Array, c: ViTConfig, sublayer: str) -> jax.Array:
    return through(p, x, c, sublayer).after


@functools.partial(jax.jit, static_argnums=(4, 5))
def _sums(
    p: Groups, x: jax.Array, target: jax.Array, tokens: jax.Array, c: ViTConfig, sublayer: str
) -> dict[str, jax.Array]:
    """What `ridge` needs of one batch. x: [B, T, D], target: [B, K, D], tokens: [B, K]."""
    batch = jnp.arange(len(x))[:, None]
    u = through(p, x, c, sublayer).units[batch, tokens]  # [B, K, R, ...]
    error = (target - add_units(p, x[batch, tokens], u, c, sublayer)) / c.residual_scale
    if c.layer_scale:
        gain = p[f"{sublayer}_scale"]["gain"]
        error = jnp.where(gain == 0, 0, error / gain)  # a channel that is switched off cannot be repaired
    u, error = u.reshape(tokens.size, -1), error.reshape(-1, error.shape[-1])
    with jax.default_matmul_precision("highest"):  # a TPU rounds float32 products to bfloat16; these are solved with
        gram, cross = u.T @ u, u.T @ error
    return {"rows": jnp.float32(len(u)), "unit": u.sum(0), "error": error.sum(0), "gram": gram, "cross": cross}
