"""An encoder with fewer blocks, without training; `scaling.slimming.depth` chooses the blocks."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling.core.errors import UserError
from scaling.encoders.calibration import Calibration
from scaling.encoders.encoder import BATCH, Encoder, in_batches
from scaling.encoders.similarity import Similarity
from scaling.models.config import ViTConfig
from scaling.models.transformer import run
from scaling.models.vit import abstract_vit, behind_blocks, pooled, stem
from scaling.slimming.cutting import cut
from scaling.slimming.depth import RULES, Decision, check_blocks
from scaling.training.stored_config import CutConfig

KEEP = "keep"  # name of the rule for explicitly given blocks
LEAST_BATCHES = 4  # fewest batches that can be divided to test whether others decide the same
RECOVERS = ("none", "linear")  # ways to replace the missing blocks


def prune(
    encoder: Encoder, blocks: Sequence[int], rule: str = KEEP, images: np.ndarray | None = None, **about: Any
) -> Encoder:
    """The encoder with some of its blocks, from 0, in order; stem and final norm stay.

    Args:
      encoder: the whole encoder, or one that has been cut in width.
      blocks: indices of the blocks to keep.
      rule: rule that chose them.
      images: unlabelled and normalised [N, h, w, C], to let the kept blocks replace the missing ones: the output kernel
        of the MLP before these becomes the least-squares map from its hidden units to the tokens after them. No matrix
        is added. (ReplaceMe, Shopkhoev et al., 2505.02819, fits a map of the MLP's output, which has fewer free
        entries.)
      about: further fields of the `CutConfig` that records the cut.

    Raises:
      UserError: blocks that the encoder does not have, or without one that attends to all tokens; images although the
        first block is missing, so that no MLP precedes it.
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


def features_of_depths(encoder: Encoder, images: np.ndarray, pool: str = "mean") -> np.ndarray:
    """`Encoder.encode` of the encoders that keep the first 1, 2, … L blocks, in one pass: float32 [L, N, D].

    images: normalised [N, h, w, C]. Features that are not finite are returned as they are.
    """
    encoder.check_pool(pool)
    encoder.check(images)
    encode = functools.partial(_of_depths, encoder.config, pool)
    return in_batches(encode, encoder.replicated, images, BATCH).swapaxes(0, 1)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _of_depths(c: ViTConfig, pool: str, params: Any, images: jax.Array) -> jax.Array:
    def observe(passed: Any) -> jax.Array:
        return pooled(params, behind_blocks(passed), c, pool).astype(jnp.float32)

    return run(params["blocks"], stem(params, images, c), c, observe)[1].swapaxes(0, 1)


def check_rule(rule: str, blocks: int, depth: int, option: str = "blocks") -> None:
    """Raises UserError for an unknown rule, or one that cannot keep this many of an encoder's `depth` blocks.

    option: name of the option for their number, for messages.
    """
    _check_known(rule)
    if rule == "simpler" and blocks:
        raise UserError(
            f"{option}={blocks}: simpler chooses the number of blocks; leave it out, or choose another rule"
        )
    if rule != "simpler" and not 1 <= blocks < depth:
        raise UserError(
            f"{option}={blocks}: must be the number of blocks that {rule} keeps, from 1 to {depth - 1} of {depth}"
        )


def _check_known(rule: str) -> None:
    if rule not in RULES:
        raise UserError(f"rule={rule!r}: must be one of {', '.join(RULES)}; or name the blocks to keep")


def check_recovers(kept: Sequence[int]) -> None:
    """Raises UserError if no block precedes the first missing ones."""
    if kept[0] != 0:
        raise UserError(
            "recover=linear: removed block 0 has no MLP before it to replace it; keep block 0, or use recover=none"
        )


def decide(similarity: Similarity, rule: str, blocks: int, estimator: str, with_input: bool) -> Decision:
    """The decision of a rule of `RULES`.

    Raises:
      UserError: unknown rule, or one that cannot decide.
    """
    _check_known(rule)
    return RULES[rule](similarity.states(estimator), blocks, with_input)


@dataclasses.dataclass(frozen=True)
class Stability:
    """Decisions of a rule on other samples of the images.

    Attributes:
      draws: blocks kept -> how often, over random halves of the batches.
      growing: number of images -> blocks kept, from that many first images.
    """

    draws: dict[tuple[int, ...], int]
    growing: dict[int, tuple[int, ...]]


def stability(
    similarity: Similarity, rule: str, blocks: int, estimator: str, with_input: bool, draws: int = 50, seed: int = 0
) -> Stability | None:
    """The `Stability` of a decision; None if there are too few batches to divide."""
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
