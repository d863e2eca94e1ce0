"""Heads from the maps of an encoder to logits of every class at every place.

`upernet` (Xiao et al., 1807.10221; mmsegmentation's `uper_head.py` and `fcn_head.py`), `mlp`, the light head of
SegFormer (Xie et al., 2105.15203) on maps that all have the size of the grid, and `linear` on the last map alone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from scaling.models.heads.layers import Head, HeadSizes, Layer, Layers, applied, module
from scaling.models.heads.norms import Norms
from scaling.models.heads.pyramid import places, pyramid, pyramid_layers
from scaling.models.heads.spatial import pool, resize
from scaling.models.ops import wide

Keep = Mapping[str, jax.Array]  # logits of a branch -> factors of the channels before its classifier, [B, C]

POOLED = (1, 2, 3, 6)
_CLASSES_DEVIATION = 0.01


class Sizes(HeadSizes, Protocol):
    """See `HeadSizes`; adds the patches of an image, and the channels of the auxiliary head, if any."""

    @property
    def patches(self) -> int: ...
    @property
    def auxiliary_channels(self) -> int: ...
    @property
    def auxiliary(self) -> bool: ...


def _classes(c: Sizes, inputs: int, places: int, of_encoder: bool = False) -> Layer:
    return Layer(
        inputs, c.classes, places, bias=True, deviation=_CLASSES_DEVIATION, of_encoder=of_encoder, to_classes=True
    )


def upernet_layers(c: Sizes) -> Layers:
    """Pyramid, pyramid pooling, feature pyramid, fusion, and the auxiliary head, if any."""
    width, channels, on = c.width, c.channels, places(c.grid)
    layers = pyramid_layers(width, c.grid)
    for bins in POOLED:
        layers[f"pool_{bins}"] = Layer(width, channels, bins**2, norm=True)
    layers["bottleneck"] = Layer(width + len(POOLED) * channels, channels, on[3], size=3, norm=True)
    for i in range(3):
        layers[f"lateral_{i}"] = Layer(width, channels, on[i], norm=True)
        layers[f"smooth_{i}"] = Layer(channels, channels, on[i], size=3, norm=True)
    layers["fusion"] = Layer(4 * channels, channels, on[0], size=3, norm=True)
    layers["classes"] = _classes(c, channels, on[0])
    if c.auxiliary:
        layers["auxiliary"] = Layer(width, c.auxiliary_channels, on[2], size=3, norm=True)
        layers["auxiliary_classes"] = _classes(c, c.auxiliary_channels, on[2])
    return layers


def upernet(p: Head, maps: Sequence[jax.Array], norms: Norms, keep: Keep) -> dict[str, jax.Array]:
    """maps: four [B, h, w, C] -> `logits` [B, 4h, 4w, K], and `auxiliary` [B, h, w, K] if the parameters include it."""
    levels = pyramid(p, maps, norms)
    coarse = levels[3]
    pooled = [resize(module(p, f"pool_{bins}", pool(coarse, bins), norms), coarse.shape[1:3]) for bins in POOLED]
    top = module(p, "bottleneck", jnp.concatenate([coarse, *pooled], axis=-1), norms)
    merged = [module(p, f"lateral_{i}", levels[i], norms) for i in range(3)] + [top]
    for i in (3, 2, 1):
        merged[i - 1] = merged[i - 1] + resize(merged[i], merged[i - 1].shape[1:3])
    smooth = [module(p, f"smooth_{i}", merged[i], norms) for i in range(3)] + [top]
    together = jnp.concatenate([resize(x, smooth[0].shape[1:3]) for x in smooth], axis=-1)
    result = {"logits": _told(p, "classes", module(p, "fusion", together, norms), keep.get("logits"))}
    if "auxiliary" in p:
        beside = module(p, "auxiliary", levels[2], norms)
        result["auxiliary"] = _told(p, "auxiliary_classes", beside, keep.get("auxiliary"))
    return result


def mlp_layers(c: Sizes) -> Layers:
    """One projection per map, and one matrix that fuses them."""
    project = Layer(c.width, c.channels, c.patches, bias=True, deviation=c.width**-0.5, of_encoder=True)
    layers = {f"project_{i}": project for i in range(4)}
    layers["fuse"] = Layer(4 * c.channels, c.channels, c.patches, norm=True)
    return layers | {"classes": _classes(c, c.channels, c.patches)}


def mlp(p: Head, maps: Sequence[jax.Array], norms: Norms, keep: Keep) -> dict[str, jax.Array]:
    """maps: four [B, h, w, C] -> `logits` [B, h, w, K]."""
    projected = [applied(p, f"project_{i}", x) for i, x in enumerate(maps)]
    fused = module(p, "fuse", jnp.concatenate(projected, axis=-1), norms)
    return {"logits": _told(p, "classes", fused, keep.get("logits"))}


def linear_layers(c: Sizes) -> Layers:
    """A single matrix."""
    return {"classes": _classes(c, c.width, c.patches, of_encoder=True)}


def linear(p: Head, maps: Sequence[jax.Array], norms: Norms, keep: Keep) -> dict[str, jax.Array]:
    """maps: one [B, h, w, C] -> `logits` [B, h, w, K]."""
    return {"logits": _told(p, "classes", maps[0], None)}


def _told(p: Head, name: str, x: jax.Array, keep: jax.Array | None) -> jax.Array:
    """Logits in float32 of a map after channel dropout: channels of an image are dropped as a whole, the others
    rescaled.
    """
    if keep is not None:
        x = x * keep[:, None, None].astype(x.dtype)
    return applied(p, name, wide(x))


class Kind(NamedTuple):
    """A head.

    Attributes:
      layers: its parameters.
      apply: (parameters, maps, norms, keep) -> logits.
      maps: number of maps it reads.
    """

    layers: Callable[[Sizes], Layers]
    apply: Callable[[Head, Sequence[jax.Array], Norms, Keep], dict[str, jax.Array]]
    maps: int


HEADS = {
    "upernet": Kind(upernet_layers, upernet, 4),
    "mlp": Kind(mlp_layers, mlp, 4),
    "linear": Kind(linear_layers, linear, 1),
}
