"""Label-free rules that choose the blocks of an encoder to keep, from the similarity of its layers.

A state is the tokens after a block; state 0 is the input of the first. Blocks are counted from 0, so that block i leads
from state i to state i + 1. All matrices are numpy, with one entry per pair of states.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from scaling.core.errors import UserError

_EQUAL = 1e-9  # scores that differ by less are a tie


class Decision(NamedTuple):
    """The decision of a rule.

    Attributes:
      keep: the blocks that are kept, in order.
      candidates: the candidate of each score: a number of blocks to keep, a block, or the first block of an interval.
      scores: float64, score of each candidate.
    """

    keep: tuple[int, ...]
    candidates: tuple[int, ...]
    scores: np.ndarray


def variation(similarity: np.ndarray) -> float:
    """The mean absolute difference between consecutive rows of a matrix [m, m] of at least two."""
    return float(np.abs(np.diff(similarity, axis=0)).mean())


def suffix_scores(similarity: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
    """Gain g of ending after a state: the variation among the states up to it, minus that among the others.

    Args:
      similarity: [m, m], of all states compared, the last included.

    Returns:
      c, the numbers of states kept, from 2 to m - 2 (a single state has no variation), and g(c), float64.
    """
    kept = tuple(range(2, len(similarity) - 1))
    scores = [variation(similarity[:c, :c]) - variation(similarity[c:, c:]) for c in kept]
    return kept, np.asarray(scores, np.float64)


def simpler(similarity: np.ndarray, with_input: bool = False) -> Decision:
    """The first blocks, up to where the states no longer change: SIMPLER (Barreiro et al., 2603.19873), as the
    re-implementation in "Does the VGGT family need all its layers?" states it: the largest g of `suffix_scores`.

    The paper does not specify the treatment of ends and ties: here at least two states are on either side, and among
    equal scores the one that keeps more blocks wins.

    Args:
      similarity: CKA [L + 1, L + 1] of all states.
      with_input: whether state 0 is compared too.

    Raises:
      UserError: fewer than four states.
    """
    first = 0 if with_input else 1
    if len(similarity) - first < 4:
        raise UserError(f"rule=simpler: needs at least four states, but the encoder has {len(similarity) - first}")
    _check_known(similarity, first)
    kept, scores = suffix_scores(similarity[first:, first:])
    blocks = tuple(c + first - 1 for c in kept)
    best = blocks[int(np.flatnonzero(scores >= scores.max() - _EQUAL)[-1])]
    return Decision(tuple(range(best)), blocks, scores)


def shortgpt(cosine: np.ndarray, blocks: int) -> Decision:
    """Keeps the blocks with the largest influence, 1 - the cosine of a block's input and output: ShortGPT (Men et al.,
    2403.03853). Among equal ones the first are kept.

    cosine: [L + 1, L + 1], averaged over tokens; blocks: number of blocks to keep.
    """
    influence = 1 - np.diagonal(cosine, offset=1)
    _check(blocks, len(influence), "shortgpt")
    order = np.argsort(-np.round(influence / _EQUAL), kind="stable")
    return Decision(tuple(sorted(order[:blocks].tolist())), tuple(range(len(influence))), influence)


def interval(distance: np.ndarray, blocks: int, rule: str) -> Decision:
    """Drops the consecutive blocks between the two states with the smallest distance; among equal ones, the last.

    Args:
      distance: [L + 1, L + 1]: the angle between states over pi (Gromov et al., 2403.17887), or 1 - CKA.
      blocks: number of blocks to keep.
      rule: name of the rule, for messages.
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
        raise UserError(
            f"blocks={blocks}: must be the number of blocks that {rule} keeps, from 1 to {depth - 1} of {depth}"
        )


def _check_known(matrix: np.ndarray, first: int) -> None:
    if (unknown := np.flatnonzero(np.isnan(np.diagonal(matrix))[first:])).size:
        raise UserError(
            f"state {unknown[0] + first}: its rows do not differ by more than chance, so its similarity to other "
            "states is not defined; give more images, or compare other tokens"
        )


class States(NamedTuple):
    """Similarities of all pairs of states: CKA, and the cosine and the angle over pi, averaged over tokens; [L + 1,
    L + 1].
    """

    cka: np.ndarray
    cosine: np.ndarray
    angle: np.ndarray


# name -> (states, number of blocks to keep, whether the input counts as a state) -> the decision
RULES: dict[str, Callable[[States, int, bool], Decision]] = {
    "simpler": lambda states, blocks, with_input: simpler(states.cka, with_input),
    "shortgpt": lambda states, blocks, with_input: shortgpt(states.cosine, blocks),
    "angular": lambda states, blocks, with_input: interval(states.angle, blocks, "angular"),
    "cka_interval": lambda states, blocks, with_input: interval(1 - states.cka, blocks, "cka_interval"),
}


def check_blocks(blocks: Sequence[int], depth: int) -> tuple[int, ...]:
    """The named blocks, in order.

    Raises:
      UserError: no blocks, one that the encoder does not have, one repeated, or not in order.
    """
    named = ",".join(map(str, blocks))
    if not blocks:
        raise UserError("--keep is empty: name the blocks to keep, from 0")
    if wrong := [i for i in blocks if not 0 <= i < depth]:
        raise UserError(f"--keep={named}: there is no block {wrong[0]}; the encoder has 0 to {depth - 1}")
    if list(blocks) != sorted(set(blocks)):
        raise UserError(f"--keep={named}: name every block once, in increasing order; blocks cannot be reordered")
    return tuple(blocks)
