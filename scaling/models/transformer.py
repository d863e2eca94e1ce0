"""The stack of pre-norm transformer blocks that every network here is made of.

Shapes use the letters of `scaling.axes`: B images, T tokens, D width, R branches, N heads, H head size, F hidden width,
S the three of q, k, v. Activations are folded to [B * T, D] around every matrix product: one large product is faster
than B small ones on every backend, and XLA does not fold by itself where it must also sum over B and T (the gradient
of a kernel).
"""

import dataclasses

import flax.linen as nn
import jax

from scaling import axes
from scaling.models import parameters
from scaling.models.ops import attend, dense, gelu, layer_norm, unstack
from scaling.models.parameters import Parameters

REMAT = {
    "none": None,
    "dots": jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims,
    "full": jax.checkpoint_policies.nothing_saveable,
}


@dataclasses.dataclass(frozen=True)
class StackConfig:
    """A stack of blocks.

    Attributes:
      width, depth, heads, head_dim, mlp: sizes of the axes embed, layers, heads, head_dim and mlp.
      branches: parallel branches R of a block: x + sum_r attention_r(norm(x)), then x + sum_r mlp_r(norm(x)), with one
        LayerNorm shared by the branches (Touvron et al., 2203.09795; Cha et al., 2304.05215).
      gated: SwiGLU instead of GELU in the MLP.
      qk_norm: LayerNorm of queries and keys over head_dim (Dehghani et al., 2302.05442).
      layer_scale: initial value of the per-channel scale of each residual branch; 0 leaves it out.
      attention_scale: factor of the attention logits; 0 means head_dim ** -0.5.
      norm_eps: epsilon of every LayerNorm.
      remat: what the backward pass recomputes: none, all but the matrix products (dots), or the whole block (full).
      unroll: whether the scan over layers is compiled as straight code: slower to compile, faster on CPUs.
      network: prefix of the axis names, empty for the encoder.
    """

    width: int = 768
    depth: int = 12
    heads: int = 12
    head_dim: int = 64
    mlp: int = 3072
    branches: int = 1
    gated: bool = False
    qk_norm: bool = False
    layer_scale: float = 0.0
    attention_scale: float = 0.0
    norm_eps: float = 1e-6
    remat: str = "none"
    unroll: bool = False
    network: str = ""

    @property
    def scale(self) -> float:
        return self.attention_scale or self.head_dim**-0.5


def block_table(c: StackConfig) -> parameters.Table:
    """Every parameter of one block: group -> name -> (axes, initialiser). Initialisation of facebookresearch/mae."""
    heads = {"heads": c.heads, "head_dim": c.head_dim}
    hidden = {"gate": 2, "mlp": c.mlp} if c.gated else {"mlp": c.mlp}
    xavier, zeros = parameters.xavier_uniform, parameters.zeros
    table: parameters.Table = {
        "attention_norm": parameters.norm(c.width),
        "qkv": {
            "kernel": ({"embed": c.width, "branch": c.branches, "qkv": 3, **heads}, xavier),
            "bias": ({"branch": c.branches, "qkv": 3, **heads}, zeros),
        },
        "attention_out": {
            "kernel": ({"branch": c.branches, **heads, "embed": c.width}, xavier),
            "bias": ({"branch": c.branches, "embed": c.width}, zeros),
        },
        "mlp_norm": parameters.norm(c.width),
        "mlp_in": {
            "kernel": ({"embed": c.width, "branch": c.branches, **hidden}, xavier),
            "bias": ({"branch": c.branches, **hidden}, zeros),
        },
        "mlp_out": {
            "kernel": ({"branch": c.branches, "mlp": c.mlp, "embed": c.width}, xavier),
            "bias": ({"branch": c.branches, "embed": c.width}, zeros),
        },
    }
    if c.qk_norm:
        table |= {"query_norm": parameters.norm(c.head_dim, "head_dim")}
        table |= {"key_norm": parameters.norm(c.head_dim, "head_dim")}
    if c.layer_scale:
        gain: dict[str, parameters.Declaration] = {"gain": ({"embed": c.width}, parameters.constant(c.layer_scale))}
        table |= {"attention_scale": gain, "mlp_scale": gain}
    return table


