"""Floating point operations, counted from axes and token counts; never taken from the compiler, which counts a scanned
layer once.

Two conventions, named wherever a number is shown:

* `full`: 2 per multiply-accumulate of every matrix product, the attention products included, and 5 per element of each
  LayerNorm. What MFU uses.
* `published`: multiply-accumulates, 5 per element of each LayerNorm, no attention products: what fvcore reports for a
  ViT with fused attention, and the axis of arXiv 2601.22841.

Softmax, GELU, biases, residual sums and the norms of queries and keys are in neither: they are below one percent.
"""

import dataclasses
import math
from typing import Any

from scaling import axes
from scaling.models.mae import MAEConfig

CONVENTIONS = ("full", "published")
COMPONENTS = ("stem", "attention", "mlp", "norm", "decoder")
NORM_OPERATIONS = 5  # per element: mean, centre, square, scale, shift


@dataclasses.dataclass(frozen=True)
class Tokens:
    """How many tokens of one image pass each part of the model."""

    patches: int
    encoder: int
    decoder: int
    predicted: int


def token_counts(c: MAEConfig, masked: bool) -> Tokens:
    """Tokens of one image in masked pretraining, or when the whole image is encoded (and all of it decoded)."""
    visible = c.visible if masked else c.patches
    predicted = c.patches - visible if masked else c.patches
    return Tokens(visible, visible + c.class_token, c.patches + c.class_token, predicted)


def component(names: axes.Names) -> str:
    """The part of the model a parameter belongs to, read from the spaces it joins."""
    if any(axes.split(name)[0] == "decoder" for name in names):
        return "decoder"
    joined = {plain for _, plain in axes.spaces(names)}
    for plain, part in (("pixels", "stem"), ("attention", "attention"), ("mlp", "mlp")):
        if plain in joined:
            return part
    return "norm"


def _tokens_through(names: axes.Names, t: Tokens) -> int:
    joined = axes.spaces(names)
    if component(names) == "decoder":
        if ("decoder", "pixels") in joined:
            return t.predicted
        return t.encoder if ("", "residual") in joined else t.decoder
    return t.patches if ("", "pixels") in joined else t.encoder


def _attention_products(p: axes.Parameter, tokens: int) -> int:
    """Multiply-accumulates of q k^T and of the weights times v; 0 for a parameter that is not the qkv kernel."""
    sizes = {axes.split(name)[1]: size for name, size in zip(p.names, p.shape, strict=True)}
    if "qkv" not in sizes:
        return 0
    return 2 * tokens**2 * sizes["layers"] * sizes["branch"] * sizes["heads"] * sizes["head_dim"]


def flops(names: Any, shapes: Any, t: Tokens) -> dict[str, dict[str, int]]:
    """Forward pass of one image: convention -> component -> operations, and `encoder`, the sum without the decoder.

    Args:
      names, shapes: parallel trees of axis names and of things with a shape; cut or whole.
      t: token counts.
    """
    counts = {convention: dict.fromkeys(COMPONENTS, 0) for convention in CONVENTIONS}
    for p in axes.parameters(names, shapes):
        tokens, part = _tokens_through(p.names, t), component(p.names)
        macs = math.prod(p.shape) * tokens
        if axes.is_kernel(p.names):
            counts["published"][part] += macs
            counts["full"][part] += 2 * (macs + _attention_products(p, tokens))
        elif p.path.endswith("norm/scale") and "head_dim" not in p.names:
            for convention in CONVENTIONS:
                counts[convention][part] += NORM_OPERATIONS * macs
    for parts in counts.values():
        parts["encoder"] = sum(parts[part] for part in COMPONENTS if part != "decoder")
    return counts


def parameter_counts(names: Any, shapes: Any) -> dict[str, int]:
    """Number of parameters by component, and `encoder`, `total`. Fixed position embeddings are not parameters."""
    counts = dict.fromkeys(COMPONENTS, 0)
    for p in axes.parameters(names, shapes):
        counts[component(p.names)] += math.prod(p.shape)
    total = sum(counts.values())
    return counts | {"encoder": total - counts["decoder"], "total": total}


def training_flops(names: Any, shapes: Any, c: MAEConfig) -> int:
    """Operations of one image in a training step, `full` convention: the backward pass costs twice the forward pass.

    Recomputation (remat) is not counted: it is not part of the model (MFU, not HFU).
    """
    forward = flops(names, shapes, token_counts(c, masked=True))["full"]
    return 3 * (forward["encoder"] + forward["decoder"])
