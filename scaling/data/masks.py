"""Bytes to labels: PNG, TIFF and NPY files with a whole number, or a colour of a table, for every pixel.

Unlike pictures (`scaling.data.images`), whose palettes become colours and whose few bits become many, labels stay the
numbers that are stored: the index of a palette, 0 and 1 of one bit.
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
from scaling.data.images import CorruptImage

SUFFIXES = (".png", ".tif", ".tiff", ".npy")

Colour = tuple[int, int, int]

_GREY, _PALETTE = 0, 3  # colour types of PNG


@dataclasses.dataclass(frozen=True)
class ColourTable:
    """Which label each colour stands for.

    Attributes:
      labels: by (red, green, blue), 0 to 255 each.
    """

    labels: Mapping[Colour, int]

    @classmethod
    def of_classes(cls, colours: Sequence[str | Colour]) -> Self:
        """From the colours of classes 0, 1, …: triples, or as in HTML, `#3C1098`.

        Raises:
          UserError: one is not a colour, or stands for two classes.
        """
        return cls.of(dict(enumerate(colours)))

    @classmethod
    def of(cls, colours: Mapping[int, str | Colour]) -> Self:
        """From labels and their colours; otherwise as `of_classes`."""
        table: dict[Colour, int] = {}
        for label, colour in colours.items():
            triple = _triple(colour) if isinstance(colour, str) else colour
            if triple in table:
                raise UserError(f"colour {colour} stands for labels {table[triple]} and {label}; give each its own")
            table[triple] = label
        return cls(table)

    def index(self, image: np.ndarray) -> np.ndarray:
        """Labels of colours: uint8 [height, width, 3] -> int32 [height, width].

        Raises:
          ValueError: with the colours that are not in the table, and how often there are.
        """
        codes = image.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
        known = np.array([(r << 16) | (g << 8) | b for r, g, b in self.labels], np.int32)
        order = np.argsort(known)
        place = np.minimum(np.searchsorted(known[order], codes), len(known) - 1)
        labels = np.array(list(self.labels.values()), np.int32)[order][place]
        foreign = known[order][place] != codes
        if foreign.any():
            found, counts = np.unique(codes[foreign], return_counts=True)
            most = np.argsort(-counts, kind="stable")[:3]
            shown = ", ".join(f"#{found[i]:06X} ({counts[i]:,} pixels)" for i in most)
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            raise ValueError(f"has colours that are not in the table of colours: {shown}{more}")
        return labels


def _triple(text: str) -> Colour:
    if not re.fullmatch(r"#?[0-9a-fA-F]{6}", text):
        raise UserError(f"colour {text!r} is not written as in #3C1098")
    number = int(text.lstrip("#"), 16)
    return number >> 16, (number >> 8) & 255, number & 255


def decode_mask(data: bytes, name: str, colours: ColourTable | None = None) -> np.ndarray:
    """Decodes one file of labels.

    Args:
      data: the bytes of a PNG, TIFF or NPY file.
      name: what to call it in messages.
      colours: which labels its colours stand for, where it has three channels; a palette is not one of them.

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
    except Exception as error:  # codecs raise what they like
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


def _png(data: bytes) -> np.ndarray:
    depth, kind = data[24], data[25]
    if kind == _PALETTE:
        return np.asarray(Image.open(io.BytesIO(data)))  # the one that keeps the indices
    image = imagecodecs.png_decode(data)
    return image // np.uint8(255 // (2**depth - 1)) if kind == _GREY and depth < 8 else image


def _tiff(data: bytes) -> np.ndarray:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        series = file.series[0]
        image = series.asarray()
        return np.moveaxis(image, 0, -1) if image.ndim == 3 and series.axes.endswith("YX") else image


def _npy(data: bytes) -> np.ndarray:
    return np.load(io.BytesIO(data), allow_pickle=False)


_DECODERS = {
    b"\x89PNG": _png,
    b"II*\0": _tiff,
    b"MM\0*": _tiff,
    b"II+\0": _tiff,
    b"MM\0+": _tiff,
    b"\x93NUMPY": _npy,
}
