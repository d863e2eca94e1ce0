"""An encoder with fewer blocks, without training; which ones, says `scaling.slimming.depth`."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling.core.errors import UserError
from scaling.encoders.calibration import Calibration
from scaling.encoders.encoder import Encoder
from scaling.encoders.similarity import Similarity
from scaling.models.vit import abstract_vit
from scaling.slimming.cutting import cut
from scaling.slimming.depth import RULES, Decision, check_blocks
from scaling.training.config import CutConfig

KEEP = "keep"  # the rule of blocks that were named
LEAST_BATCHES = 4  # which images can be divided into, to say whether others decide the same
RECOVERS = ("none", "linear")  # what does the part of the blocks that are gone


def prune(
    encoder: Encoder, blocks: Sequence[int], rule: str = KEEP, images: np.ndarray | None = None, **about: Any
) -> Encoder:
    """The encoder with some of its blocks, from 0, in order; stem and final norm stay.

    Args:
      encoder: the whole one, or one that has been cut in width.
      blocks: that stay.
      rule: that chose them.
      images: unlabelled and normalised [N, h, w, C], where the kept blocks are to do the part of those that are gone:
        the output projection of the MLP before these is the least-squares map from its hidden units to the tokens
        behind them. It is folded into that kernel, and so into what the next block reads; no matrix is added.
        (ReplaceMe, Shopkhoev et al., 2505.02819, fits a map of what the MLP adds: the same with fewer free entries.)
      about: further fields of the `CutConfig` that the encoder remembers it by.

    Raises:
      UserError: blocks that it does not have, or that leave no block with attention over all tokens; images, and the
        first block is gone, so that there is no MLP before it.
    """
    c = encoder.config
    kept = check_blocks(blocks, c.depth)
    if images is not None:
        check_recovers(kept)
    config = c.with_blocks(kept)
    params = cut(encoder.params, abstract_vit(c)[1], {"layers": kept})
    recovery = "none"
    if images is not None:
        recovery, numbers = "linear", jax.tree.map(np.asarray, params)
        params = Calibration(encoder, images).repair(numbers, config, np.arange(c.width), kept, gaps_only=True)
        params = jax.tree.map(jnp.asarray, params)
    how = CutConfig(mode="layers", blocks=kept, of=c.depth, rule=rule, step=encoder.step, recovery=recovery, **about)
    return dataclasses.replace(encoder, config=config, params=params, whole=encoder.identity).after(how)


def check_rule(rule: str, blocks: int, depth: int, option: str = "blocks") -> None:
    """Raises UserError for a rule that there is not, or that cannot keep so many blocks of an encoder's `depth`.

    option: how their number is asked for, for messages.
    """
    if rule not in RULES:
        raise UserError(f"rule={rule!r}: choose from: {', '.join(RULES)}; or name the blocks to keep")
    if rule == "simpler" and blocks:
        raise UserError(f"{option}={blocks}: simpler decides how many stay; leave it out, or take another rule")
    if rule != "simpler" and not 1 <= blocks < depth:
        raise UserError(f"{option}={blocks}: say how many blocks {rule} keeps, 1 to {depth - 1} of {depth}")


def check_recovers(kept: Sequence[int]) -> None:
    """Raises UserError where nothing stands before the first blocks that are gone."""
    if kept[0] != 0:
        raise UserError(
            "recover=linear: block 0 is gone, and no MLP stands before it to do its part; keep block 0, or take none"
        )


def decide(similarity: Similarity, rule: str, blocks: int, estimator: str, with_input: bool) -> Decision:
    """What a rule of `RULES` decides.

    Raises:
      UserError: there is no such rule, or it cannot decide.
    """
    if rule not in RULES:
        raise UserError(f"rule={rule!r}: choose from: {', '.join(RULES)}; or name the blocks to keep")
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
    if similarity.batches < LEAST_BATCHES:
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
