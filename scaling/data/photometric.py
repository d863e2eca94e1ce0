"""Random changes of brightness and colour of a training image, in place; its geometry is unchanged.

Every change is made with probability 1/2, with a strength drawn from the example's `draws` 26 to 30.
"""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

_FIRST = 26


def none(image: np.ndarray, u: Sequence[float]) -> None:
    """Leaves the image unchanged."""


def rgb(image: np.ndarray, u: Sequence[float]) -> None:
    """mmsegmentation's `PhotoMetricDistortion` of an image uint8 [height, width, 3] of red, green and blue.

    Brightness by -32 to 32; contrast by 0.5 to 1.5 before or after saturation by 0.5 to 1.5 and hue by -18 to 17 of
    180; clipped and cast to 8 bits after each. Hue and saturation are changed in Pillow's HSV, whose hue has 256 steps
    where OpenCV's has 180.
    """
    brightness, first, contrast, saturation, hue = u[_FIRST : _FIRST + 5]
    if (shift := _of(brightness)) is not None:
        _write(image, image + np.float32(64 * shift - 32))
    if first < 0.5:
        _contrast(image, contrast)
    _hue_and_saturation(image, _of(hue), _of(saturation))
    if first >= 0.5:
        _contrast(image, contrast)


def bands(image: np.ndarray, u: Sequence[float]) -> None:
    """Changes an image [height, width, any bands]: contrast about the mean of each band by 0.5 to 1.5, brightness by
    -0.5 to 0.5 of its standard deviation, with the same two factors in all bands. Apart from rounding this preserves
    the correlations between bands, but neither their differences nor their ratios.
    """
    shift, contrast = _of(u[_FIRST]), _of(u[_FIRST + 2])
    if shift is None and contrast is None:
        return
    values = image.astype(np.float32)
    mean, deviation = values.mean((0, 1)), values.std((0, 1))
    factor = 1 if contrast is None else 0.5 + contrast
    _write(image, (values - mean) * factor + mean + (0 if shift is None else shift - 0.5) * deviation)


def _of(u: float) -> float | None:
    """A number in [0, 1), or None half of the time."""
    return 2 * u if u < 0.5 else None


def _contrast(image: np.ndarray, u: float) -> None:
    if (factor := _of(u)) is not None:
        _write(image, image * np.float32(0.5 + factor))


def _hue_and_saturation(image: np.ndarray, hue: float | None, saturation: float | None) -> None:
    if hue is None and saturation is None:
        return
    hsv = np.array(Image.fromarray(np.ascontiguousarray(image)).convert("HSV"))
    if saturation is not None:
        _write(hsv[..., 1], hsv[..., 1] * np.float32(0.5 + saturation))
    if hue is not None:
        hsv[..., 0] += np.uint8(round((int(36 * hue) - 18) * 256 / 180) % 256)  # hue is cyclic
    image[...] = np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))


def _write(image: np.ndarray, values: np.ndarray) -> None:
    """Clips and casts to the dtype of the image; 8-bit values are truncated as in the published code."""
    image[...] = np.clip(values, 0, 255) if image.dtype == np.uint8 else values


PHOTOMETRIC: dict[str, Callable[[np.ndarray, Sequence[float]], None]] = {"none": none, "rgb": rgb, "bands": bands}
