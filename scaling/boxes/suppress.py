"""Non-maximum suppression, exact and of one shape: the greedy rule, a tile of boxes at a time.

A box is kept if none kept before it, best first, of the same class overlaps it by more than the threshold. A tile is
compared with what is kept so far, then with itself until nothing changes: the boxes that have no living better one
above the threshold are settled, which is at least one more in every round. It ends when the room for results is full
or no valid box is left.
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
      scores: [n]; of equal ones the first is the better.
      threshold: what overlaps a better box by more is taken away.
      keep: how many results there is room for.
      classes: whole numbers [n]; boxes of different ones leave each other alone. None for one class.
      valid: bool [n]; the others are neither kept nor take anything away. A score or box that is not finite is never
        valid.
      tile: how many boxes are looked at together; does not change the result.

    Returns:
      Indices int32 [keep], best first, and which of them are results, bool [keep]; the others are 0.
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
    """Greedy suppression of (left, upper, right, lower) [n, 4]; as `rotated_nms`."""
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
        """Which of the boxes of these numbers overlap too much: [a], [b] -> [a, b]."""
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

    usables = usable.sum()  # they are the first: what lies behind them costs nothing

    def goes_on(state: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        return (state[0] * tile < usables) & (state[2] < keep)

    room = -(-keep // tile) * tile + tile  # a block read from the results never begins too near their end
    state = jnp.int32(0), jnp.zeros(room, jnp.int32), jnp.int32(0)
    _, kept, found = jax.lax.while_loop(goes_on, one_tile, state)
    there = jnp.arange(keep) < found
    return jnp.where(there, kept[:keep], 0), there


def _best_first(boxes: jax.Array, scores: jax.Array, valid: jax.Array | None, tile: int) -> tuple[jax.Array, jax.Array]:
    """Indices of the boxes in order, in whole tiles, and which of these places hold one that counts."""
    usable = jnp.isfinite(scores) & jnp.isfinite(boxes).all(-1)
    usable = usable if valid is None else usable & valid
    order = jnp.argsort(jnp.where(usable, -scores, jnp.inf), stable=True).astype(jnp.int32)
    places = jnp.pad(order, (0, -len(order) % tile))
    return places, usable[places] & (jnp.arange(len(places)) < len(order))


def _settled(alive: jax.Array, close: jax.Array) -> jax.Array:
    """Greedy suppression among boxes [n] in order, by which pairs [n, n] are too close."""
    before = close & jnp.triu(jnp.ones_like(close), 1)  # [better, worse]

    def again(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        kept, _ = state
        now = alive & ~(before & kept[:, None]).any(0)
        return now, (now != kept).any()

    return jax.lax.while_loop(lambda state: state[1], again, (alive, jnp.array(True)))[0]
