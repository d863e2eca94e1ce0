"""Floating point operations, counted from axes and token counts; never taken from the compiler, which counts a scanned
layer once.

Two conventions, named wherever a number is shown:

* `full`: 2 per multiply-accumulate of every matrix product, the attention products included, and 5 per element of each
  LayerNorm. Used for MFU.
* `published`: multiply-accumulates, 5 per element of each LayerNorm, attention products only of networks whose code
  multiplies them itself (`Architecture.explicit_attention`). fvcore reports the same, since it cannot see into a fused
  attention; it is the axis of arXiv 2601.22841.

Softmax, GELU, biases, residual sums and the norms of queries and keys are in neither: they are below one percent.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from scaling import axes
from scaling.models.config import ViTConfig
from scaling.models.stems.channels import attention_over_channels
from scaling.models.stems.stem import Use
from scaling.models.variants import Architecture
from scaling.models.vit import abstract_vit
from scaling.models.windows import windows_of
from scaling.slimming.cutting import Plan, axis_sizes, cut_shapes

CONVENTIONS = ("full", "published")
ENCODER = ("stem", "attention", "mlp", "norm")
COMPONENTS = (*ENCODER, "decoder", "head")  # always present; further networks are listed by their names
NORM_OPERATIONS = 5  # per element: mean, centre, square, scale, shift


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Number of tokens of one image that pass each part of a model.

    Attributes:
      patches: number of patches embedded.
      encoder: number of tokens in the blocks of the encoder.
      others: parameter -> tokens that pass it, for networks beside the encoder (`ObjectiveConfig.tokens`).
      attended: use of queries, keys and values in each block, if not all tokens attend to all: with windows, the tokens
        of all windows, padding included, and the number of tokens in a window.
      forward_only: further tokens of a training step, which pass without gradients.
      narrower: further tokens, which pass networks cut out of this one.
    """

    patches: int
    encoder: int
    others: Callable[[axes.Parameter], int] | None = None
    attended: tuple[Use, ...] = ()
    forward_only: "Tokens | None" = None
    narrower: "tuple[Narrower, ...]" = ()


@dataclasses.dataclass(frozen=True)
class Narrower:
    """A network that is cut out of another.

    Attributes:
      plan: units kept of each axis; see `scaling.slimming.cutting`.
      times: number of passes of its tokens in a step, on average.
      tokens: see `Tokens`.
    """

    plan: Plan
    times: float
    tokens: Tokens


def whole_image(c: ViTConfig) -> Tokens:
    """Tokens of one image that is encoded whole, as for feature extraction."""
    return Tokens(c.patches, c.tokens, attended=_attended(c))


def _attended(c: ViTConfig) -> tuple[Use, ...]:
    if not c.window:
        return ()
    inside = c.window**2
    within = Use(math.prod(windows_of(c.grid, c.window)) * inside, queries=inside)
    return tuple(within if block.window else Use(c.tokens, queries=c.tokens) for block in c.of_blocks)


def component(p: axes.Parameter) -> str:
    """The part of the encoder that a parameter belongs to, read from the spaces it joins; or the name of another
    network.
    """
    if "stem" in p.path.split("/"):
        return "stem"
    networks = [network for network, _ in map(axes.split, p.names) if network]
    if networks:
        return networks[0].split("/")[0]
    joined = {plain for _, plain in axes.spaces(p.names)}
    for plain, part in (("classes", "head"), ("pixels", "stem"), ("attention", "attention"), ("mlp", "mlp")):
        if plain in joined:
            return part
    return "norm"


def _use(p: axes.Parameter, t: Tokens, stem: Mapping[str, Use]) -> Use:
    """Use of a kernel or norm by one image: as a stem declares it, else once per token that passes it."""
    if "stem" in p.path.split("/"):
        return stem[p.path.split("/")[-2]]
    if component(p) == "head" and not t.others:
        return Use(1, queries=1)
    if component(p) in ENCODER:
        tokens = t.patches if ("", "pixels") in axes.spaces(p.names) else t.encoder
    elif t.others:
        tokens = t.others(p)
    else:
        raise ValueError(f"the number of tokens that pass {p.path} is not known")
    return Use(tokens, queries=tokens)


