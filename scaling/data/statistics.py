"""Mean and standard deviation of every band, measured once and remembered."""

import hashlib
import json
import logging
import os

import numpy as np

from scaling.core.errors import UserError
from scaling.core.files import write_whole
from scaling.core.paths import cache_folder
from scaling.data.config import DataConfig
from scaling.data.images import CorruptImage
from scaling.data.order import Order
from scaling.data.sources.base import Source, Statistics
from scaling.data.spot_checks import layout
from scaling.parallel.hosts import of_first_process

_LOOKED_AT = 16  # images whose pixels enter the fingerprint
_SAMPLE = 2000  # images: the mean is then known to about a fiftieth of a standard deviation


class BandMoments:
    """Sums over the pixels of many images in float64, per band."""

    def __init__(self) -> None:
        self.pixels = 0
        self.total = np.zeros(0)
        self.squares = np.zeros(0)

    def add(self, image: np.ndarray) -> None:
        """Takes one image [height, width, bands]; all must have the same number of bands."""
        flat = image.reshape(-1, image.shape[2]).astype(np.float64)
        if not self.pixels:
            self.total, self.squares = np.zeros((2, image.shape[2]))
        self.pixels += len(flat)
        self.total += flat.sum(axis=0)
        self.squares += np.einsum("pb,pb->b", flat, flat)

    def add_alike(self, image: np.ndarray, bands: int) -> None:
        """Adds an image with that many bands, or a grey one as if all of its bands were equal; no other."""
        if image.shape[2] in (1, bands):
            self.add(np.repeat(image, bands, axis=2) if image.shape[2] < bands else image)

    def merge(self, pixels: int, total: np.ndarray, squares: np.ndarray) -> None:
        """Adds the sums of another part of the images."""
        if pixels:
            self.total, self.squares = (
                (total, squares) if not self.pixels else (self.total + total, self.squares + squares)
            )
            self.pixels += pixels

    def statistics(self) -> Statistics:
        """Mean and standard deviation per band, in pixel values."""
        mean = self.total / self.pixels
        return tuple(mean.tolist()), tuple(np.sqrt(np.maximum(self.squares / self.pixels - mean**2, 0)).tolist())


def band_statistics(source: Source, config: DataConfig) -> Statistics:
    """Mean and standard deviation of the bands that `config` takes, in pixel values as stored.

    The first of: `data.mean` and `data.std`; the source's own (its manifest); the cache; a measurement on a fixed
    sample of 2,000 images (the same for every seed), which is kept in `scaling.core.paths.cache_folder`.

    Raises:
      UserError: no readable image, or `data.bands` names a band that does not exist.
    """
    if config.mean:
        return config.mean, config.std
    mean, std = of_first_process(source.info.statistics or _remembered(source, config))
    chosen = config.bands or tuple(range(len(mean)))
    if max(chosen) >= len(mean):
        raise UserError(f"data.bands={config.bands}: {config.source} has bands 0 to {len(mean) - 1}")
    constant = [band for band in chosen if std[band] == 0]
    if constant:
        logging.warning("%s: band %s is constant; it is centred but not scaled", config.source, constant)
    return tuple(mean[b] for b in chosen), tuple(std[b] or 1.0 for b in chosen)


def sampled(total: int, sample: int = _SAMPLE) -> list[int]:
    """The records that enter the statistics: a fixed pseudo-random sample, independent of the order of the records."""
    order = Order(total, 0)
    return [order.evaluation(position) for position in range(min(sample, total))]


def measure(source: Source, chosen: tuple[int, ...] = (), sample: int = _SAMPLE) -> Statistics:
    """Statistics of all bands over a fixed pseudo-random sample of the training images.

    Args:
      source, sample: the images, and the number of them to measure.
      chosen: bands that training takes, () for all. Images that have these but not all bands count for these.
    """
    (bands, dtype), moments, fewer = layout(source, chosen), BandMoments(), BandMoments()
    for record in sampled(len(source), sample):
        try:
            image = source[record]["image"]
        except CorruptImage:
            continue
        if image.dtype != dtype:
            continue
        if chosen and max(chosen) < image.shape[2] < bands:
            fewer.add(image[..., chosen])
        else:
            moments.add_alike(image, bands)
    if not moments.pixels + fewer.pixels:
        raise UserError("there is no readable image from which to compute band statistics")
    return _joined(moments, fewer, chosen, bands)


def _joined(moments: BandMoments, fewer: BandMoments, chosen: tuple[int, ...], bands: int) -> Statistics:
    """Statistics of images with all bands; for the chosen bands, images that lack other bands count too."""
    if not fewer.pixels:
        return moments.statistics()
    mean, std = (list(x) for x in (moments.statistics() if moments.pixels else ((0.0,) * bands, (1.0,) * bands)))
    if moments.pixels:
        fewer.merge(moments.pixels, moments.total[list(chosen)], moments.squares[list(chosen)])
    for band, *both in zip(chosen, *fewer.statistics(), strict=True):
        mean[band], std[band] = both
    return tuple(mean), tuple(std)


def _fingerprint(source: Source, config: DataConfig) -> str:
    """Identifies the images that are measured: other images, or changed contents under the same names, change it."""
    digest = hashlib.sha256(f"{config.source}|{len(source)}|{_SAMPLE}".encode())
    if config.bands:  # they decide which images are used, if some have fewer bands
        digest.update(str(config.bands).encode())
    state = getattr(source, "state", lambda index: None)
    for position, record in enumerate(sampled(len(source))):
        known = state(record)
        if position < _LOOKED_AT:
            digest.update(_pixels(source, record))  # times can be reset, and sizes can stay the same
        elif known is None:
            break
        digest.update(os.fsencode(source.name(record)) + (known or b""))
    return digest.hexdigest()[:20]


def _pixels(source: Source, record: int) -> bytes:
    try:
        image = source[record]["image"]
    except CorruptImage:
        return b""
    return f"{image.dtype}{image.shape}".encode() + np.ascontiguousarray(image).tobytes()


def _remembered(source: Source, config: DataConfig) -> Statistics:
    key = _fingerprint(source, config)
    folder = cache_folder()
    file = folder / f"band_statistics_{key}.json"
    try:
        known = json.loads(file.read_text())
        return tuple(map(float, known["mean"])), tuple(map(float, known["std"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass  # absent or damaged: measured again
    mean, std = measure(source, config.bands)
    try:
        write_whole(file, json.dumps({"source": config.source, "split": config.split, "mean": mean, "std": std}))
    except OSError as error:
        logging.warning("band statistics are not cached: %s", error)
    return mean, std