def norm(p: dict[str, jax.Array], x: jax.Array, eps: float) -> jax.Array:
    """LayerNorm over the last axis with declared scale and bias."""
    return layer_norm(x, p["scale"], p["bias"], eps)


def project(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """A declared matrix product with bias over the last axis. x: [..., D] -> [..., E]."""
    out = dense(x.reshape(-1, x.shape[-1]), p["kernel"].astype(x.dtype), p["bias"].astype(x.dtype))
    return out.reshape(*x.shape[:-1], -1)


def attention(p: dict[str, dict[str, jax.Array]], x: jax.Array, c: StackConfig) -> jax.Array:
    """Sum over branches of multi-head self-attention. x: [B, T, D] -> [B, T, D]."""
    batch, tokens, width = x.shape
    qkv = dense(x.reshape(-1, width), p["qkv"]["kernel"].astype(x.dtype), p["qkv"]["bias"].astype(x.dtype))
    qkv = qkv.reshape(batch, tokens, *qkv.shape[1:])  # [B, T, R, S, N, H]
    qkv = axes.constrain(qkv, "batch", "tokens", "branch", "qkv", "heads", "head_dim")
    query, key, value = unstack(qkv.transpose(3, 0, 2, 4, 1, 5))  # each [B, R, N, T, H]
    if c.qk_norm:
        query, key = norm(p["query_norm"], query, c.norm_eps), norm(p["key_norm"], key, c.norm_eps)
    mixed = attend(query * c.scale, key, value).transpose(0, 3, 1, 2, 4)  # [B, T, R, N, H]
    return _sum_branches(p["attention_out"], mixed.reshape(-1, *mixed.shape[2:])).reshape(x.shape)


def mlp(p: dict[str, dict[str, jax.Array]], x: jax.Array, c: StackConfig) -> jax.Array:
    """Sum over branches of the MLP, exact GELU or SwiGLU. x: [B, T, D] -> [B, T, D]."""
    kernel, bias = p["mlp_in"]["kernel"].astype(x.dtype), p["mlp_in"]["bias"].astype(x.dtype)
    hidden = dense(x.reshape(-1, x.shape[-1]), kernel, bias)  # [X, R, F], gated [X, R, G, F]
    hidden = jax.nn.silu(hidden[:, :, 1]) * hidden[:, :, 0] if c.gated else gelu(hidden)
    hidden = axes.constrain(hidden, "batch", "branch", "mlp")
    return _sum_branches(p["mlp_out"], hidden).reshape(x.shape)


def _sum_branches(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """The output projections of all branches, summed: one product that contracts over the branch axis too.

    x: [X, R, ...] -> [X, D].
    """
    return dense(x, p["kernel"].astype(x.dtype), p["bias"].astype(x.dtype).sum(0))


def block(p: dict[str, dict[str, jax.Array]], x: jax.Array, c: StackConfig) -> jax.Array:
    """One pre-norm block with its two residual sums. x: [B, T, D] -> [B, T, D]."""
    for group, function in (("attention", attention), ("mlp", mlp)):
        y = function(p, norm(p[f"{group}_norm"], x, c.norm_eps), c)
        if c.layer_scale:
            y = y * p[f"{group}_scale"]["gain"].astype(x.dtype)
        x = axes.constrain(x + y, "batch", "tokens", "embed")
    return x


class Block(nn.Module):
    """Declares one block's parameters and applies `block`; the body of the scan over `layers`."""

    config: StackConfig

    @nn.compact
    def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        c = self.config
        p = {group: Parameters(table, c.network, name=group)() for group, table in block_table(c).items()}
        return block(p, x, c), None


def stack(c: StackConfig, x: jax.Array) -> jax.Array:
    """`depth` blocks scanned over the leading axis `layers` of their parameters; call it inside a compact module.

    x: [B, T, D] -> [B, T, D].
    """
    body = Block
    if c.remat != "none":
        body = nn.remat(Block, policy=REMAT[c.remat], prevent_cse=False)
    scanned = nn.scan(
        body,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        length=c.depth,
        unroll=c.depth if c.unroll else 1,
        metadata_params={nn.PARTITION_NAME: f"{c.network}/layers" if c.network else "layers"},
    )
    return scanned(c, name="blocks")(x, None)[0]
