"""Encoders: read, applied, cut, scored."""

import inspect
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from numpy.typing import ArrayLike

from scaling.api.checks import checked, source_of
from scaling.core.errors import UserError
from scaling.core.paths import user_path
from scaling.data.labels import check_rows
from scaling.encoders import pruned, slimmed
from scaling.encoders.calibration import BATCH, check_varied, images_used
from scaling.encoders.encoder import Encoder
from scaling.encoders.images import as_array
from scaling.encoders.loading import load_encoder
from scaling.encoders.similarity import measure
from scaling.encoders.splits import Split, gathered
from scaling.evaluation.probes import PROBES
from scaling.evaluation.scores import Predictions
from scaling.slimming.orderings import ORDERINGS
from scaling.slimming.recovery import RECOVERIES
from scaling.training.stored_config import CutConfig

log = logging.getLogger(__name__)

Source = str | os.PathLike[str]  # spec of a source, or path of a folder
Images = ArrayLike | Source  # pixels [N, h, w, C] in the units of the training data, or a source

_UNLABELLED = 256  # images of a source that a cut uses


class Features(NamedTuple):
    """Features of the readable images of a source, in a fixed order; `names` identifies the images.

    Attributes:
      features: float32 [N, D], or [N, T, D] of tokens.
      labels: int [N], -1 for an image without a label; or 0 and 1 [N, L] if images have several of L labels.
      names: names of the N files or records.
    """

    features: np.ndarray
    labels: np.ndarray
    names: list[str]

    def __repr__(self) -> str:
        """Short, for notebooks."""
        counts, labels = " x ".join(map(str, self.features.shape[1:])), self.labels[self.labels >= 0]
        classes = f", {len(np.unique(labels))} classes" if labels.ndim == 1 and len(labels) else ""
        return f"Features({len(self.names):,} images, {counts} features{classes})"


Labelled = tuple[ArrayLike, ArrayLike] | Features  # features [n, D] and labels


@checked
def load(path: epath.PathLike, step: int | None = None) -> Encoder:
    """Reads a pretrained encoder.

    Args:
      path: the --workdir of a training run, or a folder written by `scaling.convert`, `scaling.prune` or
        `encoder.save`; local, in a bucket (gs://) or in the hub (hf://).
      step: step of the checkpoint; the newest by default.

    Returns:
      The encoder: `features(images)`, `normalise(images)`, `save(path)`, `config`, `params`, `train`, `cuts`.

    Raises:
      UserError: no such checkpoint.

    >>> encoder = scaling.load("runs/tiny")
    >>> encoder
    Encoder(16 x 16 pixels, 3 bands -> 32, depth 2, patch 4, 18,752 parameters)
    >>> encoder.features(images).shape
    (64, 32)
    >>> encoder.features(images[0], pool="tokens").shape
    (17, 32)
    """
    return load_encoder(user_path("path", path), step)


@checked
def features(
    encoder: Encoder,
    source: Source,
    split: str = "train",
    pool: str = "mean",
    *,
    bands: Sequence[int | str] = (),
    limit: int = 0,
) -> Features:
    """Features of images in files: resized, cropped to the central square and normalised as in training.

    Args:
      encoder: see `load`.
      source: such as folder:DIR or zip:FILE, see `scaling.data.sources.registry`; or the path of a folder.
      split: such as train, or train[:80%].
      pool: mean over the patches, cls, or tokens.
      bands: bands of the source, by index or name; by default those that the encoder was trained on.
      limit: maximum number of images, spread evenly over the source; 0 for all.

    Raises:
      UserError: a source that does not exist or does not fit the encoder.

    >>> encoder = scaling.load("runs/tiny")
    >>> found = scaling.features(encoder, "scenes?size=16&count=20")
    >>> found.features.shape, found.labels.shape, len(found.names)
    ((20, 32), (20,), 20)
    """
    encoder.check_pool(pool)
    source = source_of(source)
    opened = Split(encoder, source, split, limit, bands=bands)
    names: list[str] = []

    def parts() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for part in opened.parts():
            names.extend(map(opened.opened.name, part.records.tolist()))
            yield encoder.encode(part.images, pool), part.labels

    found = gathered(parts(), opened.images)
    if not names:
        raise UserError(f"source={source}, split {split}: there is no readable image; give another one")
    return Features(found[0], found[1], names)


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


@checked
def probe(
    train: Labelled,
    test: Labelled,
    validation: Labelled | None = None,
    *,
    probe: str = "knn",
    **options: Any,
) -> Predictions:
    """Scores frozen features with a k-NN or linear probe.

    Args:
      train, test: `Features`, or features [n, D] and labels, integers [n] or 0 and 1 [n, L].
      validation: rows on which the linear probe chooses its regularisation; by default a fifth of `train`.
      probe: knn or linear.
      options: for knn, k=5 and metric="cosine"; for linear, strengths, metric and seed.

    Returns:
      Predictions for the test rows: `scores()` in [0, 1], their 95 % bootstrap `intervals()`, `chance()`, `predicted`.

    Raises:
      UserError: shapes that do not match, unknown names, values that are not finite, rows without a label (-1), or a
        split of a single class.

    >>> encoder = scaling.load("runs/tiny")
    >>> train = scaling.features(encoder, "scenes?size=16&count=200")
    >>> test = scaling.features(encoder, "scenes?size=16&count=100", split="test")
    >>> found = scaling.probe(train, test, k=5)
    >>> found  # doctest: +ELLIPSIS
    Predictions(100 images: accuracy ...%, macro_accuracy ...%)
    """
    if probe not in PROBES:
        raise UserError(f"probe={probe!r}: must be one of {', '.join(PROBES)}")
    pairs = [pair and (np.asarray(pair[0]), np.asarray(pair[1])) for pair in (train, test, validation)]
    try:
        inspect.signature(PROBES[probe]).bind(*pairs, **options)
    except TypeError as e:
        raise UserError(
            f"{', '.join(options)}: not all of these are options of probe={probe!r}; see help(scaling.probe)"
        ) from e
    for name, pair in zip(("train", "test", "validation"), pairs, strict=True):
        if pair and pair[1].ndim and np.issubdtype(pair[1].dtype, np.number):  # other errors are reported by the probe
            check_rows(pair[1], name)
    return PROBES[probe](*pairs, **options)


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
