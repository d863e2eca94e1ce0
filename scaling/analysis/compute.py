"""Floating point operations, counted from axes and token counts; never taken from the compiler, which counts a scanned
layer once.

Two conventions, named wherever a number is shown:

* `full`: 2 per multiply-accumulate of every matrix product, the attention products included, and 5 per element of each
  LayerNorm. What MFU uses.
* `published`: multiply-accumulates, 5 per element of each LayerNorm, attention products only of networks whose code
  multiplies them itself (`Architecture.explicit_attention`): what fvcore reports, which cannot see into a fused
  attention, and the axis of arXiv 2601.22841.

Softmax, GELU, biases, residual sums and the norms of queries and keys are in neither: they are below one percent.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

from scaling import axes
from scaling.models.mae import MAEConfig
from scaling.models.stems.channels import attention_over_channels
from scaling.models.stems.stem import Use
from scaling.models.variants import Architecture
from scaling.models.vit import ViTConfig, abstract_vit

CONVENTIONS = ("full", "published")
COMPONENTS = ("stem", "attention", "mlp", "norm", "decoder", "head")
_BEYOND = ("decoder", "head")  # what is not the encoder
NORM_OPERATIONS = 5  # per element: mean, centre, square, scale, shift


@dataclasses.dataclass(frozen=True)
class Tokens:
    """How many tokens of one image pass each part of the model."""

    patches: int
    encoder: int
    decoder: int
    predicted: int


def whole_image(c: ViTConfig) -> Tokens:
    """Tokens of one image when all of it is encoded (and all of it decoded): what extracting features costs."""
    return Tokens(c.patches, c.tokens, c.tokens, c.patches)


def token_counts(c: MAEConfig, masked: bool) -> Tokens:
    """Tokens of one image in masked pretraining, or when the whole image is encoded (and all of it decoded)."""
    if not masked:
        return whole_image(c)
    return Tokens(c.visible, c.prefix + c.visible, c.tokens, c.patches - c.visible)


def training_tokens(c: ViTConfig) -> Tokens:
    """Tokens of one image in training: masked where the model is a masked autoencoder."""
    return token_counts(c, masked=True) if isinstance(c, MAEConfig) else whole_image(c)


def component(p: axes.Parameter) -> str:
    """The part of the model a parameter belongs to, read from the spaces it joins."""
    if "/stem/" in p.path:
        return "stem"
    if any(axes.split(name)[0] == "decoder" for name in p.names):
        return "decoder"
    joined = {plain for _, plain in axes.spaces(p.names)}
    for plain, part in (("classes", "head"), ("pixels", "stem"), ("attention", "attention"), ("mlp", "mlp")):
        if plain in joined:
            return part
    return "norm"


def _use(p: axes.Parameter, t: Tokens, stem: Mapping[str, Use]) -> Use:
    """How one image uses a kernel or norm: as a stem declares it, else once per token that passes it."""
    if "/stem/" in p.path:
        return stem[p.path.split("/")[-2]]
    if component(p) == "head":
        return Use(1, queries=1)
    joined = axes.spaces(p.names)
    if component(p) != "decoder":
        tokens = t.patches if ("", "pixels") in joined else t.encoder
    elif ("decoder", "pixels") in joined:
        tokens = t.predicted
    else:
        tokens = t.encoder if ("", "residual") in joined else t.decoder
    return Use(tokens, queries=tokens)


def _attention_products(p: axes.Parameter, use: Use) -> int:
    """Multiply-accumulates of q k^T and of the weights times v; 0 for a kernel that makes no keys and values."""
    sizes = {axes.split(name)[1]: size for name, size in zip(p.names, p.shape, strict=True)}
    if "qkv" not in sizes:
        return 0
    copies = math.prod(sizes.get(name, 1) for name in ("layers", "branch"))
    return 2 * use.times * use.queries * copies * sizes["heads"] * sizes["head_dim"]


def flops(
    names: Any,
    shapes: Any,
    t: Tokens,
    stem: Mapping[str, Use] | None = None,
    explicit_attention: Collection[str] = (),
) -> dict[str, dict[str, int]]:
    """Forward pass of one image: convention -> component -> operations, and `encoder`, the sum without what follows it.

    Args:
      names, shapes: parallel trees of axis names and of things with a shape; cut or whole.
      t: token counts.
      stem: how one image uses each group of the stem, where the model has one (`Stem.uses`).
      explicit_attention: networks whose attention products `published` counts.
    """
    counts = {convention: dict.fromkeys(COMPONENTS, 0) for convention in CONVENTIONS}
    for p in axes.parameters(names, shapes):
        part, size = component(p), math.prod(p.shape)
        if axes.is_kernel(p.names):
            use = _use(p, t, stem or {})
            macs, products = use.times * size, _attention_products(p, use)
            network, _ = axes.split(p.names[-1])
            counts["published"][part] += macs + (products if network in explicit_attention else 0)
            counts["full"][part] += 2 * (macs + products)
        elif p.path.endswith("norm/scale") and "head_dim" not in p.names:
            for convention in CONVENTIONS:
                counts[convention][part] += NORM_OPERATIONS * _use(p, t, stem or {}).times * size
    for parts in counts.values():
        parts["encoder"] = sum(parts[part] for part in COMPONENTS if part not in _BEYOND)
    return counts


def image_flops(a: Architecture, names: Any, shapes: Any) -> dict[str, dict[str, int]]:
    """`flops` of one whole image; `names` and `shapes` are those of the model, cut or whole."""
    return flops(names, shapes, whole_image(a.config), a.stem.uses if a.stem else None, a.explicit_attention)


def parameter_counts(names: Any, shapes: Any) -> dict[str, int]:
    """Number of parameters by component, and `encoder`, `total`. Fixed position embeddings are not parameters."""
    counts = dict.fromkeys(COMPONENTS, 0)
    for p in axes.parameters(names, shapes):
        counts[component(p)] += math.prod(p.shape)
    total = sum(counts.values())
    return counts | {"encoder": total - sum(counts[part] for part in _BEYOND), "total": total}


def encoder_cost(full: ViTConfig, small: ViTConfig) -> tuple[int, int, dict[str, float]]:
    """Parameters of a cut encoder, its operations on one whole image (`full` convention), and these relative to those
    of the encoder it was cut from, by convention.
    """
    (shapes, names), (all_shapes, all_names) = abstract_vit(small), abstract_vit(full)
    uses = attention_over_channels(full).uses if full.channel_width else None
    cut = flops(names, shapes, whole_image(small), uses)
    whole = flops(all_names, all_shapes, whole_image(full), uses)
    relative = {kind: cut[kind]["encoder"] / whole[kind]["encoder"] for kind in CONVENTIONS}
    return parameter_counts(names, shapes)["encoder"], cut["full"]["encoder"], relative


def training_flops(names: Any, shapes: Any, c: ViTConfig) -> int:
    """Operations of one image in a training step, `full` convention: the backward pass costs twice the forward pass.

    Recomputation (remat) is not counted: it is not part of the model (MFU, not HFU).
    """
    forward = flops(names, shapes, training_tokens(c))["full"]
    return 3 * sum(forward[part] for part in COMPONENTS)
