"""Momentum contrast without a queue (MoCo v3; Chen, Xie and He, 2104.02057; facebookresearch/moco-v3): the projector
and the predictor after an encoder, the contrast between two views, and its own initialisation.

Everything refers to the global batch, however it is split over devices: the statistics of the batch normalisation, and
the images that each image is compared with. Only the normalised keys are sent to every device.
"""

import dataclasses
import functools
import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scaling import axes
from scaling.models import parameters
from scaling.models.activations import computed_sizes
from scaling.models.config import ViTConfig
from scaling.models.heads.norms import EPS
from scaling.models.ops import wide
from scaling.models.parameters import Nested
from scaling.models.transformer import Groups, norm
from scaling.models.vit import POOLS, stem

HEADS = ("projector", "predictor")
_SMALLEST = 1e-12  # smallest norm by which a vector is divided
_EXACT = jax.lax.Precision.HIGHEST  # a TPU rounds float32 products to bfloat16, and the logits are then divided by 0.2


@dataclasses.dataclass(frozen=True)
class Contrast:
    """Projector and predictor on the encoder, and the contrast of views.

    Attributes:
      hidden: width of the hidden layers of projector (three layers) and predictor (two); independent of cuts of the
        encoder.
      outputs: width of the outputs of both, and of the keys.
      temperature: tau, by which the similarities are divided.
      pool: projected part of an encoded image: the `cls` token, or the `mean` over its patches.
      projector_scale: factor of the projector's first kernel at initialisation; follows from the parametrization.
    """

    hidden: int = 4096
    outputs: int = 256
    temperature: float = 0.2
    pool: str = "cls"
    projector_scale: float = 1.0


def head_tables(width: int, c: Contrast) -> dict[str, parameters.Table]:
    """Parameters of both heads on an encoder of this width: linear layers without bias, drawn as in torch, with
    scale and shift of the batch normalisation after all but the last.
    """
    first, hidden, out = ("/embed", width), c.hidden, ("contrast", c.outputs)
    return {
        "projector": _layers([first, ("1/mlp", hidden), ("2/mlp", hidden), out]),
        "predictor": _layers([out, ("mlp", hidden), out]),
    }


def _layers(sizes: list[tuple[str, int]]) -> parameters.Table:
    table: parameters.Table = {}
    for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        layer: dict[str, parameters.Declaration] = {"kernel": (dict([inputs, outputs]), parameters.fan_in_uniform)}
        if i < len(sizes) - 2:
            layer |= {"scale": (dict([outputs]), parameters.constant(1.0)), "bias": (dict([outputs]), parameters.zeros)}
        table[f"layer_{i}"] = layer
    return table


class Heads(nn.Module):
    """Declares the parameters of projector and predictor."""

    width: int
    contrast: Contrast

    @nn.compact
    def __call__(self) -> dict[str, Any]:
        tables = head_tables(self.width, self.contrast)
        return {network: Nested(tables[network], network, name=network)() for network in HEADS}


@functools.lru_cache(maxsize=16)
def abstract_heads(width: int, c: Contrast) -> tuple[Any, Any]:
    """Shapes and axis names of both heads; see `abstract_params`. Not to be changed in place."""
    return parameters.abstract_params(Heads(width, c))


def init_heads(seed: Any, width: int, c: Contrast) -> Any:
    """The heads before the first step."""
    heads = parameters.init_params(Heads(width, c), seed)
    first = heads["projector"]["layer_0"]
    first["kernel"] = first["kernel"] * c.projector_scale
    return heads


def as_published(encoder: Any, names: Any) -> Any:
    """The drawn parameters of an encoder as MoCo v3 draws them: queries, keys and values as separate matrices, and
    a class token of standard deviation 1e-6; all others unchanged.
    """

    def drawn(names: axes.Names, x: jax.Array) -> jax.Array:
        if "qkv" not in names or not axes.is_kernel(names):
            return x
        inputs, outputs = axes.fans(names, x.shape)
        return x * ((inputs + outputs) / (inputs + outputs / 3)) ** 0.5

    encoder = axes.map_named(drawn, names, encoder)
    if "cls" in encoder:
        encoder = {**encoder, "cls": {"token": encoder["cls"]["token"] * (1e-6 / 0.02)}}
    return encoder


