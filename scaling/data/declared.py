"""Sizes that image files declare, checked before memory is allocated for them: few bytes can declare terabytes.

Decoders allocate the declared size first and find out then that the pixels are not there.
"""

import io
import math
import struct
from typing import Any

import numpy as np
import tifffile

_FREE = 1 << 29  # bytes of pixels that any file may declare
_TIMES = 1100  # bytes of pixels per byte of a larger file: deflate reaches 1032, JPEG about as much
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type of PNG
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # markers of JPEG before a size
_ALONE = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})  # markers of JPEG without content


def check_declared(pixels: int, stored: int) -> None:
    """Raises ValueError if a file of `stored` bytes cannot hold as many bytes of pixels as it declares."""
    if pixels > max(_FREE, _TIMES * stored):
        raise ValueError(f"declares {pixels / 2**30:,.1f} GiB of pixels, which {stored:,} bytes cannot hold")


def png_bytes(data: bytes) -> int:
    """Bytes of pixels that the header of a PNG declares; 0 if it is cut short."""
    if len(data) < 26:
        return 0
    width, height, depth, kind = struct.unpack(">IIBB", data[16:26])
    return int(width) * height * _CHANNELS.get(kind, 4) * depth // 8


def jpeg_bytes(data: bytes) -> int:
    """Bytes of pixels that the first frame of a JPEG declares; 0 if there is none."""
    at = 2
    while at >= 0 and at + 9 < len(data):
        marker = data[at + 1]
        if marker in _FRAMES:
            height, width, channels = struct.unpack(">HHB", data[at + 5 : at + 10])
            return int(height) * width * channels
        if marker == 0xFF or marker in _ALONE:
            at += 1 if marker == 0xFF else 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        at = data.find(b"\xff", at)  # decoders look for the next marker behind bytes that are none
    return 0


def tiff_series(file: tifffile.TiffFile, stored: int) -> tifffile.TiffPageSeries:
    """The first image of a TIFF of `stored` bytes. Raises ValueError for one whose pixels are not all in the file, for
    which tifffile returns zeros, and for more pixels than the file can hold. Parts of an image that a file leaves out
    on purpose, with offset and length 0, are zeros.
    """
    len(file.pages)  # finds directories that lead back to an earlier one; `series` would follow them for ever
    series = file.series[0]
    check_declared(series.size * series.dtype.itemsize, stored)
    planes = (file.imagej_metadata or {}).get("images", 1) if file.is_imagej else 1
    there = series.size // max(series.keyframe.size, 1)
    if planes > there or not all(page is not None and _is_whole(page, stored) for page in series.pages):
        raise ValueError("is cut short, or does not say where all its pixels are")
    return series


def _is_whole(page: tifffile.TiffPage | tifffile.TiffFrame, stored: int) -> bool:
    """Whether every strip or tile of a page is in a file of `stored` bytes."""
    offsets, lengths = page.dataoffsets, page.databytecounts
    keyframe: Any = page.keyframe
    if not offsets or any(size and not 0 < at < stored for at, size in zip(offsets, lengths, strict=False)):
        return False
    plain = keyframe.compression == 1
    if plain and keyframe.is_contiguous:
        return bool(offsets[0] + keyframe.nbytes <= stored)
    parts = math.prod(keyframe.chunked)
    if min(len(offsets), len(lengths)) < parts:
        return False
    needed = list(lengths[:parts])
    if plain and not keyframe.is_tiled:  # some programs count the last strip as a whole one
        size, height = keyframe.rowsperstrip, keyframe.imagelength
        row = keyframe.nbytes // height // (keyframe.samplesperpixel if keyframe.planarconfig == 2 else 1)
        strips = -(-height // size)
        needed = [min(n, row * min(size, height - i % strips * size)) for i, n in enumerate(needed)]
    return all(at + size <= stored for at, size in zip(offsets, needed, strict=False))


def array_of(data: bytes) -> np.ndarray:
    """The array of a .npy file. Raises ValueError for a damaged one, one cut short, or one of Python objects."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if math.prod(shape) * dtype.itemsize > len(data):
        raise ValueError("is cut short")
    return np.load(io.BytesIO(data), allow_pickle=False)
