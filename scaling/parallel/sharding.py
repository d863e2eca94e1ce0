"""Axis names to shardings, with a fallback for sizes that do not divide.

The table in `scaling.axes` gives the mesh axes of each name. If a size does not divide (a width of 1664 over 256
devices, most slimmed widths), the mesh axis goes to the largest free dimension that it does divide, as in
google-research/big_vision; without one the array is replicated. Such fallbacks are logged once.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any, cast

import jax
from jax.experimental.layout import Format, Layout
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from scaling import axes

log = logging.getLogger(__name__)


def parameter_spec(
    names: axes.Names, shape: tuple[int, ...], mesh: Mapping[str, int], min_shard_elements: int = 0
) -> tuple[PartitionSpec, bool]:
    """The partition of one parameter, and whether one of its axes did not divide.

    Args:
      names, shape: axis names and shape of the parameter.
      mesh: size of each mesh axis.
      min_shard_elements: arrays with fewer elements in a layer stay whole over fsdp.
    """
    gathered = [size for name, size in zip(names, shape, strict=True) if axes.split(name)[1] != "layers"]
    if math.prod(gathered) < min_shard_elements:  # one layer at a time
        mesh = {**mesh, "fsdp": 1}
    parts = axes.partition(names, shape, mesh)
    given = {m for part in parts for m in part}
    real = [name for name, size in zip(names, shape, strict=True) if size > 1]  # a single branch cannot be split
    own = {m for name in real for m in axes.axis(name).mesh if mesh[m] > 1}
    everywhere = {"fsdp"} if mesh["fsdp"] > 1 else set()
    for mesh_axis in sorted((own | everywhere) - given):
        free = [i for i, name in enumerate(names) if not parts[i] and axes.split(name)[1] != "layers"]
        free = [i for i in free if shape[i] % mesh[mesh_axis] == 0]  # every device needs a part of each layer
        if free:
            parts[max(free, key=lambda i: shape[i])] = (mesh_axis,)
    return PartitionSpec(*(part or None for part in parts)), bool(own - given)


def parameter_shardings(names: Any, shapes: Any, mesh: Mesh, min_shard_elements: int = 0) -> Any:
    """Tree of NamedSharding for a tree of parameters.

    Args:
      names: tree of axis names.
      shapes: parallel tree of arrays or ShapeDtypeStructs.
      mesh: the device mesh.
      min_shard_elements: see `parameter_spec`.
    """
    fallen: list[str] = []

    def sharding(path: tuple[Any, ...], names: axes.Names, x: jax.ShapeDtypeStruct) -> NamedSharding:
        spec, fell_back = parameter_spec(names, x.shape, mesh.shape, min_shard_elements)
        if fell_back:
            fallen.append(f"{jax.tree_util.keystr(path, simple=True, separator='/')} {list(x.shape)} -> {spec}")
        return NamedSharding(mesh, spec)

    result = jax.tree_util.tree_map_with_path(sharding, names, shapes, is_leaf=axes.is_names)
    if fallen:
        log.info(
            "%d parameters are not divisible by all of their mesh axes and are sharded over other axes or replicated: "
            "%s",
            len(fallen),
            "; ".join(fallen),
        )
    return result


def memory_layout(names: axes.Names) -> Layout | None:
    """The best order in memory of a kernel's axes if the last two are tiled, 8 x 128 on TPUs; None for the default.

    An axis that only counts copies (a branch, the gate of an MLP) would waste the tile if it came second to last: with
    one branch, seven rows of eight. Such axes go first; names, shapes and files are unchanged.
    """
    if not axes.is_kernel(names) or axes.space(names[-2]) is not None:
        return None
    counting = [i for i, name in enumerate(names) if axes.space(name) is None]
    return Layout((*counting, *(i for i in range(len(names)) if i not in counting)))


def parameter_formats(names: Any, shapes: Any, mesh: Mesh, min_shard_elements: int = 0) -> Any:
    """`parameter_shardings`; on TPUs a Format with the order in memory if the default order would be poor."""
    shardings = parameter_shardings(names, shapes, mesh, min_shard_elements)
    if axes.platform(mesh) != "tpu":
        return shardings

    def placed(names: axes.Names, sharding: NamedSharding) -> NamedSharding | Format:
        layout = memory_layout(names)
        return Format(layout, sharding) if layout else sharding

    return axes.map_named(placed, names, shardings)


def sharding_of(placed: NamedSharding | Format) -> NamedSharding:
    """The sharding inside a result of `parameter_formats`."""
    return cast(NamedSharding, placed.sharding) if isinstance(placed, Format) else placed
