"""The stack of pre-norm transformer blocks that every network here is made of.

Shapes use the letters of `scaling.axes`: B images, T tokens, D width, R branches, N heads, H head size, F hidden width.
The layout of arrays for matrix products is decided in `scaling.models.ops`.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from scaling import axes
from scaling.models import parameters
from scaling.models.attention import attend, attend_biased, heads_first
from scaling.models.config import REMAT, StackConfig
from scaling.models.ops import dense, dense_parts, folds, gelu, layer_norm, unstack, wide_type
from scaling.models.parameters import Parameters
from scaling.models.windows import beyond, joined, partition

Groups = dict[str, dict[str, jax.Array]]


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
    if c.alibi:
        table |= {"alibi": {"slope": ({"heads": c.heads}, slopes)}}
    if c.relative:
        sides = (max(side, c.window) for side in c.grid)
        table |= {
            "relative": {
                f"{name}s": ({"branch": c.branches, f"{name}_offsets": 2 * side - 1, "head_dim": c.head_dim}, zeros)
                for name, side in zip(("row", "column"), sides, strict=True)
            }
        }
    if c.layer_scale:
        gain: dict[str, parameters.Declaration] = {"gain": ({"embed": c.width}, parameters.constant(c.layer_scale))}
        table |= {"attention_scale": gain, "mlp_scale": gain}
    return table


def norm(p: dict[str, jax.Array], x: jax.Array, eps: float) -> jax.Array:
    """LayerNorm over the last axis with declared scale and bias."""
    return layer_norm(x, p["scale"], p["bias"], eps)


def project(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """A declared matrix product with bias over the last axis. x: [..., D] -> [..., E]."""
    kernel, bias = p["kernel"].astype(x.dtype), p["bias"].astype(x.dtype)
    out = dense(x, kernel, bias)
    return out.reshape(*x.shape[:-1], -1)


def queries_keys_values(p: Groups, x: jax.Array, c: StackConfig) -> tuple[jax.Array, ...]:
    """Queries (without the scale of the logits), keys and values in the order of `attend`. x: [B, T, D], normalised."""
    kernel, bias = p["qkv"]["kernel"].astype(x.dtype), p["qkv"]["bias"].astype(x.dtype)
    if folds():
        qkv = axes.constrain(dense(x, kernel, bias), "batch", "tokens", "branch", "qkv", "heads", "head_dim")
        query, key, value = unstack(qkv.transpose(3, 0, 2, 4, 1, 5))
    else:
        parts = dense_parts(x, kernel, bias, axis=1)
        query, key, value = (axes.constrain(part, "batch", "tokens", "branch", "heads", "head_dim") for part in parts)
    if c.qk_norm:
        query, key = norm(p["query_norm"], query, c.norm_eps), norm(p["key_norm"], key, c.norm_eps)
    return query, key, value


def slopes(key: jax.Array, names: axes.Names, shape: tuple[int, ...]) -> jax.Array:
    """A geometric series from head to head, down to 2 ** -8 at the last."""
    del key, names
    return jnp.broadcast_to(2 ** (-8 * jnp.arange(1, shape[-1] + 1, dtype=jnp.float32) / shape[-1]), shape)


def distances(rows: int, columns: int) -> np.ndarray:
    """Distances between the patches of a grid, in patches. [T, T]."""
    place = np.stack(np.divmod(np.arange(rows * columns), columns), axis=1)
    return np.linalg.norm(place[:, None] - place[None], axis=-1)


def mix(p: Groups, query: jax.Array, key: jax.Array, value: jax.Array, c: StackConfig) -> jax.Array:
    """Values averaged over the tokens by attention, all in the order of `attend` -> [B, T, R, N, H]. In a block
    with windows each window is one B.
    """
    if c.alibi:
        slope = jax.lax.stop_gradient(p["alibi"]["slope"])  # a parameter only so that it is cut with its head
        bias = -slope[:, None, None] * jnp.asarray(distances(*c.grid))  # [N, T, T]
        return attend_biased(query * c.scale, key, value, bias)
    biases = [relative_logits(p["relative"], heads_first(query), c)] if c.relative else []
    if c.window and c.window_padding == "masked" and (outside := beyond(c.grid, c.window)).any():
        bias = jnp.tile(np.where(outside, -np.inf, 0.0), (query.shape[0] // len(outside), 1))
        biases.append(bias[:, None, None, None])
    if biases:
        return attend_biased(query * c.scale, key, value, sum(biases[1:], biases[0]))
    return attend(query * c.scale, key, value, c.attention, c.half_logits)


def relative_logits(p: dict[str, jax.Array], query: jax.Array, c: StackConfig) -> jax.Array:
    """Products of every query with the vectors for the row and column offsets to every key, as in detectron2's
    `add_decomposed_rel_pos`. Within a window the middle of the tables is used. [B, R, N, T, H] -> [B, R, N, T, T].
    """
    rows, columns = (c.window, c.window) if c.window else c.grid
    by_row, by_column = (
        between(p[name].astype(query.dtype), side) for name, side in (("rows", rows), ("columns", columns))
    )
    q = query.reshape(*query.shape[:3], rows, columns, -1)
    wide = wide_type(query)
    down = jnp.einsum("BRNhwH,RhkH->BRNhwk", q, by_row, preferred_element_type=wide)
    across = jnp.einsum("BRNhwH,RwkH->BRNhwk", q, by_column, preferred_element_type=wide)
    logits = down[..., :, None] + across[..., None, :]
    return logits.reshape(*query.shape[:4], -1)


def between(table: jax.Array, side: int) -> jax.Array:
    """The vectors of a table [R, 2 S - 1, H] from each of `side` places to each other: [R, side, side, H]."""
    middle = table.shape[1] // 2
    place = np.arange(side)
    return table[:, middle + place[:, None] - place]


def hidden_units(p: Groups, x: jax.Array, c: StackConfig) -> jax.Array:
    """Input of the MLP's output projection, exact GELU or SwiGLU. x: [B, T, D] -> [B, T, R, F]."""
    kernel, bias = p["mlp_in"]["kernel"].astype(x.dtype), p["mlp_in"]["bias"].astype(x.dtype)
    rows = x.reshape(-1, x.shape[-1]) if folds() else x  # folded to the end: XLA sums the gradient of a bias row by row
    if c.gated:
        gate, hidden = dense_parts(rows, kernel, bias, axis=1)
        hidden = jax.nn.silu(gate) * hidden
    else:
        hidden = gelu(dense(rows, kernel, bias))
    where = ("batch",) if folds() else ("batch", "tokens")
    hidden = axes.constrain(hidden, *where, "branch", "mlp")
    return hidden.reshape(*x.shape[:-1], *hidden.shape[-2:])


