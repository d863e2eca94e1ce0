"""Fits output projections one after the other along the blocks of an encoder, or of several with a common beginning.

Each sublayer sees the actual tokens of the smaller encoder, repaired up to there, and is fitted so that after its
residual sum they match those of the full encoder, which also corrects errors of earlier sublayers. (Fitting the full
sublayer's contribution instead was worse at every width: an error of 0.33 instead of 0.26 of the features at width 0.05
of a small autoencoder.)
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from scaling.models.config import ViTConfig
from scaling.models.transformer import Groups, add_units, through
from scaling.parallel.batches import whole
from scaling.slimming.recovery import ridge

_KEPT = 2**30  # bytes of units kept between the fit and the sum; beyond that they are recomputed

Batches = list[jax.Array]
Blocks = tuple[int, ...]
Targets = Callable[[int], Batches]  # sublayer of the full encoder -> per batch, the drawn tokens after it, [B, K, D]


_NONE = -1  # index for "no block"


def _by_first(sets: Sequence[Blocks]) -> dict[int, list[Blocks]]:
    """First block -> remainders of the sets that begin with it; the empty set begins with `_NONE`."""
    found: dict[int, list[Blocks]] = {}
    for blocks in sets:
        found.setdefault(blocks[0] if blocks else _NONE, []).append(blocks[1:])
    return dict(sorted(found.items()))


class Repaired(NamedTuple):
    """A repaired encoder.

    Attributes:
      blocks: indices of the kept blocks of the full encoder.
      layers: parameters of each.
      others: tokens of the other images after the last block, per batch [B, T, D].
    """

    blocks: Blocks
    layers: list[Groups]
    others: Batches


class Walk:
    """Fits the projections of sets of blocks.

    Args:
      layers: block of the full encoder -> its parameters (numpy) and its configuration.
      tokens: per batch int [B, K], indices of the tokens that are fitted.
      targets: target values of these tokens.
      end: block of the full encoder at whose input the last projection aims.
      gaps_only: whether only the MLPs before missing blocks are fitted.
    """

    def __init__(
        self,
        layers: Mapping[int, tuple[Groups, ViTConfig]],
        tokens: Batches,
        targets: Targets,
        end: int,
        gaps_only: bool = False,
    ) -> None:
        self._layers, self._tokens, self._targets, self._end = layers, tokens, targets, end
        self._gaps_only = gaps_only

    def along(self, sets: Sequence[Blocks], xs: Batches, others: Batches) -> Iterator[Repaired]:
        """Repairs the encoder of every set of blocks.

        Args:
          sets: blocks in order; no set is empty.
          xs: tokens at the input, per batch [B, T, D].
          others: tokens of images that are not fitted to.
        """
        return self._along(sets, (), [], xs, others)

    def _along(
        self, sets: Sequence[Blocks], blocks: Blocks, layers: list[Groups], xs: Batches, others: Batches
    ) -> Iterator[Repaired]:
        for block, rests in _by_first(sets).items():
            followed = _by_first(rests)
            for following, layer, behind, others_behind in self._block(block, list(followed), xs, others):
                done, fitted = (*blocks, block), [*layers, layer]
                if following == _NONE:
                    yield Repaired(done, fitted, others_behind)
                    continue
                left = [(following, *more) for more in followed[following]]
                yield from self._along(left, done, fitted, behind, others_behind)

    def _block(
        self, block: int, followed: Sequence[int], xs: Batches, others: Batches
    ) -> list[tuple[int, Groups, Batches, Batches]]:
        """Runs a block once for each possible next block, `_NONE` for the end: that block, the parameters, the
        tokens after it.
        """
        layer, c = self._layers[block]
        attention = _Sublayer(layer, xs, self._tokens, c, "attention")
        if not self._gaps_only:
            layer = attention.fitted(self._targets(2 * block))
        xs = attention.after(layer)
        others = [_passed(layer, x, attention.c, "attention") for x in others]
        del attention
        mlp = _Sublayer(layer, xs, self._tokens, c, "mlp")
        units = [_units(layer, x, mlp.c, "mlp") for x in others]
        found = []
        for following in followed:
            then = self._end if following == _NONE else following
            left = self._gaps_only and then == block + 1
            fitted = layer if left else mlp.fitted(self._targets(2 * then - 1))
            behind = [] if following == _NONE else mlp.after(fitted)
            pairs = zip(others, units, strict=True)
            found.append((following, fitted, behind, [_after(fitted, x, u, mlp.c, "mlp") for x, u in pairs]))
        return found


class _Sublayer:
    """Inputs of one output projection on all batches.

    Attributes:
      c: the configuration, reduced to the fields that the sublayer depends on.
    """

    def __init__(self, layer: Groups, xs: Batches, tokens: Batches, c: ViTConfig, name: str):
        self._layer, self._xs, self._tokens, self._name = layer, xs, tokens, name
        self.c = _own(c, name)
        self._kept: Batches = []
        squares = []
        for x, t in zip(xs, tokens, strict=True):
            u = _units(layer, x, self.c, name)
            squares.append(_squares(u, t))
            if u.nbytes * len(xs) <= _KEPT:
                self._kept.append(u)
        self._squares = _add(squares)

    def _each(self) -> Iterator[tuple[jax.Array, jax.Array]]:
        """The tokens and the units of every batch."""
        if self._kept:
            yield from zip(self._xs, self._kept, strict=True)
        else:
            yield from ((x, _units(self._layer, x, self.c, self._name)) for x in self._xs)

    def fitted(self, targets: Batches) -> Groups:
        """The parameters with the fitted output projection, which brings the selected tokens closest to `target`."""
        batches = zip(self._each(), targets, self._tokens, strict=True)
        crosses = [_cross(self._layer, x, u, target, t, self.c, self._name) for (x, u), target, t in batches]
        out: Any = self._layer[f"{self._name}_out"]
        kernel, bias = ridge(out["kernel"], out["bias"], self._squares | _add(crosses))
        fitted: Any = {"kernel": kernel, "bias": bias}
        return self._layer | {f"{self._name}_out": fitted}

    def after(self, layer: Groups) -> Batches:
        """All tokens after the sublayer, with the output projection of `layer`."""
        return [_after(layer, x, u, self.c, self._name) for x, u in self._each()]


def _own(c: ViTConfig, name: str) -> ViTConfig:
    """A configuration of a block in which every field that one sublayer does not depend on is 1: one program for
    many.
    """
    other = {"mlp": 1} if name == "attention" else {"heads": 1, "head_dim": 1, "attention_scale": 0.0}
    return dataclasses.replace(c, depth=1, global_blocks=(), **other)


def _add(parts: list[Any]) -> Any:
    return functools.reduce(
        lambda a, b: jax.tree.map(np.add, a, b), (jax.tree.map(lambda x: whole(x).astype(np.float64), p) for p in parts)
    )


@functools.partial(jax.jit, static_argnums=(2, 3))
def _units(p: Groups, x: jax.Array, c: ViTConfig, name: str) -> jax.Array:
    """[B, T, D] -> [B, T, R, ...]."""
    return through(p, x, c, name).units


def _passed(p: Groups, x: jax.Array, c: ViTConfig, name: str) -> jax.Array:
    return _after(p, x, _units(p, x, c, name), c, name)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _after(p: Groups, x: jax.Array, u: jax.Array, c: ViTConfig, name: str) -> jax.Array:
    return add_units(p, x, u, c, name)


@jax.jit
def _squares(u: jax.Array, tokens: jax.Array) -> dict[str, jax.Array]:
    """Sums that `ridge` needs of the units of one batch, independent of the target. u: [B, T, R, ...], tokens: [B,
    K].
    """
    u = u[jnp.arange(len(u))[:, None], tokens].reshape(tokens.size, -1)
    with jax.default_matmul_precision(
        "highest"
    ):  # a TPU rounds float32 products to bfloat16; these enter a linear solve
        return {"rows": jnp.float32(len(u)), "unit": u.sum(0), "gram": u.T @ u}


@functools.partial(jax.jit, static_argnums=(5, 6))
def _cross(
    p: Groups, x: jax.Array, u: jax.Array, target: jax.Array, tokens: jax.Array, c: ViTConfig, name: str
) -> dict[str, jax.Array]:
    """Sums that also depend on the target, [B, K, D]."""
    batch = jnp.arange(len(x))[:, None]
    u = u[batch, tokens]  # [B, K, R, ...]
    error = (target - add_units(p, x[batch, tokens], u, c, name)) / c.residual_scale
    if c.layer_scale:
        gain = p[f"{name}_scale"]["gain"]
        error = jnp.where(gain == 0, 0, error / gain)  # a channel that is switched off cannot be repaired
    u, error = u.reshape(tokens.size, -1), error.reshape(-1, error.shape[-1])
    with jax.default_matmul_precision("highest"):
        return {"error": error.sum(0), "cross": u.T @ error}
