"""Encoders: read, applied, scored."""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from numpy.typing import ArrayLike

from scaling.api.checks import Source, checked, source_of
from scaling.core.errors import UserError
from scaling.core.paths import user_path
from scaling.data.labels import check_rows
from scaling.encoders.encoder import Encoder
from scaling.encoders.loading import load_encoder
from scaling.encoders.splits import Split, gathered
from scaling.evaluation.probes import PROBES
from scaling.evaluation.scores import Predictions


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