def add_units(p: Groups, x: jax.Array, u: jax.Array, c: StackConfig, sublayer: str) -> jax.Array:
    """The residual sum of one sublayer: the output projections of all branches in one product that contracts over the
    branch axis too. x: [B, T, D], u: [B, T, R, ...] -> [B, T, D].
    """
    out = p[f"{sublayer}_out"]
    y = dense(u, out["kernel"].astype(x.dtype), out["bias"].astype(x.dtype).sum(0))
    if c.layer_scale:
        y = y * p[f"{sublayer}_scale"]["gain"].astype(x.dtype)
    if c.residual_scale != 1:
        y = y * c.residual_scale
    return axes.constrain(x + y, "batch", "tokens", "embed")


SUBLAYERS = ("attention", "mlp")  # the two residual sums of a block, in order


class Passed(NamedTuple):
    """Intermediate activations of one sublayer.

    Attributes:
      before, after: the tokens, [B, T, D].
      normalised: the tokens after LayerNorm, which the sublayer reads, [B, T, D].
      units: input of the output projection, [B, T, R, N, H] for the heads, [B, T, R, F] for the MLP.
      query, key: queries and keys of the attention, without the scale of the logits, [B, R, N, T, H]; per window if the
        block has windows, [B W, R, N, S S, H]; None for the MLP.
    """

    before: jax.Array
    normalised: jax.Array
    units: jax.Array
    after: jax.Array
    query: jax.Array | None = None
    key: jax.Array | None = None


# Values taken from a layer, given the activations of its sublayers by name: any tree of arrays. Activations that are
# not taken are not computed for it.
Observe = Callable[[Mapping[str, Passed]], Any]


