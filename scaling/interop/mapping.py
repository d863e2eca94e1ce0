"""Maps the keys of a file of weights to our parameters.

A family is a table: pattern of a source key -> destination of its array. The rearrangement is derived from the names of
the axes: torch stores a linear layer as [outputs, inputs], a patch convolution as [outputs, bands, rows, columns]; the
names tell which of our axes are inputs, and their order. Nothing is guessed from a shape.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from scaling import axes
from scaling.core.errors import UserError

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Place:
    """The destination of an array: a parameter, and an index if it fills only one along an axis: among queries, keys
    and values the key is `("qkv", 1)`. An axis that the parameter lacks is ignored.
    """

    path: str
    part: tuple[str, int] | None = None


KeyTable = Mapping[str, Place]  # pattern of a source key, `{i}` for the index of a block


def fill(
    arrays: Arrays, table: KeyTable, unused: tuple[str, ...], absent: Mapping[str, float], shapes: Any, names: Any
) -> Any:
    """Fills all parameters from arrays, and uses every array.

    Args:
      arrays: arrays by their keys in the file; empty afterwards.
      table: patterns of keys -> places.
      unused: patterns of keys that are known but not needed.
      absent: patterns of parameters that the family lacks -> values that compute the same.
      shapes, names: shapes and axis names of our parameters.

    Raises:
      UserError: the first key that is in neither table, array with a wrong shape, integers or non-finite values, or
        parameter that stays empty.
    """
    leaves = flatten_dict(axes.map_named(lambda n, x: (n, np.empty(x.shape, np.float32)), names, shapes), sep="/")
    missing = {path: math.prod(x.shape) for path, (_, x) in leaves.items()}
    ignored = [expression(pattern) for pattern in unused]
    places = [(expression(pattern), place) for pattern, place in table.items()]
    for key in list(arrays):
        array = arrays.pop(key)  # a memory-mapped part of a file, released as soon as it is copied
        found = next(((match, place) for e, place in places if (match := e.fullmatch(key))), None)
        if found is None:
            if any(e.fullmatch(key) for e in ignored):
                continue
            raise UserError(f"{key}: {list(array.shape)} is not a key of this family; name another one with --from")
        match, place = found
        if place.path not in leaves:
            raise UserError(
                f"{key}: belongs to {place.path}, which this architecture does not have; give another --from"
            )
        missing[place.path] -= _put(key, array, leaves[place.path], match.groupdict().get("i"), place.part)
    for path, count in missing.items():
        _, leaf = leaves[path]
        value = next((v for pattern, v in absent.items() if expression(pattern).fullmatch(path)), None)
        if count == leaf.size and value is not None:
            leaf[...] = value
        elif count:
            raise UserError(
                f"{path}: nothing in the file fills {path} ({count:,} numbers are missing); give a whole file"
            )
    return unflatten_dict({path: x for path, (_, x) in leaves.items()}, sep="/")


def _put(
    key: str,
    array: np.ndarray,
    leaf: tuple[axes.Names, np.ndarray],
    block: str | None,
    part: tuple[str, int] | None,
) -> int:
    """Writes an array into its part of a parameter; returns the number of values."""
    names, target = leaf
    if not jnp.issubdtype(array.dtype, np.floating):
        raise UserError(
            f"{key}: is {array.dtype}: not weights but their codes, of a quantised file; give the file before"
        )
    if block is not None and int(block) >= target.shape[0]:
        raise UserError(f"{key}: there are {target.shape[0]} blocks; give a file of one model")
    view, rest = part_of(target, names, None if block is None else int(block), part)
    view[...] = arranged(key, array, rest, view.shape)
    if not np.isfinite(view).all():
        bad = view.size - np.isfinite(view).sum()
        raise UserError(
            f"{key}: {bad:,} of {view.size:,} numbers are not finite; the file is of a run that diverged; give another"
        )
    return view.size


def part_of(
    x: np.ndarray, names: axes.Names, block: int | None, part: tuple[str, int] | None
) -> tuple[np.ndarray, axes.Names]:
    """The part of a parameter that one key fills, as a view, and its axes."""
    at = dict([part] if part else []) | ({} if block is None else {names[0]: block})
    return x[tuple(at.get(name, slice(None)) for name in names)], tuple(name for name in names if name not in at)


def arranged(key: str, array: np.ndarray, names: axes.Names, sizes: tuple[int, ...]) -> np.ndarray:
    """An array of torch in the order of our axes.

    Args:
      key: its name, for messages.
      array: a linear layer [outputs, inputs], a patch convolution [outputs, bands, (1 frame,) rows, columns], or a
        vector.
      names, sizes: names and sizes of the resulting axes.

    Raises:
      UserError: the shape does not fit.
    """
    if not axes.is_kernel(names):
        bare, flat = tuple(n for n in sizes if n > 1), (math.prod(sizes),)
        if array.squeeze().shape not in (bare, flat, ()) or array.size != flat[0]:
            raise _misfit(key, array, names, sizes, list(bare))
        return array.reshape(sizes)
    outputs, inputs = torch_order(names)
    expected = [math.prod(sizes[i] for i in outputs), math.prod(sizes[i] for i in inputs)]
    if array.ndim == 5 and array.shape[2] == 1:  # a tubelet of one frame
        array = array[:, :, 0]
    matrix = array.transpose(0, 2, 3, 1).reshape(len(array), -1) if array.ndim == 4 else array
    if list(matrix.shape) != expected:
        raise _misfit(key, array, names, sizes, expected)
    order = [*outputs, *inputs]
    split = matrix.reshape([sizes[i] for i in order])
    return split.transpose(np.argsort(order))


def torch_order(names: axes.Names) -> tuple[list[int], list[int]]:
    """Indices of a kernel's output and input dimensions, in torch's order."""
    first = axes.spaces(names)[0]
    inputs = [i for i, name in enumerate(names) if axes.space(name) == first]
    return [i for i in range(len(names)) if i not in inputs], inputs


def _misfit(key: str, array: np.ndarray, names: axes.Names, sizes: tuple[int, ...], expected: list[int]) -> UserError:
    ours = " x ".join(f"{name} {size}" for name, size in zip(names, sizes, strict=True))
    return UserError(f"{key}: has shape {list(array.shape)}, {ours} wants {expected}; give another --from or file")


def expression(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\{i\}", r"(?P<i>\d+)").replace(r"\*", ".*"))