def _uses(p: axes.Parameter, t: Tokens, stem: Mapping[str, Use]) -> list[tuple[axes.Parameter, Use]]:
    """A kernel with its use; one pair per block if blocks use it differently."""
    if t.attended and "qkv" in p.names and component(p) == "attention":
        return [(dataclasses.replace(p, shape=(1, *p.shape[1:])), use) for use in t.attended]
    return [(p, _use(p, t, stem))]


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
    """Forward pass of one image: convention -> component -> operations, and `encoder`, the sum of the encoder's parts.

    Args:
      names, shapes: parallel trees of axis names and of things with a shape; cut or whole.
      t: token counts; those of networks cut out of this one are averages, rounded.
      stem: use of each group of the stem by one image, if the model has a stem (`Stem.uses`).
      explicit_attention: networks whose attention products `published` counts.
    """
    counts = _flops(names, shapes, t, stem, explicit_attention)
    for narrower in t.narrower:
        plan = {axis: part for axis, part in narrower.plan.items() if axis in axis_sizes(shapes, names)}
        small = _flops(names, cut_shapes(shapes, names, plan), narrower.tokens, stem, explicit_attention)
        for kind, parts in small.items():
            counts[kind] = {part: n + round(narrower.times * parts[part]) for part, n in counts[kind].items()}
    for parts in counts.values():
        parts["encoder"] = sum(parts[part] for part in ENCODER)
    return counts


def _flops(
    names: Any, shapes: Any, t: Tokens, stem: Mapping[str, Use] | None, explicit_attention: Collection[str]
) -> dict[str, dict[str, int]]:
    """`flops` without the sum and without narrower networks."""
    counts = {convention: dict.fromkeys(COMPONENTS, 0) for convention in CONVENTIONS}
    for p in axes.parameters(names, shapes):
        part, size = component(p), math.prod(p.shape)
        for parts in counts.values():
            parts.setdefault(part, 0)
        if axes.is_kernel(p.names):
            uses = _uses(p, t, stem or {})
            macs = sum(use.times * math.prod(kernel.shape) for kernel, use in uses)
            products = sum(_attention_products(kernel, use) for kernel, use in uses)
            network, _ = axes.split(p.names[-1])
            counts["published"][part] += macs + (products if network in explicit_attention else 0)
            counts["full"][part] += 2 * (macs + products)
        elif p.path.endswith("norm/scale") and "head_dim" not in p.names:
            for convention in CONVENTIONS:
                counts[convention][part] += NORM_OPERATIONS * _use(p, t, stem or {}).times * size
    return counts


def components(parts: Mapping[str, int]) -> dict[str, int]:
    """The non-zero components of a count, without its sums."""
    return {part: count for part, count in parts.items() if part not in ("encoder", "total") and count}


def image_flops(a: Architecture, names: Any, shapes: Any, t: Tokens | None = None) -> dict[str, dict[str, int]]:
    """`flops` of one whole image; `names` and `shapes` are those of the model, cut or whole; `t` its tokens if it
    is more than an encoder.
    """
    stem = a.stem or (attention_over_channels(a.config) if a.config.channel_width else None)
    return flops(names, shapes, t or whole_image(a.config), stem.uses if stem else None, a.explicit_attention)


def parameter_counts(names: Any, shapes: Any) -> dict[str, int]:
    """Number of parameters by component, and `encoder`, `total`. Fixed position embeddings are not parameters."""
    counts = dict.fromkeys(COMPONENTS, 0)
    for p in axes.parameters(names, shapes):
        counts[component(p)] = counts.get(component(p), 0) + math.prod(p.shape)
    return counts | {"encoder": sum(counts[part] for part in ENCODER), "total": sum(counts.values())}


def encoder_cost(full: Architecture, small: ViTConfig) -> tuple[int, int, dict[str, float]]:
    """Parameters of a cut encoder, its operations on one whole image (`full` convention), and these relative to those
    of the encoder it was cut from, by convention.
    """
    (shapes, names), (all_shapes, all_names) = abstract_vit(small), abstract_vit(full.config)
    cut, whole = (
        image_flops(dataclasses.replace(full, config=small), names, shapes),
        image_flops(full, all_names, all_shapes),
    )
    relative = {kind: cut[kind]["encoder"] / whole[kind]["encoder"] for kind in CONVENTIONS}
    return parameter_counts(names, shapes)["encoder"], cut["full"]["encoder"], relative


def step_flops(names: Any, shapes: Any, t: Tokens) -> dict[str, dict[str, int]]:
    """Operations of one image in a training step, in the form of `flops`: the backward pass costs twice the forward
    pass.

    Recomputation (remat) is not counted: it is not part of the model (MFU, not HFU).
    """
    counts = {kind: {part: 3 * n for part, n in parts.items()} for kind, parts in flops(names, shapes, t).items()}
    if t.forward_only:
        for kind, parts in flops(names, shapes, t.forward_only).items():
            counts[kind] = {part: n + parts[part] for part, n in counts[kind].items()}
    return counts


def training_flops(names: Any, shapes: Any, t: Tokens) -> int:
    """The sum of `step_flops`, `full` convention."""
    return sum(components(step_flops(names, shapes, t)["full"]).values())