def through(p: Groups, x: jax.Array, c: StackConfig, sublayer: str) -> Passed:
    """One sublayer: its units computed from the normalised tokens x [B, T, D], projected back and added.

    c: configuration of the block, see `StackConfig.of_blocks`.
    """
    y = norm(p[f"{sublayer}_norm"], x, c.norm_eps)
    query = key = None
    if sublayer == "attention":
        query, key, value = queries_keys_values(p, partition(y, c.grid, c.window) if c.window else y, c)
        u = mix(p, query, key, value, c)
        u = joined(u, c.grid, c.window) if c.window else u
        query, key = heads_first(query), heads_first(key)
    else:
        u = hidden_units(p, y, c)
    return Passed(x, y, u, add_units(p, x, u, c, sublayer), query, key)


def block(p: Groups, x: jax.Array, c: StackConfig, observe: Observe | None = None) -> tuple[jax.Array, Any]:
    """One pre-norm block with its two residual sums: the tokens after it [B, T, D], and the value of `observe`."""
    passed = {}
    for sublayer in SUBLAYERS:
        passed[sublayer] = through(p, x, c, sublayer)
        x = passed[sublayer].after
    return x, observe(passed) if observe else None


def run(blocks: Groups, x: jax.Array, c: StackConfig, observe: Observe | None = None) -> tuple[jax.Array, Any]:
    """Runs blocks with given parameters [L, ...]; see `stack` for a module that declares them.

    Returns:
      The tokens after the last block, [B, T, D], and the value of `observe` in each, [L, ...].
    """
    if c.window:
        return _run_by_kind(blocks, x, c, observe)
    return jax.lax.scan(lambda x, layer: block(layer, x, c, observe), x, blocks)


def _run_by_kind(blocks: Groups, x: jax.Array, c: StackConfig, observe: Observe | None) -> tuple[jax.Array, Any]:
    """`run` for a mix of blocks with and without windows: a scan over the periods of the pattern and, within one, a
    scan over each run of blocks of one kind. (One scan with a condition would save for every block the residuals of
    both kinds.)
    """
    kinds = c.of_blocks
    period = next(n for n in range(1, c.depth + 1) if kinds == kinds[:n] * (c.depth // n))

    def walk(kind: StackConfig, layers: Groups, x: jax.Array) -> tuple[jax.Array, Any]:
        def body(x: jax.Array, layer: Groups) -> tuple[jax.Array, Any]:
            return block(layer, x, kind, observe)

        if c.remat != "none":
            body = jax.checkpoint(body, policy=REMAT[c.remat], prevent_cse=False)
        return jax.lax.scan(body, x, layers, unroll=c.depth if c.unroll else 1)

    def walk_period(x: jax.Array, layers: Groups) -> tuple[jax.Array, Any]:
        seen, first = [], 0
        for kind, same in itertools.groupby(kinds[:period]):
            last = first + len(list(same))
            x, found = walk(kind, jax.tree.map(lambda p, i=first, j=last: p[i:j], layers), x)
            seen.append(found)
            first = last
        return x, jax.tree.map(lambda *parts: jnp.concatenate(parts), *seen)

    periods = jax.tree.map(lambda p: p.reshape(-1, period, *p.shape[1:]), blocks)
    x, seen = jax.lax.scan(walk_period, x, periods, unroll=c.depth if c.unroll else 1)
    return x, jax.tree.map(lambda s: s.reshape(-1, *s.shape[2:]), seen)


class Block(nn.Module):
    """Declares one block's parameters and applies `block`; the body of the scan over `layers`."""

    config: StackConfig
    observe: Observe | None = None

    @nn.compact
    def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, Any]:
        c = self.config
        p = {group: Parameters(table, c.network, name=group)() for group, table in block_table(c).items()}
        return block(p, x, c, self.observe)


def stack(c: StackConfig, x: jax.Array) -> jax.Array:
    """`depth` blocks scanned over the leading axis `layers` of their parameters; call it inside a compact module.

    x: [B, T, D] -> [B, T, D].
    """
    return observed_stack(c, x)[0]


def observed_stack(c: StackConfig, x: jax.Array, observe: Observe | None = None) -> tuple[jax.Array, Any]:
    """`stack`, with the value of `observe` in each block, [L, ...]; None without `observe`."""
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
    blocks = scanned(c, observe, name="blocks")
    if c.window and not blocks.is_initializing():  # the parameters are declared by the scan in either case
        return run(dict(blocks.variables["params"]), x, c, observe)
    result: tuple[jax.Array, Any] = blocks(x, None)
    return result
