"""Bands, dtype and units of a source, from a few of its images: what is looked at before any compute is spent."""

import logging
from collections.abc import Sequence

import numpy as np

from scaling.core.errors import UserError
from scaling.data.arrays import far_from_normalised, normalise, other_units
from scaling.data.images import ARRAY, CorruptImage
from scaling.data.sources.base import Source

_IMAGES = 16
_EIGHT_BITS = 255  # largest value
_SAMPLED_PIXELS = 65_536  # of an image, whose colours are counted
_COLOURS = 32  # most colours of a mask
_EQUAL = 0.8  # least share of equal neighbours in a mask
_COVERED = 0.01  # least share of the image that a colour of a mask covers; smaller ones may be specks in an empty image

log = logging.getLogger(__name__)


def _few(source: Source) -> tuple[dict[int, np.ndarray], CorruptImage | None]:
    """The readable ones of up to 16 images over the whole source, by index, and why the first of the others is not."""
    total = len(source)
    images, first = dict[int, np.ndarray](), None
    for index in dict.fromkeys(i * total // _IMAGES for i in range(_IMAGES)):
        try:
            images[index] = source[index]["image"]
        except CorruptImage as error:
            first = first or error
    return images, first


def few_images(source: Source) -> list[np.ndarray]:
    """Up to 16 readable images over the whole source. Raises UserError if there are none."""
    images, first = _few(source)
    if not images:
        raise UserError(f"no readable image; the first is {first}")
    return list(images.values())


def layout(source: Source, bands: tuple[int, ...]) -> tuple[int, np.dtype]:
    """Number of bands and dtype of the images, from up to 16 readable ones over the whole source.

    Sets often mix grey and colour images: the result is the largest number of bands, and the commonest dtype of images
    with that many. If `bands` are chosen, only images that have all of them count.
    """
    return layout_of(few_images(source), bands)


def layout_of(images: Sequence[np.ndarray], bands: tuple[int, ...]) -> tuple[int, np.dtype]:
    """`layout` of images that are read already, as by `few_images`."""
    widest = max(images, key=lambda image: image.shape[2])
    if bands and max(bands) >= widest.shape[2]:
        raise UserError(f"data.bands={bands}: the images have bands 0 to {widest.shape[2] - 1}")
    least = max(bands) + 1 if bands else widest.shape[2]
    dtypes = [image.dtype for image in images if image.shape[2] >= least]
    return widest.shape[2], max(dtypes, key=dtypes.count)


def widest_image(source: Source) -> str:
    """Name and size of the image with the most bands among a few, for messages, with a hint if its sides may have been
    taken for bands; empty where images have no names.
    """
    images, _ = _few(source)
    index = max(images, key=lambda i: images[i].shape[2], default=-1)
    if index < 0 or not (name := source.name(index)):
        return ""
    height, width, there = images[index].shape
    pages = "; were the bands the last axis of an array? Write it with planarconfig=contig" if there > width else ""
    if name.endswith(ARRAY):
        pages = "; were the bands the first axis? Store them as the last" if height < there else ""
    return f" ({name} is of {height} x {width} pixels of {there} bands{pages})"


def warn_of_masks(where: str, images: Sequence[np.ndarray]) -> None:
    """Logs a warning if images [height, width, bands] seem to be masks of labels: all have 8 bits, at most 32 different
    colours, and neighbouring pixels that are mostly equal; and at least half have several colours that each cover 1 %
    of the image. Nearly empty images do not.
    """
    most = several = 0
    for image in images:
        colours, large = _label_colours(image)
        if not colours:
            return
        most, several = max(most, colours), several + (large > 1)
    if several and 2 * several >= len(images):
        log.warning(
            "%s: should be images, and looks like masks of labels: at most %d different colours, in regions of one "
            "colour; give the images of these masks, unless they are drawn so",
            where,
            most,
        )


def _label_colours(image: np.ndarray) -> tuple[int, int]:
    """Number of colours of an image that may be a mask, and of those that cover 1 % of it; else 0, 0. Real images have
    either more colours or noise.
    """
    if image.dtype != np.uint8 or image.size == 0:
        return 0, 0
    apart = max(1, int((image.shape[0] * image.shape[1] / _SAMPLED_PIXELS) ** 0.5))
    image = image[::apart, ::apart]
    eight = image[..., :8].astype(np.uint64)  # bands, as one integer: many times faster than as rows
    colours, pixels = np.unique((eight << (8 * np.arange(eight.shape[2], dtype=np.uint64))).sum(2), return_counts=True)
    if len(colours) > _COLOURS:
        return 0, 0
    equal = [(image[1:] == image[:-1]).all(2), (image[:, 1:] == image[:, :-1]).all(2)]
    is_flat = min(np.mean(x) if x.size else 1.0 for x in equal) >= _EQUAL
    return (len(colours), int((pixels >= _COVERED * pixels.sum()).sum())) if is_flat else (0, 0)


def few_pixels(source: Source, bands: Sequence[int], count: int) -> list[np.ndarray]:
    """The bands taken of a few images, [height, width, count] each; all `count` of them if `bands` is ().

    Raises:
      UserError: no image is readable.
    """
    images = [image for image in few_images(source) if image.shape[2] > max(bands, default=count - 1)]
    return [image[..., list(bands) or slice(count)] for image in images]


def in_other_units(pixels: Sequence[np.ndarray], mean: Sequence[float], std: Sequence[float]) -> str:
    """What suggests that pixels, as of `few_pixels`, are in other units than those with this mean and deviation per
    band; empty if nothing does. See `scaling.data.arrays.other_units`.
    """
    height, width = (min((image.shape[axis] for image in pixels), default=0) for axis in (0, 1))
    return other_units(np.stack([image[:height, :width] for image in pixels]), mean, std)[0] if pixels else ""


def had_eight_bits(mean: Sequence[float], trained_on: np.dtype | None) -> bool:
    """Whether the training had images of 8 bits, or may have had: only then can others be beyond them."""
    return trained_on in (None, np.uint8) and max(mean) <= _EIGHT_BITS


def beyond_eight_bits(
    pixels: Sequence[np.ndarray], mean: Sequence[float], std: Sequence[float], trained_on: np.dtype | None
) -> str:
    """Evidence that pixels are certainly in other units than the training's: whole numbers above 255, where the
    training had 8 bits; empty if there is none.

    Args:
      pixels: those of a few images, see `few_pixels`.
      mean, std: those of the training, per band.
      trained_on: dtype of the training's images. If it is not known (None), statistics of 8 bits count that are far
        from those of the images.
    """
    if not had_eight_bits(mean, trained_on):
        return ""
    highest = max((float(x.max()) for x in pixels), default=0.0)
    if highest <= _EIGHT_BITS or not all(x.dtype == np.uint16 or (x == np.rint(x)).all() for x in pixels):
        return ""
    if trained_on is None and not all(far_from_normalised(normalise(x, mean, std)) for x in pixels):
        return ""
    there = f"{float(np.mean([x.mean(dtype=np.float64) for x in pixels])):.4g}"
    had = "8 bits (0 to 255)" if trained_on else "values of at most 8 bits"
    return (
        f"pixels up to {highest:.6g}, of mean {there}: the training had {had}, of mean {float(np.mean(mean)):.4g}: "
        "these are other units (16 bits, reflectances)"
    )
