"""Encoders that are cut, in width and in depth, without training."""

import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from scaling.api.checks import Source, checked, source_of
from scaling.core.errors import UserError
from scaling.encoders import pruned, slimmed
from scaling.encoders.calibration import BATCH, check_varied, images_used
from scaling.encoders.encoder import Encoder
from scaling.encoders.images import as_array
from scaling.encoders.similarity import measure
from scaling.encoders.splits import Split, gathered
from scaling.slimming.orderings import ORDERINGS
from scaling.slimming.recovery import RECOVERIES
from scaling.training.stored_config import CutConfig

log = logging.getLogger(__name__)

Images = ArrayLike | Source  # pixels [N, h, w, C] in the units of the training data, or a source

_UNLABELLED = 256  # images of a source that a cut uses


@checked
def slim(
    encoder: Encoder,
    width_ratio: float,
    mode: str = "inner",
    ordering: str = "first",
    recovery: str = "none",
    images: Images | None = None,
    seed: int = 0,
    *,
    bands: Sequence[int | str] = (),
) -> Encoder:
    """A narrower encoder, without training.

    Args:
      encoder: the whole encoder.
      width_ratio: fraction of the units that is kept, in (0, 1].
      mode: axes that are cut: inner (head_dim and mlp, as published), token (embed too), heads, branch, or names of
        axes joined by +.
      ordering: units that are kept: first (as published, 2601.22841), last, random, energy or svd.
      recovery: repair after the cut: none, mean or ridge.
      images: a few hundred unlabelled images: pixels [N, h, w, C] in the units of the training data, or a source, of
        which 256 images are used. energy, mean and ridge need them; svd is better with them.
      seed: seed of the ordering random.
      bands: bands of the source of the images, by index or name; by default those the encoder was trained on.

    Raises:
      UserError: a name, width or images that do not fit the encoder; or images that are missing, or that the cut would
        not use.

    >>> encoder = scaling.load("runs/tiny")
    >>> small = scaling.slim(encoder, 0.25, ordering="svd", recovery="ridge", images=images)
    >>> small.features(images).shape
    (64, 32)
    >>> small.save("runs/slim")
    >>> print(*scaling.load("runs/slim").cuts)
    width 0.25 inner svd ridge
    """
    known = ordering in ORDERINGS and recovery in RECOVERIES  # other names are reported by the cut
    if images is not None and known and not slimmed.uses_images(ordering, recovery):
        raise UserError(
            f"images: ordering={ordering} with recovery={recovery} uses no images; leave them out, or choose "
            "ordering='svd', recovery='ridge'"
        )
    pixels, about = _unlabelled(encoder, images, bands=bands) if images is not None and known else (None, {})
    small = slimmed.slim(encoder, width_ratio, mode, ordering, recovery, pixels, seed)
    return small.after(CutConfig("", encoder.step, width_ratio, mode, ordering, recovery, seed, **about))


@checked
def prune(
    encoder: Encoder,
    keep: Sequence[int] = (),
    *,
    rule: str | None = None,
    blocks: int = 0,
    images: Images | None = None,
    estimator: str = "debiased",
    recover: str = "none",
    bands: Sequence[int | str] = (),
) -> Encoder:
    """A shallower encoder, without training.

    Args:
      encoder: the whole encoder, or one that was cut in width.
      keep: indices of the blocks to keep, from 0; no rule and no images are then needed.
      rule: rule that chooses the blocks: simpler (2603.19873), the default, which keeps the first ones and decides how
        many; shortgpt, angular or cka_interval.
      blocks: number of blocks that shortgpt, angular and cka_interval keep.
      images: a few hundred unlabelled images: pixels [N, h, w, C] in the units of the training data, or a source, of
        which 256 images are used.
      estimator: estimator of CKA, debiased or biased.
      recover: none, or linear: the MLP before the removed blocks is fitted by least squares, on the images, to replace
        them.
      bands: bands of the source of the images, by index or name; by default those the encoder was trained on.

    Raises:
      UserError: blocks that the encoder does not have, a rule that cannot decide, images that are missing or do not
        vary, or an argument that has no effect with the others.

    >>> encoder = scaling.load("runs/tiny")
    >>> scaling.prune(encoder, [0]).config.depth
    1
    >>> print(*scaling.prune(encoder, rule="shortgpt", blocks=1, images=images).cuts)  # doctest: +ELLIPSIS
    blocks ... of 2, shortgpt
    """
    if recover not in pruned.RECOVERS:
        raise UserError(f"recover={recover!r}: must be one of {', '.join(pruned.RECOVERS)}")
    kept, recovers = tuple(map(int, keep)), recover == "linear"
    if kept:
        _check_named(kept, rule, blocks, None if recovers else images)
        if not recovers:
            return pruned.prune(encoder, kept)
        chosen, need = pruned.KEEP, f"recover={recover} needs unlabelled images; give some"
    else:
        chosen = rule or "simpler"
        pruned.check_rule(chosen, blocks, encoder.config.depth)
        need = f"rule={chosen} needs unlabelled images; give some, or name the blocks to keep"
    if images is None:
        raise UserError(f"images: {need}")
    pixels, about = _unlabelled(encoder, images, recovers, bands)
    kept = kept or _decided(encoder, pixels, chosen, blocks, estimator)
    return pruned.prune(encoder, kept, chosen, pixels if recovers else None, **about)


def _decided(encoder: Encoder, pixels: np.ndarray, rule: str, blocks: int, estimator: str) -> tuple[int, ...]:
    """The blocks that a rule keeps; logs a warning if there are few images."""
    check_varied(pixels)
    similarity = measure([encoder], [(pixels,)])
    if similarity.batches < pruned.LEAST_BATCHES:
        few = f"images: {len(pixels)} are too few to check whether other images lead to the same decision"
        log.warning(f"{few}; give {pruned.LEAST_BATCHES * similarity.images} or more")
    return pruned.decide(similarity, rule, blocks, estimator, False).keep


def _check_named(keep: tuple[int, ...], rule: str | None, blocks: int, images: Images | None) -> None:
    """Raises UserError for arguments that only a rule uses."""
    needless = {"rule": rule not in (None, pruned.KEEP), "blocks": bool(blocks), "images": images is not None}
    if given := [name for name, is_needless in needless.items() if is_needless]:
        raise UserError(
            f"keep={list(keep)}: the blocks are given, so there is nothing to choose; leave out {', '.join(given)}"
        )


def _unlabelled(
    encoder: Encoder, images: Images | None, calibrates: bool = True, bands: Sequence[int | str] = ()
) -> tuple[np.ndarray, dict[str, Any]]:
    """Normalised images, and the fields of a `CutConfig` that identify them; `calibrates`: whether a `Calibration`
    uses them.
    """
    if isinstance(images, str | os.PathLike):
        images = source_of(images)
        opened = Split(encoder, images, "train", _UNLABELLED, bands=bands)
        (pixels,) = gathered(((part.images,) for part in opened.parts()), opened.images)
        about: dict[str, Any] = {"calibration": images, "calibration_split": "train", "calibration_bands": opened.bands}
    else:
        if len(bands):
            raise UserError(
                f"bands={list(bands)}: only for a source; an array must have the bands of the encoder, so leave bands "
                "out"
            )
        raw = as_array(images)
        encoder.check_pixels(raw)
        pixels, about = encoder.normalise(raw), {"calibration": "an array"}
    if len(pixels) < BATCH:
        log.warning(f"images: {len(pixels)} are too few to represent the data; give a few hundred")
    return pixels, about | {"calibration_images": images_used(len(pixels)) if calibrates else len(pixels)}
