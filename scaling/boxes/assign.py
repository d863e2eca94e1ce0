"""Which object each anchor or proposal stands for, and which of them a step looks at. One shape, whatever there is.

As mmdetection's MaxIoUAssigner and RandomSampler.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

Overlap = Callable[[jax.Array, jax.Array], jax.Array]

NEGATIVE, IGNORED = -1, -2

_TOGETHER = 8  # objects


class Thresholds(NamedTuple):
    """What an overlap makes of a box.

    Attributes:
      negative: below it with every object, a box stands for none.
      positive: from it on, for the object that it overlaps most, the first of equal ones.
      lowest: an object that some box overlaps by so much at least, and by more than nothing, takes the boxes that
        overlap it most, all of equal ones; the last object that takes a box has it. None where objects take none.
    """

    negative: float
    positive: float
    lowest: float | None = None


def assign(
    boxes: jax.Array, objects: jax.Array, there: jax.Array, usable: jax.Array, overlap: Overlap, by: Thresholds
) -> jax.Array:
    """The number of the object that each box stands for, `NEGATIVE` for none or `IGNORED`: int32 [n].

    Objects are looked at a few at a time and no farther than the last, so that an image with few costs little.

    Args:
      boxes: [n, c], and usable: bool [n], the others are ignored and taken by no object.
      objects: [m, c], and there: bool [m], the others are padding.
      overlap: of boxes that broadcast.
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
    """Boxes that were drawn, positive ones first.

    Attributes:
      numbers: int32 [count], of the boxes.
      positive: bool [count], which of them stand for an object.
      drawn: bool [count]; the others are padding.
    """

    numbers: jax.Array
    positive: jax.Array
    drawn: jax.Array


def sample(key: jax.Array, positive: jax.Array, negative: jax.Array, count: int, most: int) -> Sample:
    """Draws boxes: at most `most` of the positive ones, and negative ones up to `count`, as far as there are any.

    The draw depends on the key and on which boxes are positive and which negative, alone.

    Args:
      key: typed key of the image.
      positive, negative: bool [n], no box both.
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
    """The numbers of those with the best chances [count], and whether they have one."""
    value, index = jax.lax.top_k(chance, min(count, len(chance)))
    fill = (0, count - len(value))
    return jnp.pad(index, fill), jnp.pad(value, fill, constant_values=-1) >= 0
