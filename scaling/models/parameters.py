"""Parameters declared as data: name -> (axes with sizes, initialiser).

A model lists its parameters in plain dictionaries; `Parameters` turns one group of them into flax parameters that carry
their axis names. This module has no mathematics, and no shape is written anywhere else.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scaling import axes

Initializer = Callable[[jax.Array, axes.Names, tuple[int, ...]], jax.Array]
Declaration = tuple[dict[str, int], Initializer]
Table = dict[str, dict[str, Declaration]]


def zeros(key: jax.Array, names: axes.Names, shape: tuple[int, ...]) -> jax.Array:
    del key, names
    return jnp.zeros(shape, jnp.float32)


def constant(value: float) -> Initializer:
    return lambda key, names, shape: jnp.full(shape, value, jnp.float32)


def normal(stddev: float) -> Initializer:
    return lambda key, names, shape: stddev * jax.random.normal(key, shape, jnp.float32)


def xavier_uniform(key: jax.Array, names: axes.Names, shape: tuple[int, ...]) -> jax.Array:
    """Uniform in ±sqrt(6 / (fan_in + fan_out)), the fans read from the names (Glorot and Bengio, 2010)."""
    bound = (6 / sum(axes.fans(names, shape))) ** 0.5
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)


def fan_in_uniform(key: jax.Array, names: axes.Names, shape: tuple[int, ...]) -> jax.Array:
    """Uniform in ±1 / sqrt(fan_in): torch's default for a linear layer."""
    bound = axes.fans(names, shape)[0] ** -0.5
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)


def norm(width: int, axis: str = "embed") -> dict[str, Declaration]:
    """Scale and bias of a LayerNorm over one axis."""
    return {"scale": ({axis: width}, constant(1.0)), "bias": ({axis: width}, zeros)}


class Parameters(nn.Module):
    """Declares one group of parameters and returns them as a dictionary.

    Attributes:
      table: name -> ({axis: size}, initialiser).
      network: prefix of the axis names (`decoder`), empty for the encoder. A name that already has a prefix, or
        begins with `/`, stays as it is: `/embed` is the encoder's width seen from the decoder.
    """

    table: Mapping[str, Declaration]
    network: str = ""

    @nn.compact
    def __call__(self) -> dict[str, jax.Array]:
        return {name: self._declare(name, *declaration) for name, declaration in self.table.items()}

    def _declare(self, name: str, sizes: Mapping[str, int], init: Initializer) -> jax.Array:
        names = tuple(self._qualify(axis) for axis in sizes)

        def boxed_init(key: jax.Array) -> Any:
            return init(key, names, tuple(sizes.values()))

        value: Any = self.param(name, nn.with_logical_partitioning(boxed_init, names))  # flax returns it unboxed
        return value

    def _qualify(self, name: str) -> str:
        if name.startswith("/"):
            return name[1:]
        return f"{self.network}/{name}" if self.network else name


class Nested(nn.Module):
    """Several groups of parameters as a tree of their own: group -> name -> parameter."""

    table: Mapping[str, Mapping[str, Declaration]]
    network: str = ""

    @nn.compact
    def __call__(self) -> dict[str, dict[str, jax.Array]]:
        return {group: Parameters(row, self.network, name=group)() for group, row in self.table.items()}


def abstract_params(model: nn.Module, *inputs: jax.ShapeDtypeStruct) -> tuple[Any, Any]:
    """Shapes and axis names of a model's parameters, without computing anything.

    Returns:
      Tree of ShapeDtypeStruct, and the parallel tree of names.
    """
    boxed = jax.eval_shape(lambda *x: model.init(jax.random.key(0), *x), *inputs)["params"]  # asks for no device
    names = jax.tree.map(lambda box: box.names, boxed, is_leaf=lambda x: isinstance(x, nn.meta.AxisMetadata))
    return nn.meta.unbox(boxed), names


def init_params(model: nn.Module, seed: int, *inputs: jax.ShapeDtypeStruct) -> Any:
    """Draws the parameters, the same ones on any mesh; meant to be traced with sharded outputs."""
    zeros = [jnp.zeros(x.shape, x.dtype) for x in inputs]
    return nn.meta.unbox(model.init(jax.random.key(seed), *zeros)["params"])
