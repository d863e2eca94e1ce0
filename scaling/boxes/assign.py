"""Assignment of objects to anchors or proposals, and sampling of these for a step. Shapes are static.

As mmdetection's MaxIoUAssigner and RandomSampler.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

Overlap = Callable[[jax.Array, jax.Array], jax.Array]

NEGATIVE, IGNORED = -1, -2

_TOGETHER = 8  # objects processed together


class Thresholds(NamedTuple):
    """Overlaps that decide the assignment of a box.

    Attributes:
      negative: a box that overlaps every object by less is negative.
      positive: a box with at least this overlap is assigned the object that it overlaps most, the first of equal ones.
      lowest: an object also takes the boxes that overlap it most, all of equal ones, if that overlap is at least this
        and positive; the last object to take a box keeps it. None if objects take no boxes.
    """

    negative: float
    positive: float
    lowest: float | None = None


def assign(
    boxes: jax.Array, objects: jax.Array, there: jax.Array, usable: jax.Array, overlap: Overlap, by: Thresholds
) -> jax.Array:
    """Index of the object assigned to each box, or `NEGATIVE`, or `IGNORED`: int32 [n].

    Objects are processed a few at a time up to the last real one, so that an image with few objects costs little.

    Args:
      boxes: [n, c], and usable: bool [n]; unusable boxes are ignored and taken by no object.
      objects: [m, c], and there: bool [m], false for padding.
      overlap: overlap of boxes that broadcast.
      by: see `Thresholds`.
    """
    count = boxes.shape[0]
    room = -objects.shape[0] % _TOGETHER
    objects, there = jnp.pad(objects, ((0, room), (0, 0))), jnp.pad(there, (0, room))
    last = jnp.max(jnp.where(there, jnp.arange(1, len(there) + 1), 0), initial=0)

    def some(i: jax.Array, found: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        most, which, taken = found
        first = i * _TOGETHER
        real = jax.lax.dynamic_slice(there, (first,), (_TOGETHER,))
        these = jax.lax.dynamic_slice(objects, (first, 0), (_TOGETHER, objects.shape[1]))
        shared = jnp.where(real[:, None] & usable, overlap(these[:, None], boxes[None]), -1.0)
        shared = jax.lax.optimization_barrier(shared)  # computed once: it is compared with its own maximum
        best = jnp.argmax(shared, axis=0)
        larger = shared.max(0) > most
        which = jnp.where(larger, first + best, which)
        most = jnp.maximum(most, shared.max(0))
        if by.lowest is not None:
            top = shared.max(1, keepdims=True)
            takes = (shared == top) & (top >= by.lowest) & (top > 0)
            latest = jnp.max(jnp.where(takes, first + jnp.arange(_TOGETHER)[:, None], -1), axis=0)
            taken = jnp.maximum(taken, latest)
        return most, which.astype(jnp.int32), taken.astype(jnp.int32)

    nothing = jnp.full(count, -1, jnp.int32)
    begin = (jnp.full(count, -1.0, jnp.float32), nothing, nothing)
    most, which, taken = jax.lax.fori_loop(0, -(-last // _TOGETHER), some, begin)
    found = jnp.where(most >= by.positive, which, jnp.where(most < by.negative, NEGATIVE, IGNORED))
    return jnp.where(usable, jnp.where(taken >= 0, taken, found), IGNORED)


class Sample(NamedTuple):
    """Sampled boxes, positive ones first.

    Attributes:
      numbers: int32 [count], indices of the boxes.
      positive: bool [count], whether a box has an object.
      drawn: bool [count], false for padding.
    """

    numbers: jax.Array
    positive: jax.Array
    drawn: jax.Array


def sample(key: jax.Array, positive: jax.Array, negative: jax.Array, count: int, most: int) -> Sample:
    """Samples boxes: at most `most` positive ones, filled up with negative ones to `count` if there are enough.

    The draw depends only on the key and on which boxes are positive and which are negative.

    Args:
      key: typed key of the image.
      positive, negative: bool [n], disjoint.
    """
    chance = jax.random.uniform(key, positive.shape)
    best, ours = _drawn(jnp.where(positive, chance, -1), min(most, count))
    rest, others = _drawn(jnp.where(negative, chance, -1), count)
    number = ours.sum()
    slot = jnp.arange(count)
    first = slot < number
    behind = jnp.clip(slot - number, 0, count - 1)
    index = jnp.where(first, best[jnp.clip(slot, 0, len(best) - 1)], rest[behind])
    return Sample(index.astype(jnp.int32), first, first | others[behind])


def _drawn(chance: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Indices of the boxes with the best chances [count], and whether each was eligible."""
    value, index = jax.lax.top_k(chance, min(count, len(chance)))
    fill = (0, count - len(value))
    return jnp.pad(index, fill), jnp.pad(value, fill, constant_values=-1) >= 0
