"""Exact greedy non-maximum suppression with static shapes, a tile of boxes at a time.

Boxes are visited best first; one is kept if no box of the same class kept before overlaps it by more than the
threshold. A tile is compared with the boxes kept so far, then with itself until nothing changes: a box is settled if no
remaining better one overlaps it above the threshold, which settles at least one more in every round. The loop ends when
there is no room for results or no valid box is left.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from scaling.boxes.overlap import rotated_iou, upright_iou

Overlap = Callable[[jax.Array, jax.Array], jax.Array]

TILE = 256


def rotated_nms(
    boxes: jax.Array,
    scores: jax.Array,
    threshold: float,
    keep: int,
    *,
    classes: jax.Array | None = None,
    valid: jax.Array | None = None,
    tile: int = TILE,
) -> tuple[jax.Array, jax.Array]:
    """Greedy suppression of oriented boxes.

    Args:
      boxes: [n, 5].
      scores: [n]; among equal ones the first is the best.
      threshold: overlap with a better box above which a box is suppressed.
      keep: room for results.
      classes: integers [n]; boxes of different classes do not affect each other. None for one class.
      valid: bool [n]; invalid boxes are neither kept nor suppress others. A box with a non-finite score or coordinate
        is never valid.
      tile: number of boxes processed together; does not change the result.

    Returns:
      Indices int32 [keep], best first, and which of them are results, bool [keep]; unused indices are 0.
    """
    return _suppress(boxes, scores, threshold, keep, classes, valid, tile, rotated_iou)


def upright_nms(
    boxes: jax.Array,
    scores: jax.Array,
    threshold: float,
    keep: int,
    *,
    classes: jax.Array | None = None,
    valid: jax.Array | None = None,
    tile: int = TILE,
) -> tuple[jax.Array, jax.Array]:
    """Greedy suppression of (left, upper, right, lower) [n, 4]; see `rotated_nms`."""
    return _suppress(boxes, scores, threshold, keep, classes, valid, tile, upright_iou)


def _suppress(
    boxes: jax.Array,
    scores: jax.Array,
    threshold: float,
    keep: int,
    classes: jax.Array | None,
    valid: jax.Array | None,
    tile: int,
    overlap: Overlap,
) -> tuple[jax.Array, jax.Array]:
    if not len(scores):
        return jnp.zeros(keep, jnp.int32), jnp.zeros(keep, bool)
    order, usable = _best_first(boxes, scores, valid, tile)
    classes = jnp.zeros(len(scores), jnp.int32) if classes is None else classes

    def clash(mine: jax.Array, theirs: jax.Array) -> jax.Array:
        """Whether boxes of these indices overlap too much: [a], [b] -> [a, b]."""
        close = overlap(boxes[mine][:, None], boxes[theirs][None]) > threshold
        return close & (classes[mine][:, None] == classes[theirs][None])

    def one_tile(state: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        place, kept, found = state
        mine = jax.lax.dynamic_slice(order, (place * tile,), (tile,))
        alive = jax.lax.dynamic_slice(usable, (place * tile,), (tile,))

        def against(block: jax.Array, alive: jax.Array) -> jax.Array:
            theirs = jax.lax.dynamic_slice(kept, (block * tile,), (tile,))
            real = block * tile + jnp.arange(tile) < found
            return alive & ~(clash(mine, theirs) & real).any(1)

        alive = jax.lax.fori_loop(0, -(-found // tile), against, alive)
        alive = _settled(alive, clash(mine, mine))
        slot = jnp.where(alive, found + jnp.cumsum(alive) - 1, len(kept))
        return place + 1, kept.at[slot].set(mine, mode="drop"), jnp.minimum(found + alive.sum(), keep)

    usables = usable.sum()  # they come first, so the rest costs nothing

    def goes_on(state: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        return (state[0] * tile < usables) & (state[2] < keep)

    room = -(-keep // tile) * tile + tile  # a block read from the results never begins too near their end
    state = jnp.int32(0), jnp.zeros(room, jnp.int32), jnp.int32(0)
    _, kept, found = jax.lax.while_loop(goes_on, one_tile, state)
    there = jnp.arange(keep) < found
    return jnp.where(there, kept[:keep], 0), there


def _best_first(boxes: jax.Array, scores: jax.Array, valid: jax.Array | None, tile: int) -> tuple[jax.Array, jax.Array]:
    """Indices of the boxes in order, padded to whole tiles, and which of them are valid."""
    usable = jnp.isfinite(scores) & jnp.isfinite(boxes).all(-1)
    usable = usable if valid is None else usable & valid
    order = jnp.argsort(jnp.where(usable, -scores, jnp.inf), stable=True).astype(jnp.int32)
    places = jnp.pad(order, (0, -len(order) % tile))
    return places, usable[places] & (jnp.arange(len(places)) < len(order))


def _settled(alive: jax.Array, close: jax.Array) -> jax.Array:
    """Greedy suppression among boxes [n] in order, given the pairs [n, n] that are too close."""
    before = close & jnp.triu(jnp.ones_like(close), 1)  # [better, worse]

    def again(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        kept, _ = state
        now = alive & ~(before & kept[:, None]).any(0)
        return now, (now != kept).any()

    return jax.lax.while_loop(lambda state: state[1], again, (alive, jnp.array(True)))[0]
