"""Which blocks of an encoder stay, by how alike its layers are: rules that look at no label.

A state is the tokens behind a block; state 0 is what enters the first. Blocks are counted from 0, so that block i leads
from state i to state i + 1. All matrices are numpy, of every pair of states.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from scaling.core.errors import UserError

_EQUAL = 1e-9  # scores that differ by less are a tie


class Decision(NamedTuple):
    """What a rule decides.

    Attributes:
      keep: the blocks that stay, in order.
      candidates: what each score is of: a number of blocks that stay, a block, or the first block of an interval.
      scores: float64, of each of them.
    """

    keep: tuple[int, ...]
    candidates: tuple[int, ...]
    scores: np.ndarray


def variation(similarity: np.ndarray) -> float:
    """The mean absolute difference between consecutive rows of a matrix [m, m] of at least two."""
    return float(np.abs(np.diff(similarity, axis=0)).mean())


def suffix_scores(similarity: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
    """How much better it is to end behind a state: the variation among the states up to it, less that among the others.

    Args:
      similarity: [m, m] of all states that count, the last included.

    Returns:
      c, how many of the states are kept, from 2 to m - 2 (a single state has no variation), and g(c), float64.
    """
    kept = tuple(range(2, len(similarity) - 1))
    scores = [variation(similarity[:c, :c]) - variation(similarity[c:, c:]) for c in kept]
    return kept, np.asarray(scores, np.float64)


def simpler(similarity: np.ndarray, with_input: bool = False) -> Decision:
    """The first blocks, up to where the states no longer change: SIMPLER (Barreiro et al., 2603.19873), as the
    re-implementation in "Does the VGGT family need all its layers?" states it: the largest g of `suffix_scores`.

    The paper does not say how the ends and ties are treated: at least two states are on either side, and of equal
    scores the one that keeps more is taken.

    Args:
      similarity: CKA [L + 1, L + 1] of all states.
      with_input: whether state 0 is one of those that are compared.

    Raises:
      UserError: there are fewer than four states.
    """
    first = 0 if with_input else 1
    if len(similarity) - first < 4:
        raise UserError(f"rule=simpler: compares four states at least, the encoder has {len(similarity) - first}")
    _check_known(similarity, first)
    kept, scores = suffix_scores(similarity[first:, first:])
    blocks = tuple(c + first - 1 for c in kept)
    best = blocks[int(np.flatnonzero(scores >= scores.max() - _EQUAL)[-1])]
    return Decision(tuple(range(best)), blocks, scores)


def shortgpt(cosine: np.ndarray, blocks: int) -> Decision:
    """Those with the largest influence, 1 - the cosine of what enters and what leaves a block: ShortGPT (Men et al.,
    2403.03853). Of equal ones the first stay.

    cosine: [L + 1, L + 1], averaged over tokens; blocks: how many stay.
    """
    influence = 1 - np.diagonal(cosine, offset=1)
    _check(blocks, len(influence), "shortgpt")
    order = np.argsort(-np.round(influence / _EQUAL), kind="stable")
    return Decision(tuple(sorted(order[:blocks].tolist())), tuple(range(len(influence))), influence)


def interval(distance: np.ndarray, blocks: int, rule: str) -> Decision:
    """All but the consecutive blocks between the two states that are the least apart; of equal ones the last go.

    Args:
      distance: [L + 1, L + 1]: the angle of states over pi (Gromov et al., 2403.17887), or 1 - CKA.
      blocks: how many stay.
      rule: for messages.
    """
    depth = len(distance) - 1
    _check(blocks, depth, rule)
    _check_known(distance, 0)
    scores = np.diagonal(distance, offset=depth - blocks).astype(np.float64)
    start = int(np.flatnonzero(scores <= scores.min() + _EQUAL)[-1])
    gone = range(start, start + depth - blocks)
    return Decision(tuple(i for i in range(depth) if i not in gone), tuple(range(len(scores))), scores)


def _check(blocks: int, depth: int, rule: str) -> None:
    if not 1 <= blocks < depth:
        raise UserError(f"blocks={blocks}: {rule} keeps from 1 to {depth - 1} of {depth} blocks; say how many")


def _check_known(matrix: np.ndarray, first: int) -> None:
    if (unknown := np.flatnonzero(np.isnan(np.diagonal(matrix))[first:])).size:
        raise UserError(
            f"state {unknown[0] + first}: its rows do not differ more than by chance, so that it is like no other; "
            "give more images, or compare other tokens"
        )


class States(NamedTuple):
    """How alike all pairs of states are: CKA, the cosine and the angle over pi of tokens, averaged; [L + 1, L + 1]."""

    cka: np.ndarray
    cosine: np.ndarray
    angle: np.ndarray


# name -> (states, blocks that stay, whether the input counts as a state) -> the decision
RULES: dict[str, Callable[[States, int, bool], Decision]] = {
    "simpler": lambda states, blocks, with_input: simpler(states.cka, with_input),
    "shortgpt": lambda states, blocks, with_input: shortgpt(states.cosine, blocks),
    "angular": lambda states, blocks, with_input: interval(states.angle, blocks, "angular"),
    "cka_interval": lambda states, blocks, with_input: interval(1 - states.cka, blocks, "cka_interval"),
}


def check_blocks(blocks: Sequence[int], depth: int) -> tuple[int, ...]:
    """Blocks that were named, in order.

    Raises:
      UserError: none of them, one that the encoder does not have, one twice, or not in order.
    """
    named = ",".join(map(str, blocks))
    if not blocks:
        raise UserError("--keep is empty: name the blocks that stay, from 0")
    if wrong := [i for i in blocks if not 0 <= i < depth]:
        raise UserError(f"--keep={named}: there is no block {wrong[0]}; the encoder has 0 to {depth - 1}")
    if list(blocks) != sorted(set(blocks)):
        raise UserError(f"--keep={named}: name every block once, in order; a network in another order is another one")
    return tuple(blocks)
