"""An encoder with fewer blocks, without training; which ones, says `scaling.slimming.depth`."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from scaling.core.errors import UserError
from scaling.encoders.encoder import Encoder
from scaling.encoders.similarity import Similarity
from scaling.models.vit import abstract_vit
from scaling.slimming.cutting import cut
from scaling.slimming.depth import RULES, Decision, check_blocks
from scaling.training.config import CutConfig

KEEP = "keep"  # the rule of blocks that were named


def prune(encoder: Encoder, blocks: Sequence[int], rule: str = KEEP, **about: Any) -> Encoder:
    """The encoder with some of its blocks, from 0, in order; stem and final norm stay.

    Args:
      encoder: the whole one, or one that has been cut in width.
      blocks: that stay.
      rule: that chose them.
      about: further fields of the `CutConfig` that the encoder remembers it by.

    Raises:
      UserError: blocks that it does not have, or that leave no block with attention over all tokens.
    """
    c = encoder.config
    kept = check_blocks(blocks, c.depth)
    config = c.with_blocks(kept)
    params = cut(encoder.params, abstract_vit(c)[1], {"layers": kept})
    how = CutConfig(mode="layers", blocks=kept, of=c.depth, rule=rule, step=encoder.step, **about)
    return dataclasses.replace(encoder, config=config, params=params, whole=encoder.identity).after(how)


def decide(similarity: Similarity, rule: str, blocks: int, estimator: str, with_input: bool) -> Decision:
    """What a rule of `RULES` decides.

    Raises:
      UserError: there is no such rule, or it cannot decide.
    """
    if rule not in RULES:
        raise UserError(f"rule={rule!r}: choose from: {', '.join((*RULES, KEEP))}")
    return RULES[rule](similarity.states(estimator), blocks, with_input)


@dataclasses.dataclass(frozen=True)
class Stability:
    """What a rule decides on other images.

    Attributes:
      draws: numbers of blocks kept, and how often the very same blocks were, over random halves of the batches.
      growing: number of images -> the blocks kept on the first so many.
    """

    draws: dict[tuple[int, ...], int]
    growing: dict[int, tuple[int, ...]]


def stability(
    similarity: Similarity, rule: str, blocks: int, estimator: str, with_input: bool, draws: int = 50, seed: int = 0
) -> Stability | None:
    """None where there are too few batches to be divided."""
    if similarity.batches < 4:
        return None
    random, half = np.random.default_rng(seed), similarity.batches // 2
    found: dict[tuple[int, ...], int] = {}
    for _ in range(draws):
        part = similarity.some(random.permutation(similarity.batches)[:half])
        keep = decide(part, rule, blocks, estimator, with_input).keep
        found[keep] = found.get(keep, 0) + 1
    growing, count = {}, 1
    while count < similarity.batches:
        part = similarity.some(np.arange(count))
        growing[count * similarity.images] = decide(part, rule, blocks, estimator, with_input).keep
        count *= 2
    return Stability(dict(sorted(found.items(), key=lambda item: -item[1])), growing)
