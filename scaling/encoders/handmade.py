"""Hand-made features of an image's patches, colours, edges and frequencies: controls of every study.

All take normalised images [N, h, w, C]; sizes are given for three bands. They depend on the image alone, except for the
scale of the groups in the union, which `balanced` takes from the training images, and of images that their encoder does
not standardise, see `standardised`.
"""

import itertools
from collections.abc import Callable, Mapping

import numpy as np

_PATCH, _CELLS, _ORIENTATIONS, _RINGS, _BINS, _SIDE = 8, 4, 8, 12, 64, 64
_FAR, _WIDE = 2.0, 3.0  # largest mean of a standardised band, and largest factor between its deviation and 1


def raw_pixels(images: np.ndarray) -> np.ndarray:
    """The images themselves, averaged over squares of pixels if a side exceeds 64. [N, h, w, C] -> [N, h' w' C]."""
    n, h, w, _ = images.shape
    size = max(-(-max(h, w) // _SIDE), 1)
    return _squares(images, size).mean((2, 4)).reshape(n, -1).astype(np.float32)


def _squares(images: np.ndarray, size: int) -> np.ndarray:
    """Pixels by square [N, rows, size, columns, size, C]; incomplete squares are dropped."""
    n, h, w, c = images.shape
    rows, columns = h // size, w // size
    return images[:, : rows * size, : columns * size].reshape(n, rows, size, columns, size, c)


def patch_moments(images: np.ndarray) -> np.ndarray:
    """For every band, mean and deviation over patches of 8 pixels, of their mean and of their deviation: [N, 4 C]."""
    patches = _squares(images, min(_PATCH, *images.shape[1:3]))
    means, deviations = patches.mean((2, 4)), patches.std((2, 4))
    of_patches = [reduce((1, 2)) for x in (means, deviations) for reduce in (x.mean, x.std)]
    return np.concatenate(of_patches, axis=1).astype(np.float32)


def colour_histogram(images: np.ndarray) -> np.ndarray:
    """Square roots of the shares of the pixels in each bin: up to three bands jointly, with four bins per band,
    each one deviation wide; or else every band separately, 64 bins in all. [N, h, w, C] -> [N, 64], for one to
    three bands.
    """
    n, c = len(images), images.shape[-1]
    if c <= 3:
        each = {1: 64, 2: 8, 3: 4}[c]
        place = np.zeros(images.shape[:3], np.int64)
        for band in range(c):
            place = place * each + _bins(images[..., band], each)
        return np.sqrt(_shares(place.reshape(n, -1), each**c))
    each = max(_BINS // c, 4)
    bands = [_shares(_bins(images[..., band], each).reshape(n, -1), each) for band in range(c)]
    return np.sqrt(np.concatenate(bands, axis=1) / c)


def _bins(values: np.ndarray, count: int) -> np.ndarray:
    """Index of equal bins between -2 and 2; values outside are in the first and the last."""
    return np.clip(np.floor((values + 2) * count / 4), 0, count - 1).astype(np.int64)


def _shares(places: np.ndarray, bins: int) -> np.ndarray:
    """Share of the entries of each row in each bin: [N, M] -> float32 [N, bins]."""
    rows = np.arange(len(places))[:, None] * bins
    counts = np.bincount((places + rows).ravel(), minlength=len(places) * bins).reshape(len(places), bins)
    return (counts / places.shape[1]).astype(np.float32)


def gradient_histogram(images: np.ndarray) -> np.ndarray:
    """Square roots of the shares of the image gradient, averaged over bands, in 4 x 4 cells and 8 orientations: [N,
    128] (a coarse histogram of oriented gradients, Dalal and Triggs 2005).
    """
    grey = images.mean(-1, dtype=np.float32)
    down, right = np.gradient(grey, axis=(1, 2))
    strength = np.hypot(down, right)
    angle = np.minimum((np.arctan2(down, right) % np.pi) / np.pi * _ORIENTATIONS, _ORIENTATIONS - 1).astype(np.int64)
    _, h, w = grey.shape
    cells = []
    for y, x in itertools.product(range(_CELLS), repeat=2):
        where = (
            slice(None),
            slice(y * h // _CELLS, (y + 1) * h // _CELLS),
            slice(x * w // _CELLS, (x + 1) * w // _CELLS),
        )
        cells += [(strength[where] * (angle[where] == o)).sum((1, 2)) for o in range(_ORIENTATIONS)]
    found = np.stack(cells, axis=1)
    return np.sqrt(found / np.maximum(found.sum(1, keepdims=True), 1e-12)).astype(np.float32)


def radial_spectrum(images: np.ndarray) -> np.ndarray:
    """Logarithm of the mean power of the image, averaged over bands, in 12 rings of frequency: [N, 12]."""
    grey = images.mean(-1, dtype=np.float32)
    power = np.abs(np.fft.fft2(grey - grey.mean((1, 2), keepdims=True))) ** 2 / grey[0].size
    frequency = np.hypot(np.fft.fftfreq(grey.shape[1])[:, None], np.fft.fftfreq(grey.shape[2])[None])
    ring = np.ceil(frequency / 0.5 * _RINGS).astype(int)  # 0 is the mean alone; the corners beyond 0.5 are left out
    found = [power[:, ring == r].mean(1) if (ring == r).any() else np.zeros(len(power)) for r in range(1, _RINGS + 1)]
    return np.log(np.stack(found, axis=1) + 1e-6).astype(np.float32)


GROUPS: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    patch_moments,
    colour_histogram,
    gradient_histogram,
    radial_spectrum,
)


def union(images: np.ndarray) -> np.ndarray:
    """All groups concatenated: [N, 216]. See `balanced`."""
    return np.concatenate([group(images) for group in GROUPS], axis=1)


def balanced(splits: Mapping[str, np.ndarray], sizes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The union of each split, with every feature standardised by `train` and every group scaled to the same length, so
    that all count equally for nearest neighbours.

    Args:
      splits: features by split, [N, sum of sizes] each.
      sizes: sizes of the groups.
    """
    train = splits["train"]
    mean, deviation = train.mean(0, dtype=np.float64), train.std(0, dtype=np.float64)
    lengths = np.repeat(np.sqrt(sizes), sizes)
    scale = np.divide(1, deviation * lengths, out=np.zeros_like(deviation), where=deviation > 0)
    return {name: ((x - mean) * scale).astype(np.float32) for name, x in splits.items()}


def union_of_splits(splits: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`balanced` union of normalised images by split, `train` among them."""
    sizes = tuple(group(next(iter(splits.values()))[:1]).shape[1] for group in GROUPS)
    return balanced({name: union(images) for name, images in splits.items()}, sizes)


# Features of a single image, by their `ordering` in rows; `handmade` is the union.
ALONE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "raw_pixels": raw_pixels,
    **{group.__name__: group for group in GROUPS},
}
FLOORS = (*ALONE, "handmade")
QUICK_FLOORS = tuple(name for name in FLOORS if name != "raw_pixels")  # all whose linear probe takes no minutes


def standardised(splits: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Normalised images by split, with every band standardised by `train` if that is far from having been done.

    The bins of the histogram are deviations wide. Some encoders divide by something else, as Galileo by four of them;
    almost all pixels would then share a bin, and the floor would be too low. Images of which every band has a mean
    within 2 of 0 and a deviation between 1/3 and 3, or of 0, stay as they are, which keeps the rows of earlier studies:
    between encoders within these bounds the bins still differ.
    """
    train = splits["train"]
    mean, deviation = train.mean((0, 1, 2), dtype=np.float64), train.std((0, 1, 2), dtype=np.float64)
    near = (np.abs(mean) <= _FAR) & ((deviation >= 1 / _WIDE) & (deviation <= _WIDE) | (deviation == 0))
    if near.all():
        return splits
    centre, scale = mean.astype(np.float32), np.where(deviation > 0, deviation, 1).astype(np.float32)
    return {name: (images - centre) / scale for name, images in splits.items()}


def floor_features(name: str, splits: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Features [N, D] of one of `FLOORS`, by split, of normalised images by split."""
    splits = standardised(splits)
    if name == "handmade":
        return union_of_splits(splits)
    return {split: ALONE[name](images) for split, images in splits.items()}
