"""Rendered overhead scenes with a land-cover label: the default data set, which needs no download.

Ten classes in the manner of EuroSAT (Helber et al. 2019), drawn by `scaling.data.scenes.land_cover` and seen here
through sun, atmosphere and sensor. The same place can be rendered at any size, as colours or as reflectances of six
bands.
"""

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from scaling.core.errors import UserError
from scaling.data.scenes.land_cover import CLASSES
from scaling.data.scenes.objects import OBJECTS, Populated
from scaling.data.scenes.places import PLACES
from scaling.data.scenes.terrain import BANDS, COVERS, Layer, Site, unit
from scaling.data.sources.base import Example, Info
from scaling.data.targets import Boxes, Masks, Target

SPLITS = {"train": 20_000, "test": 4_000}
VARIANTS = {"rgb": ("red", "green", "blue"), "ms": BANDS}
UNITS = {"rgb": "colours of 8 bits", "ms": "reflectance x 10,000"}
TARGETS: dict[str, Target] = {"mask": Masks(COVERS), "boxes": Boxes(OBJECTS)}
_WORLDS: dict[str, tuple[type[Site], Any]] = {"boxes": (Populated, PLACES)}  # by the target

# Share of the light that a shadow still receives from the sky, and light added by one unit of haze, in each of BANDS.
_SKY = np.array([0.50, 0.42, 0.37, 0.33, 0.30, 0.24], np.float32)
_HAZE = np.array([0.070, 0.045, 0.032, 0.024, 0.016, 0.006], np.float32)
_SHADOW_STEPS = 6


class Scenes:
    """Rendered scenes, a random-access source for the input pipeline. Example i has class i modulo their number.

    Args:
      split: `train` or `test`, disjoint streams of scenes.
      variant: `rgb`, colours as uint8, or `ms`, surface reflectance x 10,000 of six bands as uint16.
      size: pixels along each side; the same example at another size is the same place.
      count: how many examples; by default 20,000 (train) or 4,000 (test).
      seed: different seeds give unrelated scenes.
      targets: `mask` adds the cover of every pixel, one of eight classes (COVERS). `boxes` gives other scenes at closer
        range: places with objects (PLACES, which are then the classes), and the oriented boxes of the objects.

    Raises:
      UserError: an unknown split, variant or target, or a size or count out of range.
    """

    def __init__(
        self,
        split: str = "train",
        variant: str = "rgb",
        size: int = 64,
        count: int | None = None,
        seed: int = 0,
        targets: str = "",
    ):
        of_split, of_variant = ("split", split, SPLITS), ("variant", variant, VARIANTS)
        for what, value, known in (of_split, of_variant, ("target", targets or "mask", TARGETS)):
            if value not in known:
                raise UserError(f"{what}={value!r}: must be one of {', '.join(known)}")
        self.split, self.variant, self.size, self.seed = split, variant, size, seed
        self.count = SPLITS[split] if count is None else count
        for what, number, least in (("size", size, 8), ("count", self.count, 1), ("seed", seed, 0)):
            if number < least:
                raise UserError(f"{what}={number}: must be at least {least} for rendered scenes")
        more = (TARGETS[targets],) if targets else ()
        self._site: Any
        self._painters: dict[str, Callable[[Any], None]]
        self._site, self._painters = _WORLDS.get(targets, (Site, CLASSES))
        self.info = Info(tuple(self._painters), targets=more, bands=VARIANTS[variant], units=UNITS[variant])

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        """`image` [size, size, bands], uint8 (rgb) or uint16 (ms), `label`, the index of the class, and, by `targets`,
        `mask` uint8 [size, size] or `boxes`.
        """
        index, label = self._locate(index)
        rng = np.random.Generator(np.random.PCG64([self.seed, list(SPLITS).index(self.split), index]))
        site = self._site(rng, self.size)
        self._painters[self.info.classes[label]](site)
        image = _DEVELOP[self.variant](illuminate(site, self.info.bands), site)
        example: Any = {"image": image, "label": label}
        for target in self.info.targets:
            example[target.name] = site.covers() if target.name == "mask" else site.objects()
        return example

    def name(self, index: int) -> str:
        """A readable name of one example, unique within split and seed."""
        index, label = self._locate(index)
        return f"{self.info.classes[label].replace(' ', '_')}_{index:06d}"

    def _locate(self, index: int) -> tuple[int, int]:
        index = operator.index(index)
        if not 0 <= index < self.count:
            raise IndexError(f"example {index} of {self.count}")
        return index, index % len(self.info.classes)


def open_scenes(path: str, split: str, size: str = "64", count: str = "", seed: str = "0", targets: str = "") -> Scenes:
    """Scenes from the parts of a spec: the path is the variant, and empty options take their defaults.

    Raises:
      UserError: an option is not a number; or see `Scenes`.
    """
    for name, value in (("size", size), ("count", count or "0"), ("seed", seed)):
        if not value.isdecimal():
            raise UserError(f"scenes: {name}={value} is not a whole number")
    number = int(count) if count else None
    return Scenes(split, path or "rgb", int(size), number, int(seed), targets)


