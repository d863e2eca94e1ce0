"""Decodes image files and arrays, recognised by their first bytes, to [height, width, bands].

Pixels stay as they are stored. EXIF orientation is ignored: an image taken from above has no upright.
"""

import io
from collections.abc import Callable

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from scaling.data.declared import array_of, check_declared, jpeg_bytes, png_bytes, tiff_series

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".jp2", ".j2k", ".webp", ".bmp")
ARRAY = ".npy"  # an image too, unless pictures are beside it
KINDS = "GeoTIFF, PNG, JPEG, JPEG 2000, WebP, BMP or .npy"

# Dtypes that a batch holds without loss; all others become float32.
DTYPES = (np.uint8, np.uint16, np.float32)

# Larger than any measurement: fill values such as -3.4e38 are as large.
_ABSURD = 1e30
_GDAL_NODATA = 42113  # the TIFF tag for GDAL's nodata value


class CorruptImage(Exception):  # noqa: N818  a state of the data
    """An image that cannot be used: its `name` and the `reason`. The pipeline replaces it by the next readable one."""

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def decode(data: bytes, name: str) -> np.ndarray:
    """Decodes one image file.

    Palettes become colours, CMYK becomes RGB, the alpha channel of a PNG or WebP is dropped (a TIFF or JPEG 2000 keeps
    all its samples: the fourth is often near infrared). Grey images have one band. A .npy file holds [height, width] or
    [height, width, bands].

    Pixels with the nodata value that a TIFF declares (-9999, -32768 …) make an image unusable, as NaN does. A declared
    0 or an 8-bit value is ignored: it is as often a black border or white.

    Args:
      data: the bytes of a JPEG, PNG, (Big)TIFF, JPEG 2000, WebP, BMP or .npy file.
      name: name of the image in messages.

    Returns:
      [height, width, bands], uint8, uint16 or float32.

    Raises:
      CorruptImage: truncated, damaged, of another format, complex, or with pixels that are not finite or not measured.
    """
    return checked(samples(data, name), name)


def samples(data: bytes, name: str) -> np.ndarray:
    """The image as `decode` gives it, but of the dtype that it is stored with. Arguments and errors as of `decode`."""
    decoder = next((found for magic, found in _DECODERS.items() if data.startswith(magic)), None)
    if decoder is None:
        raise CorruptImage(name, "empty file" if not data else f"not a {KINDS} file")
    try:
        return decoder(data)
    except Exception as error:  # codecs raise anything; damaged bytes must never end a run
        raise CorruptImage(name, " ".join(str(error).split()) or type(error).__name__) from error


def is_picture(start: bytes) -> bool:
    """Whether a file is one of those that are decoded here, by its first twelve bytes."""
    return start.startswith(tuple(_DECODERS))


def pixels_of(stored: bytes | np.ndarray, name: str) -> np.ndarray:
    """Decodes an image file, checks an array: [height, width, bands]. Raises CorruptImage."""
    return decode(stored, name) if isinstance(stored, bytes) else checked(stored, name)


def checked(image: np.ndarray, name: str) -> np.ndarray:
    """The image as [height, width, bands] of one of `DTYPES`; raises CorruptImage for NaN or values beyond 1e30."""
    image = image[..., None] if image.ndim == 2 else image
    if image.ndim != 3 or 0 in image.shape:
        raise CorruptImage(name, f"of shape {list(image.shape)}, not [height, width, bands]")
    if image.dtype in DTYPES and image.dtype.kind == "u":
        return image
    if image.dtype.kind not in "buif":
        remedy = "; store amplitude, or real and imaginary part, as bands" if image.dtype.kind == "c" else ""
        raise CorruptImage(name, f"has pixels of type {image.dtype}{remedy}")
    with np.errstate(over="ignore"):
        image = image.astype(np.float32, copy=False)
    if not (np.abs(image) < _ABSURD).all():
        what = f"as large as {np.abs(image).max():.3g}" if np.isfinite(image).all() else "that are not finite"
        raise CorruptImage(name, f"has pixels {what}; fill them, or leave the image out")
    return image


def _jpeg(data: bytes) -> np.ndarray:
    check_declared(jpeg_bytes(data), len(data))
    # imagecodecs fills missing rows of a truncated file with grey, Pillow raises. An end marker means the file is
    # whole.
    if b"\xff\xd9" in data[-64:]:
        image = imagecodecs.jpeg8_decode(data)
        if image.ndim == 2 or image.shape[2] == 3:
            return image
    opened = Image.open(io.BytesIO(data))
    return np.asarray(opened if opened.mode in ("L", "RGB") else opened.convert("RGB"))


def _png(data: bytes) -> np.ndarray:
    check_declared(png_bytes(data), len(data))
    return _without_alpha(imagecodecs.png_decode(data))


def _webp(data: bytes) -> np.ndarray:
    return _without_alpha(imagecodecs.webp_decode(data))


def _without_alpha(image: np.ndarray) -> np.ndarray:
    with_alpha = image.ndim == 3 and image.shape[2] in (2, 4)
    return image[..., :-1] if with_alpha else image


def _bmp(data: bytes) -> np.ndarray:
    opened = Image.open(io.BytesIO(data))
    return np.asarray(opened.convert("L" if opened.mode in ("1", "L") else "RGB"))


def _npy(data: bytes) -> np.ndarray:
    image = array_of(data)
    return image.astype(image.dtype.newbyteorder("="), copy=False)


def _tiff(data: bytes) -> np.ndarray:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        series = tiff_series(file, len(data))
        image, axes = series.asarray(), series.axes
        _check_measured(image, file.pages.first.tags.valueof(_GDAL_NODATA))
        palette = file.pages.first.colormap
        if palette is not None:
            table = np.asarray(palette)  # [3, entries], 16 bits per colour
            return (table.T[image] >> 8).astype(np.uint8)
    if image.ndim == 3 and axes.endswith("YX"):  # planar samples, or one page per band
        image = np.moveaxis(image, 0, -1)
    return image


def _check_measured(image: np.ndarray, declared: str | None) -> None:
    """Raises ValueError if a pixel has the declared nodata value."""
    try:
        value = float(declared or 0)
    except ValueError:
        return
    if value and image.dtype.itemsize > 1 and (image == value).any():
        raise ValueError(f"has pixels of the declared nodata value {value:g}; fill them, or leave the image out")


_DECODERS: dict[bytes, Callable[[bytes], np.ndarray]] = {
    b"\xff\xd8": _jpeg,
    b"\x89PNG": _png,
    b"II*\0": _tiff,
    b"MM\0*": _tiff,
    b"II+\0": _tiff,
    b"MM\0+": _tiff,
    b"\0\0\0\x0cjP  \r\n": imagecodecs.jpeg2k_decode,
    b"\xff\x4f\xff\x51": imagecodecs.jpeg2k_decode,
    b"RIFF": _webp,
    b"BM": _bmp,
    b"\x93NUMPY": _npy,
}
