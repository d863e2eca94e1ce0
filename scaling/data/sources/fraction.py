"""A fraction of a training split for data-efficiency curves: whole images, drawn so that fractions are nested.

For one seed all fractions are prefixes of one order: the images in 1 % are in 2 % too. The order begins with images
that together have every class, so that no fraction misses one; if images have one class each, the rest is ordered so
that every prefix has the classes in proportion.
"""

import functools
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from scaling.core.errors import UserError
from scaling.data.images import CorruptImage
from scaling.data.sources.base import Picked, Source
from scaling.data.sources.registry import open_source
from scaling.data.targets import Masks


def nested_order(classes: Sequence[Collection[int]], seed: int) -> tuple[np.ndarray, int]:
    """An order of images whose first m are a sample, for every m.

    Args:
      classes: classes of each image.
      seed: seed of the draw.

    Returns:
      Indices of the images [n], and the length of the shortest prefix that has every class.
    """
    drawn = [int(i) for i in np.random.default_rng(seed).permutation(len(classes))]
    first, rest, seen = list[int](), list[int](), set[int]()
    for image in drawn:
        (rest if seen.issuperset(classes[image]) else first).append(image)
        seen.update(classes[image])
    if all(len(found) == 1 for found in classes):
        rest = _in_proportion(rest, [next(iter(classes[image])) for image in rest])
    return np.array(first + rest), len(first)


def _in_proportion(images: Sequence[int], classes: Sequence[int]) -> list[int]:
    """The images in another order: the k-th of the n images of a class, from 0, is sorted to (k + 1/2) / n."""
    counts = dict(zip(*np.unique(classes, return_counts=True), strict=True))
    passed = dict.fromkeys(counts, 0)
    places = []
    for name in classes:
        places.append((passed[name] + 0.5) / counts[name])
        passed[name] += 1
    return [images[i] for i in np.argsort(places, kind="stable")]


def taken(share: float, total: int, least: int) -> int:
    """Number of images in a share of `total`, at least those needed to have every class."""
    return max(round(share * total), least)


class Fraction(Picked):
    """A share of the images of a source, at least as many as are needed to have every class.

    Args:
      source: a source with labels, masks or boxes.
      classes: classes of each image, see `classes_of`.
      share: share of the images, above 0 and at most 1.
      seed: seed of the draw.

    Attributes:
      images: indices of the images taken, in the order drawn.
    """

    def __init__(self, source: Source, classes: Sequence[Collection[int]], share: float, seed: int):
        order, least = nested_order(classes, seed)
        super().__init__(source, order[: taken(share, len(order), least)])


def classes_of(source: Source, spec: str) -> list[set[int]]:
    """The classes of every image: from its mask, its boxes, or its label or labels; none for an unreadable image, which
    the pipeline skips. `spec` is for messages.

    Raises:
      UserError: images without any of these.
    """
    masks = source.info.target("mask")
    if isinstance(masks, Masks):
        return [set(np.unique(x["mask"]).tolist()) - {masks.ignore} if x else set() for x in _examples(source)]
    if source.info.target("boxes"):
        return [set(x["boxes"].classes.tolist()) if x else set() for x in _examples(source)]
    stored = getattr(source, "labels", None)
    labels = [x["label"] if x else None for x in _examples(source)] if stored is None else list(stored)
    if not source.info.classes or any(np.min(label) < 0 for label in labels if label is not None):
        raise UserError(
            f"data.fraction: {spec} has images without labels; leave it out, or take a subset such as train[:10%]"
        )
    return [set() if label is None else _in_label(np.asarray(label)) for label in labels]


def _in_label(label: np.ndarray) -> set[int]:
    """The class of an integer label, or the classes of a 0/1 vector."""
    return {int(label)} if label.ndim == 0 else set(np.flatnonzero(label).tolist())


@functools.lru_cache(maxsize=2)  # the runs of a study read the same images
def classes_at(spec: str, split: str, images: int) -> list[set[int]]:
    """`classes_of` a split, opened by name; `images` is its known size."""
    found = classes_of(open_source(spec, split), spec)
    assert len(found) == images
    return found


def _examples(source: Source) -> Iterator[Any]:
    """All examples, None for an unreadable one."""
    for i in range(len(source)):
        try:
            yield source[i]
        except CorruptImage:
            yield None