def illuminate(site: Site, band_names: tuple[str, ...]) -> np.ndarray:
    """The site under sun, sky and haze as a slightly blurring sensor sees it: reflectances [bands, size, size]."""
    sun = unit(site.between(0.03, 0.47))  # in the southern half of the sky: shadows fall northwards, up
    relief, shadow = _relief_and_shadow(site, sun, steepness=site.between(0.6, 2.0))
    haze = site.between(0, 1) ** 2
    added = (haze + 0.1) * site.between(0.05, 0.6)
    palette, cover = site.palette(), site.cover.astype(np.intp)
    light = site.shade * relief * (site.between(0.8, 1.2) * (1 - 0.1 * haze))
    light *= site.texture(10) * palette[:, 0].take(cover, mode="clip") + 1
    light = np.maximum(light, 0)
    image = np.empty((len(band_names), site.size, site.size), np.float32)
    for plane, band in zip(image, map(BANDS.index, band_names), strict=True):
        direct = palette[:, 1 + band].take(cover, mode="clip") * light
        plane[:] = _blur(direct * (1 - (1 - _SKY[band]) * shadow)) + _HAZE[band] * added
    return image


def _relief_and_shadow(site: Site, sun: tuple[float, float], steepness: float) -> tuple[Layer, Layer]:
    """Brightness of slopes (around 1) and how deep each pixel lies in a cast shadow (0 to 1).

    `sun` is the unit vector towards the sun (right, down), `steepness` the tangent of its elevation.
    """
    height, metres = site.height, site.extent / site.size
    shadow, slope = np.zeros_like(height), np.zeros_like(height)
    reach = min(float(height.max()) / steepness, 40.0)
    offset = (0, 0)
    for length in (reach * step / _SHADOW_STEPS for step in range(1, _SHADOW_STEPS + 1)):
        before, offset = offset, (round(sun[0] * length / metres), round(sun[1] * length / metres))
        if offset != before:
            here, there = _shift(site.size, *offset)
            np.maximum(shadow[here], height[there] - height[here] - length * steepness, out=shadow[here])
    here, there = _shift(site.size, round(1.3 * sun[0]), round(1.3 * sun[1]))
    slope[here] = (height[here] - height[there]) * (0.4 / metres)
    return 1 + np.minimum(np.maximum(slope, -0.3), 0.3), np.minimum(0.7 * shadow, 1)


def _shift(size: int, right: int, down: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Two views of an image, the second shifted by `right` and `down` pixels."""

    def pair(by: int) -> tuple[slice, slice]:
        by = max(-size, min(size, by))
        return slice(max(0, -by), size - max(0, by)), slice(max(0, by), size - max(0, -by))

    (here_x, there_x), (here_y, there_y) = pair(right), pair(down)
    return (here_y, here_x), (there_y, there_x)


def _blur(image: Layer) -> Layer:
    """The sensor's point spread, [1 2 1] / 4 along both axes; edges keep the outermost pixel."""
    padded = np.empty((len(image) + 2, len(image) + 2), np.float32)
    padded[1:-1, 1:-1] = image
    padded[0], padded[-1] = padded[1], padded[-2]
    padded[:, 0], padded[:, -1] = padded[:, 1], padded[:, -2]
    pairs = padded[1:] + padded[:-1]
    rows = pairs[1:] + pairs[:-1]
    pairs = rows[:, 1:] + rows[:, :-1]
    return (pairs[:, 1:] + pairs[:, :-1]) / 16


def _display(reflectance: np.ndarray, site: Site) -> np.ndarray:
    """Colours uint8 [size, size, 3]: exposure, white balance, a square-root tone curve, noise."""
    exposure = 255**2 * site.between(2.0, 3.6)
    gains = np.array([exposure * site.between(0.95, 1.05) for _ in reflectance], np.float32)
    image = np.sqrt(reflectance * gains[:, None, None]) + _noise(
        site, len(reflectance), 255 * site.between(0.002, 0.012)
    )
    return _whole(image, np.uint8)


def _measure(reflectance: np.ndarray, site: Site) -> np.ndarray:
    """Reflectance x 10,000, uint16 [size, size, bands], with noise."""
    return _whole(10_000 * (reflectance + _noise(site, len(reflectance), site.between(0.0005, 0.003))), np.uint16)


def _noise(site: Site, bands: int, deviation: float) -> np.ndarray:
    # Drawn last: it is the only draw whose count depends on the image size.
    return (site.rng.random((bands, site.size, site.size), np.float32) - 0.5) * (math.sqrt(12) * deviation)


def _whole(image: np.ndarray, dtype: type[np.unsignedinteger]) -> np.ndarray:
    """Rounded and clipped to a whole-number type, channels moved last."""
    rounded = np.minimum(np.maximum(image + 0.5, 0), np.iinfo(dtype).max)
    return np.ascontiguousarray(rounded.astype(dtype).transpose(1, 2, 0))


_DEVELOP = {"rgb": _display, "ms": _measure}
