"""The state that a run carries from step to step, created already sharded."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.experimental.layout import Format
from jax.sharding import Mesh, NamedSharding

from scaling import axes
from scaling.parallel.mesh import MeshConfig, replicated
from scaling.parallel.sharding import parameter_formats, parameter_spec

AVERAGE = "average"  # name of the auxiliary tree that is an exponential moving average of the parameters


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class State:
    """The state of a run, saved and restored as a whole.

    Attributes:
      step: int32, number of updates made; the position in the data is step * batch_size.
      params: tree of float32 parameters.
      opt_state: state of the optimizer.
      extra: auxiliary trees without gradients, by name: those of the objective, and `AVERAGE` if it is kept.
    """

    step: Any
    params: Any
    opt_state: Any
    extra: dict[str, Any]


def init_state(params: Any, optimizer: optax.GradientTransformation, extra: dict[str, Any], average: bool) -> State:
    """The state before the first step; `extra` are the trees of the objective."""
    if average:
        extra = {**extra, AVERAGE: jax.tree.map(jnp.copy, params)}
    return State(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        extra=extra,
    )


def state_formats(
    state: State,
    names: Any,
    extra_names: Mapping[str, Any],
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    c: MeshConfig,
) -> Any:
    """Placement of a whole (abstract) state on the devices, a NamedSharding or Format for each array: optimizer moments
    are sharded like their parameters, auxiliary trees by their axis names.

    Factored moments lack one dimension of their parameter; they are split over fsdp along their largest dimension, and
    small ones are replicated.
    """
    params = parameter_formats(names, state.params, mesh, c.min_shard_elements)

    def moment(x: Any, like: jax.ShapeDtypeStruct, placed: NamedSharding | Format) -> NamedSharding | Format:
        if x.shape == like.shape:
            return placed
        spec, _ = parameter_spec(("tokens",) * x.ndim, x.shape, mesh.shape, c.min_shard_elements)
        return NamedSharding(mesh, spec)

    opt_state = optax.tree_utils.tree_map_params(
        optimizer, moment, state.opt_state, state.params, params, transform_non_params=lambda _: replicated(mesh)
    )
    extra = {
        name: parameter_formats(extra_names[name], tree, mesh, c.min_shard_elements)
        for name, tree in state.extra.items()
    }
    return State(step=replicated(mesh), params=params, opt_state=opt_state, extra=extra)


def bytes_per_device(state: Any, shardings: Any) -> int:
    """Memory that the arrays of an (abstract) tree take on each device."""
    leaves = zip(jax.tree.leaves(state), jax.tree.leaves(shardings), strict=True)
    return sum(math.prod(sharding.shard_shape(x.shape)) * x.dtype.itemsize for x, sharding in leaves)


def describe_mismatch(names: Any, ours: Any, theirs: Any) -> str | None:
    """The first axis in which a stored tree of shapes differs from ours, as a sentence; None if all agree.

    Args:
      names: tree of axis names of our parameters.
      ours: parallel tree of things with a shape.
      theirs: nested dictionary of things with a shape.
    """
    stored = {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(x.shape)
        for path, x in jax.tree_util.tree_flatten_with_path(theirs)[0]
    }
    for p in axes.parameters(names, ours):
        there = stored.pop(p.path, None)
        if there is None:
            return f"{p.path} is not in it"
        if len(there) != len(p.shape):
            return f"{p.path} has shape {list(there)} in it, {list(p.shape)} in the model"
        for name, theirs_size, our_size in zip(p.names, there, p.shape, strict=True):
            if theirs_size != our_size:
                return f"axis {name} of {p.path} is {theirs_size} in it, {our_size} in the model"
    return f"{min(stored)} is in it, not in the model" if stored else None
