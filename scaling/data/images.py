"""Bytes to pixels: JPEG, PNG and TIFF, told apart by their first bytes, always as [height, width, bands]."""

import io
from collections.abc import Callable

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")

# What a batch can hold without loss; everything else becomes float32.
DTYPES = (np.uint8, np.uint16, np.float32)


class CorruptImage(Exception):  # noqa: N818  a state of the data
    """An image that cannot be used: its `name` and the `reason`. The pipeline replaces it by the next readable one."""

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def decode(data: bytes, name: str) -> np.ndarray:
    """Decodes one image file.

    Palettes become colours, CMYK becomes RGB, the alpha channel of a PNG is dropped (a TIFF keeps all its samples: the
    fourth is often near infrared). Grey images have one band.

    Args:
      data: the bytes of a JPEG, PNG or (Big)TIFF file.
      name: what to call the image in messages.

    Returns:
      [height, width, bands], uint8, uint16 or float32.

    Raises:
      CorruptImage: truncated, damaged, of another format, or with pixels that are not finite.
    """
    decoder = next((found for magic, found in _DECODERS.items() if data.startswith(magic)), None)
    if decoder is None:
        raise CorruptImage(name, "empty file" if not data else "neither JPEG, PNG nor TIFF")
    try:
        image = decoder(data)
    except Exception as error:  # codecs raise what they like; damaged bytes must never end a run
        raise CorruptImage(name, str(error) or type(error).__name__) from error
    return checked(image, name)


def pixels_of(stored: bytes | np.ndarray, name: str) -> np.ndarray:
    """Decodes an image file, checks an array: [height, width, bands]. Raises CorruptImage."""
    return decode(stored, name) if isinstance(stored, bytes) else checked(stored, name)


def checked(image: np.ndarray, name: str) -> np.ndarray:
    """The image as [height, width, bands] of one of `DTYPES`; raises CorruptImage if a pixel is NaN or infinite."""
    image = image[..., None] if image.ndim == 2 else image
    if image.ndim != 3 or 0 in image.shape:
        raise CorruptImage(name, f"of shape {list(image.shape)}, not [height, width, bands]")
    if image.dtype in DTYPES and image.dtype.kind == "u":
        return image
    image = image.astype(np.float32, copy=False)
    if not np.isfinite(image).all():
        raise CorruptImage(name, "has pixels that are not finite")
    return image


def _jpeg(data: bytes) -> np.ndarray:
    # imagecodecs fills the missing rows of a truncated file with grey; Pillow notices. An end marker settles it.
    if b"\xff\xd9" in data[-64:]:
        image = imagecodecs.jpeg8_decode(data)
        if image.ndim == 2 or image.shape[2] == 3:
            return image
    opened = Image.open(io.BytesIO(data))
    return np.asarray(opened if opened.mode in ("L", "RGB") else opened.convert("RGB"))


def _png(data: bytes) -> np.ndarray:
    image = imagecodecs.png_decode(data)
    with_alpha = image.ndim == 3 and image.shape[2] in (2, 4)
    return image[..., :-1] if with_alpha else image


def _tiff(data: bytes) -> np.ndarray:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        series = file.series[0]
        image, axes = series.asarray(), series.axes
        palette = file.pages.first.colormap
        if palette is not None:
            table = np.asarray(palette)  # [3, entries], 16 bits per colour
            return (table.T[image] >> 8).astype(np.uint8)
    if image.ndim == 3 and axes.endswith("YX"):  # planar samples, or one page per band
        image = np.moveaxis(image, 0, -1)
    return image


_DECODERS: dict[bytes, Callable[[bytes], np.ndarray]] = {
    b"\xff\xd8": _jpeg,
    b"\x89PNG": _png,
    b"II*\0": _tiff,
    b"MM\0*": _tiff,
    b"II+\0": _tiff,
    b"MM\0+": _tiff,
}
