"""Cutting a tree of parameters along named axes.

A plan gives the units of each axis that are kept: the first k, or a set of indices. Every dimension with that name is
cut, wherever it occurs, so a new kind of slimming or pruning is a new plan and needs no new code. Names carry their
network (`decoder/embed`), so a plan for the encoder leaves the decoder alone, except where it reads the encoder's axes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from scaling import axes
from scaling.core.errors import UserError

Plan = Mapping[str, int | Sequence[int] | np.ndarray]


def axis_sizes(tree: Any, names: Any) -> dict[str, int]:
    """Size of every axis of a tree of things with a shape.

    Raises:
      ValueError: the tree is malformed: an axis has two sizes.
    """
    sizes: dict[str, int] = {}
    for parameter in axes.parameters(names, tree):
        for name, size in zip(parameter.names, parameter.shape, strict=True):
            if sizes.setdefault(name, size) != size:
                raise ValueError(f"axis {name} of {parameter.path} is {size}, elsewhere it is {sizes[name]}")
    return sizes


def cut(tree: Any, names: Any, plan: Plan) -> Any:
    """Keeps a part of every dimension that the plan names.

    Pure; under `jit` the plan is static. Takes numpy and JAX arrays, also sharded ones.

    Args:
      tree: arrays.
      names: parallel tree of axis names.
      plan: axis -> k, which keeps the first k, or axis -> indices, which are kept in the order given.

    Returns:
      A tree of the same structure.

    Raises:
      UserError: an axis that is not in the tree, or units that the axis does not have.
    """
    _check(plan, axis_sizes(tree, names))
    return axes.map_named(lambda n, x: _cut_array(x, n, plan), names, tree)


def cut_shapes(shapes: Any, names: Any, plan: Plan) -> Any:
    """`cut` for a tree of ShapeDtypeStruct: the shapes of the smaller tree, without any array."""
    return jax.eval_shape(lambda tree: cut(tree, names, plan), shapes)


def _cut_array(x: Any, names: axes.Names, plan: Plan) -> Any:
    leading = tuple(
        slice(part) if isinstance(part := plan.get(name), int | np.integer) else slice(None) for name in names
    )
    x = x[leading]
    for dimension, name in enumerate(names):
        if name in plan and not isinstance(plan[name], int | np.integer):
            x = x.take(np.asarray(plan[name]), axis=dimension)
    return x


def _check(plan: Plan, sizes: Mapping[str, int]) -> None:
    for name, part in plan.items():
        if name not in sizes:
            raise UserError(f"cannot cut axis {name!r}: the network has {', '.join(sorted(sizes))}")
        size = sizes[name]
        if isinstance(part, int | np.integer):
            if not 1 <= part <= size:
                raise UserError(f"cannot keep {part} of axis {name}: it has {size}, keep 1 to {size}")
            continue
        index = np.asarray(part)
        if index.ndim != 1 or not np.issubdtype(index.dtype, np.integer):
            raise UserError(f"cannot keep {part!r} of axis {name}: give a number or a list of indices")
        if not len(index) or index.min() < 0 or index.max() >= size or len(np.unique(index)) < len(index):
            raise UserError(
                f"cannot keep the indices {index.tolist()} of axis {name}: give one or more distinct ones from 0 to "
                f"{size - 1}"
            )