def head(p: Groups, x: jax.Array, weight: jax.Array | None = None) -> jax.Array:
    """A projector or predictor: linear layers, batch normalisation after each, ReLU between them.

    Args:
      p: layer_0, layer_1, ...
      x: [B, V, D], the global batch.
      weight: [B], weight of each image in the statistics; None for equal weights.

    Returns:
      [B, V, E], in the dtype of x.
    """
    for i in range(len(p)):
        layer = p[f"layer_{i}"]
        inputs, outputs = "mlp" if i else "contrast", "mlp" if "scale" in layer else "contrast"
        # Gather the kernels rather than split the product: with few images XLA would send images instead.
        kernel = axes.constrain(layer["kernel"].astype(x.dtype), inputs, outputs, whole=("fsdp",))
        y = batch_normalised(x @ kernel, weight)
        if "scale" in layer:
            y = jax.nn.relu(y * layer["scale"] + layer["bias"])
        x = axes.constrain(y.astype(x.dtype), "batch", "views", outputs)
    return x


def batch_normalised(x: jax.Array, weight: jax.Array | None = None) -> jax.Array:
    """Normalises every view by its own mean and variance over the global batch. [B, V, F] -> float32."""
    x = wide(x)
    share = None if weight is None else (weight / jnp.maximum(weight.sum(), 1))[:, None, None]

    def mean(y: jax.Array) -> jax.Array:
        return y.mean(0) if share is None else (y * share).sum(0)

    centred = x - mean(x)
    return centred * jax.lax.rsqrt(mean(jnp.square(centred)) + EPS)


def unit(x: jax.Array) -> jax.Array:
    """Vectors of length 1, in float32."""
    x = wide(x)
    length = jnp.sqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), _SMALLEST**2))
    return x / length


def contrasted(
    queries: jax.Array, keys: jax.Array, temperature: float, weight: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """InfoNCE of each view's query with the other view's keys of all images of the global batch, times 2 tau.

    Args:
      queries, keys: [B, 2, E]; no gradient goes to the keys.
      temperature: tau.
      weight: [B], 0 for images that are not keys; None if all are keys.

    Returns:
      The losses, summed over both views, float32 [B]; the share of the two queries whose nearest key is the image's
      own, [B]; and the similarities divided by tau, [B, 2, B], of each query with the keys of all images.
    """
    query, key = unit(queries), unit(jax.lax.stop_gradient(keys))[:, ::-1]
    everywhere = axes.constrain(key, "keys", "views", "contrast")
    logits = jnp.einsum("BAE,MAE->BAM", query, everywhere, precision=_EXACT) / temperature
    if weight is not None:
        logits = jnp.where(weight > 0, logits, -jnp.inf)
    own = (query * key).sum(-1) / temperature  # the logit of the image's own key, without indexing
    losses = jax.nn.logsumexp(logits, axis=-1) - own
    right = logits.argmax(-1) == jnp.arange(len(query))[:, None]
    return 2 * temperature * losses.sum(1), right.astype(losses.dtype).mean(1), logits


@functools.partial(jax.jit, static_argnums=(2, 3))
def coordinate_sizes(params: Any, images: jax.Array, c: ViTConfig, contrast: Contrast) -> dict[str, jax.Array]:
    """Mean absolute value of the coordinates that the encoder computes, and each head's layers before they are
    normalised.

    Args:
      params: parameters of encoder and heads.
      images: [B, h, w, C], normalised.
      c, contrast: the architecture.

    Returns:
      For `stem`, `tokens` and `projector_0`, ... one number; for `attention` and `mlp` one number per layer; see
      `scaling.models.mae.coordinate_sizes`.
    """
    p = params["encoder"]
    x = stem(p, images, c)
    sizes = {"stem": jnp.abs(x).mean()}
    x, sizes_of = computed_sizes(p["blocks"], x, c)
    if c.final_norm == "tokens":
        x = norm(p["norm"], x, c.norm_eps)
    sizes |= sizes_of
    x = POOLS[contrast.pool](x, c)[:, None]
    for network in HEADS:
        for i in range(len(params[network])):
            layer = params[network][f"layer_{i}"]
            product = x @ layer["kernel"]
            sizes[f"{network}_{i}"] = jnp.abs(product).mean()
            x = head({"layer_0": layer}, x)
    return sizes
