"""Decodes label files: PNG, TIFF and NPY with an integer, or a colour of a table, for every pixel.

Unlike pictures (`scaling.data.images`), where palettes become colours and one bit becomes 0 and 255, labels stay the
stored numbers: the index of a palette, 0 and 1 of one bit.
"""

import dataclasses
import io
import re
from collections.abc import Mapping, Sequence
from typing import Self

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from scaling.core.errors import UserError
from scaling.data.declared import array_of, check_declared, png_bytes, tiff_series
from scaling.data.images import CorruptImage

SUFFIXES = (".png", ".tif", ".tiff", ".npy")

Colour = tuple[int, int, int]

_GREY, _PALETTE = 0, 3  # colour types of PNG
_BLOCK_PIXELS = 1 << 20  # pixels looked up at once


@dataclasses.dataclass(frozen=True)
class ColourTable:
    """The label of each colour.

    Attributes:
      labels: label by (red, green, blue), 0 to 255 each.
      others: label of all other colours; None if other colours are an error.
      share: largest allowed share of pixels with other colours.
    """

    labels: Mapping[Colour, int]
    others: int | None = None
    share: float = 1.0

    @classmethod
    def of_classes(cls, colours: Sequence[str]) -> Self:
        """A table from the colours of classes 0, 1, …, written as in `colour_of`; for errors see `of`."""
        return cls.of(dict(enumerate(colours)))

    @classmethod
    def of(cls, colours: Mapping[int, str]) -> Self:
        """A table from labels and their colours.

        Raises:
          UserError: a value is not a colour, or one colour has two labels.
        """
        table: dict[Colour, int] = {}
        for label, text in colours.items():
            colour = colour_of(text)
            if colour in table:
                raise UserError(f"colour {text} stands for labels {table[colour]} and {label}; give each its own")
            table[colour] = label
        return cls(table)

    def index(self, image: np.ndarray) -> np.ndarray:
        """Labels of colours: uint8 [height, width, 3] -> int32 [height, width].

        Raises:
          ValueError: colours that are not in the table, with their numbers of pixels.
        """
        out, foreign = np.empty(image.shape[:2], np.int32), [np.zeros(0, np.int32)]
        rows = max(1, _BLOCK_PIXELS // image.shape[1])
        for top in range(0, len(image), rows):
            block = image[top : top + rows].astype(np.int32)
            codes = block[..., 0] << 16 | block[..., 1] << 8 | block[..., 2]
            labels, strange = out[top : top + rows], np.ones(codes.shape, bool)
            labels[:] = self.others or 0
            for (r, g, b), label in self.labels.items():
                there = codes == (r << 16 | g << 8 | b)
                np.copyto(labels, label, where=there)
                strange &= ~there
            foreign.append(codes[strange])
        others = np.concatenate(foreign)
        if len(others) > (0 if self.others is None else self.share * out.size):
            raise ValueError(f"has colours that are not in the table of colours: {_most_frequent(others)}")
        return out


def _most_frequent(codes: np.ndarray) -> str:
    found, counts = np.unique(codes, return_counts=True)
    shown = [f"#{found[i]:06X} ({counts[i]:,} pixels)" for i in np.argsort(-counts, kind="stable")[:3]]
    return ", ".join(shown) + (f" and {len(found) - 3} more" if len(found) > 3 else "")


def colour_of(text: str) -> Colour:
    """Red, green and blue of a colour written as in HTML, `#3C1098`, or without the #. Raises UserError."""
    if not re.fullmatch(r"#?[0-9a-fA-F]{6}", text):
        raise UserError(f"colour {text!r} is not written as in #3C1098")
    number = int(text.lstrip("#"), 16)
    return number >> 16, (number >> 8) & 255, number & 255


def decode_mask(data: bytes, name: str, colours: ColourTable | None = None) -> np.ndarray:
    """Decodes one file of labels.

    Args:
      data: the bytes of a PNG, TIFF or NPY file.
      name: name of the file in messages.
      colours: table for files with three channels; not used for a palette.

    Returns:
      Whole numbers [height, width].

    Raises:
      CorruptImage: damaged, of another format, with values that are not whole numbers, with channels and no table, or
        with colours that are not in it.
    """
    decoder = next((found for magic, found in _DECODERS.items() if data.startswith(magic)), None)
    if decoder is None:
        jpeg = data.startswith(b"\xff\xd8")
        why = "a JPEG, which changes labels; save it as PNG" if jpeg else "neither PNG, TIFF nor NPY"
        raise CorruptImage(name, why if data else "empty file")
    try:
        array = decoder(data)
    except Exception as error:  # codecs raise anything
        raise CorruptImage(name, " ".join(str(error).split()) or type(error).__name__) from error
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
        array = array[0] if array.shape[0] == 1 else array[..., 0]
    if array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8 and colours:
        try:
            return colours.index(array)
        except ValueError as error:
            raise CorruptImage(name, str(error)) from error
    if array.ndim == 3:
        remedy = "give the colour of each class, or save" if array.shape[2] == 3 else "save"
        raise CorruptImage(
            name, f"has {array.shape[2]} channels, not one label a pixel; {remedy} the labels as numbers"
        )
    if array.ndim != 2 or 0 in array.shape:
        raise CorruptImage(name, f"is of shape {list(array.shape)}, not [height, width]")
    if array.dtype.kind not in "bui":
        raise CorruptImage(name, f"has values of type {array.dtype}; save the labels as whole numbers")
    return array.astype(np.uint8) if array.dtype.kind == "b" else array


def without_zero(labels: np.ndarray, ignore: int) -> np.ndarray:
    """Labels counted from 0, of labels counted from 1; labels 0 and `ignore` become `ignore`."""
    wide = labels.astype(np.int64)
    return np.where((wide == 0) | (wide == ignore), ignore, wide - 1)


def _png(data: bytes) -> np.ndarray:
    check_declared(png_bytes(data), len(data))
    depth, kind = data[24], data[25]
    if kind == _PALETTE:
        return np.asarray(Image.open(io.BytesIO(data)))  # the decoder that keeps palette indices
    image = imagecodecs.png_decode(data)
    return image // np.uint8(255 // (2**depth - 1)) if kind == _GREY and depth < 8 else image


def _tiff(data: bytes) -> np.ndarray:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        series = tiff_series(file, len(data))
        image = series.asarray()
        return np.moveaxis(image, 0, -1) if image.ndim == 3 and series.axes.endswith("YX") else image


_DECODERS = {
    b"\x89PNG": _png,
    b"II*\0": _tiff,
    b"MM\0*": _tiff,
    b"II+\0": _tiff,
    b"MM\0+": _tiff,
    b"\x93NUMPY": array_of,
}
