"""TIFF, JPEG, PNG and the other image formats, as pictures, as masks and as scenes read in parts."""

import io
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from scaling.core.errors import UserError
from scaling.data.images import CorruptImage, decode
from scaling.data.masks import decode_mask
from scaling.data.rasters import open_raster
from tests.drills.hostile.formats import Format
from tests.drills.mutation import mutated

_SECRET = 173  # pixels of a file that no input may reach


def _pixels(height: int = 24, width: int = 32, bands: int = 3, dtype: Any = np.uint8) -> np.ndarray:
    rows, columns, band = np.ogrid[:height, :width, :bands]
    return ((rows * 7 + columns * 3 + band * 50) % 251).astype(dtype)


def _saved(image: np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze()).save(buffer, kind, **options)
    return buffer.getvalue()


def _tiff(image: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image, **options)
    return buffer.getvalue()


def _tiffs() -> list[bytes]:
    colour, many = _pixels(), _pixels(bands=5, dtype=np.uint16)
    return [
        _tiff(colour, photometric="rgb"),
        _tiff(many, photometric="minisblack", compression="deflate", predictor=True),
        _tiff(many[..., 0].astype(np.float32), compression="lzw"),
        _tiff(np.moveaxis(many, 2, 0), photometric="minisblack", planarconfig="separate", tile=(16, 16)),
        _tiff(colour, photometric="rgb", compression="jpeg"),
        _tiff(colour[..., 0], bigtiff=True, compression="packbits", byteorder=">"),
        _tiff(many[..., 0], compression="zstd", extratags=[(42113, 2, 0, "-9999", True)]),
    ]


def _tag(name: int, kind: int, count: int, value: int) -> bytes:
    return struct.pack("<HHII", name, kind, count, value)


def _declared_tiff(width: int, height: int, count: int = 1, compression: int = 1) -> bytes:
    """A TIFF of a few bytes that declares a size."""
    tags = [
        _tag(256, 4, 1, width), _tag(257, 4, 1, height), _tag(258, 3, 1, 8), _tag(259, 3, 1, compression),
        _tag(262, 3, 1, 1), _tag(273, 4, count, 8), _tag(277, 3, 1, 1), _tag(278, 4, 1, height), _tag(279, 4, count, 4),
    ]  # fmt: skip
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(tags) + struct.pack("<I", 0)


def _crafted_tiffs() -> list[bytes]:
    loop = bytearray(_declared_tiff(8, 8))
    loop[-4:] = struct.pack("<I", 8)  # the next directory is this one
    return [
        _declared_tiff(200_000, 200_000),
        _declared_tiff(2**31 - 1, 2**31 - 1),
        _declared_tiff(100_000, 100_000, count=2**28),
        _declared_tiff(60_000, 60_000, compression=8),
        _declared_tiff(60_000, 60_000, compression=50000),
        bytes(loop),
        _tiff(_pixels(), extratags=[(34665, 4, 1, 8, True)]),
    ]


def _pngs() -> list[bytes]:
    colour = _pixels()
    return [
        _saved(colour, "PNG"),
        imagecodecs.png_encode(_pixels(bands=1, dtype=np.uint16)[..., 0]),
        _saved(_pixels(bands=4), "PNG"),
        _palette(),
        _saved(colour[..., 0] > 100, "PNG"),
    ]


def _palette() -> bytes:
    image = Image.fromarray(_pixels()[..., 0] % 4)
    image.putpalette(bytes(range(12)))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _declared_png(
    width: int, height: int, depth: int = 8, kind: int = 2, data: bytes = b"", more: bytes = b""
) -> bytes:
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + more + _chunk(b"IDAT", zlib.compress(data)) + _chunk(b"IEND", b"")


def _crafted_pngs() -> list[bytes]:
    zeros = bytes(1 << 24)
    text = _chunk(b"zTXt", b"a\0\0" + zlib.compress(zeros * 8, 9))
    profile = _chunk(b"iCCP", b"a\0\0" + zlib.compress(zeros * 8, 9))
    return [
        _declared_png(2**31 - 1, 2**31 - 1),
        _declared_png(60_000, 60_000, data=zeros),
        _declared_png(100_000, 100_000, depth=16, kind=6),
        _declared_png(8, 8, data=bytes(8 * 25), more=text * 20),
        _declared_png(8, 8, data=bytes(8 * 25), more=profile),
        _declared_png(40_000, 40_000, depth=8, kind=3, more=_chunk(b"PLTE", bytes(6))),
        _declared_png(8, 8, data=zeros),
    ]


def _with_checksums(data: bytes, rng: random.Random, others: tuple[bytes, ...]) -> bytes:
    """Changes of a PNG; in half of the cases of one chunk, whose checksum is made right again."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    if rng.random() < 0.5:
        return mutated(data, rng, others)
    which = rng.randrange(len(chunks) - 1)
    kind, content = chunks[which]
    if kind == b"IDAT" and rng.random() < 0.5:
        content = zlib.compress(mutated(zlib.decompress(content), rng))
    else:
        content = mutated(content, rng)
    chunks[which] = kind, content
    return data[:8] + b"".join(_chunk(*chunk) for chunk in chunks)


def _jpegs() -> list[bytes]:
    colour = _pixels()
    return [
        _saved(colour, "JPEG"),
        _saved(colour, "JPEG", progressive=True, subsampling=0),
        _saved(colour[..., :1], "JPEG", optimize=True),
        _saved_cmyk(),
        _saved(colour, "JPEG", restart_marker_rows=1, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
    ]


def _saved_cmyk() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(_pixels()).convert("CMYK").save(buffer, "JPEG")
    return buffer.getvalue()


def _crafted_jpegs() -> list[bytes]:
    return [_sized(data, 65_500, 65_500) for data in _jpegs()] + [_sized(data, 65_500, 1) for data in _jpegs()]


def _sized(data: bytes, height: int, width: int) -> bytes:
    """A JPEG whose frame declares another size."""
    for marker in (b"\xff\xc0", b"\xff\xc2"):
        at = data.find(marker)
        if at > 0:
            return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]
    return data


def _others() -> list[bytes]:
    colour, arrays = _pixels(), []
    for array in (colour, _pixels(bands=4, dtype=np.float32), colour[..., 0].astype(">i2")):
        buffer = io.BytesIO()
        np.save(buffer, array)
        arrays.append(buffer.getvalue())
    lossless = imagecodecs.jpeg2k_encode(_pixels(dtype=np.uint16), level=0)
    return [
        _saved(colour, "WEBP"), _saved(_pixels(bands=4), "WEBP", lossless=True), lossless,
        imagecodecs.jpeg2k_encode(colour, level=20, codecformat="j2k"), _saved(colour, "BMP"), *arrays,
    ]  # fmt: skip


def _crafted_others() -> list[bytes]:
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (300000, 300000), }"
    objects = "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    nested = "{'descr': " + "[" * 5000 + "]" * 5000 + ", 'fortran_order': False, 'shape': (1,), }"
    arrays = [b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text.encode() for text in (header, objects, nested)]
    bitmap = bytearray(_saved(_pixels(), "BMP"))
    bitmap[18:26] = struct.pack("<ii", 2**30, 2**30)
    boxed = bytearray(imagecodecs.jpeg2k_encode(_pixels(), level=0))
    at = boxed.find(b"\xff\x51")
    boxed[at + 6 : at + 14] = struct.pack(">II", 2**31, 2**31)
    tall = bytearray(boxed)
    tall[at + 6 : at + 14] = struct.pack(">II", 60_000, 60_000)
    return [*arrays, bytes(bitmap), bytes(boxed), bytes(tall)]


def _decoded(path: Path) -> str | None:
    """Reads a picture and, for the formats of masks, labels; what one of the readers refuses the other may read."""
    data, refused = path.read_bytes(), []
    for read in (decode, decode_mask):
        try:
            read(data, path.name)
        except CorruptImage as error:
            refused.append(error)
    if len(refused) == 2:
        raise max(refused, key=lambda error: "allocate" in str(error))
    return None


def _scenes() -> list[bytes]:
    import rasterio
    from rasterio.transform import from_origin

    files = []
    for bands, options in (
        (3, {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}),
        (4, {"compress": "lzw", "nodata": 0}),
        (2, {"compress": "zstd"}),
    ):
        with rasterio.MemoryFile() as memory:
            with memory.open(
                driver="GTiff", count=bands, dtype="uint16", height=24, width=32, crs="EPSG:32633",
                transform=from_origin(4e5, 5e6, 10, 10), **options,
            ) as file:  # fmt: skip
                file.write(np.moveaxis(_pixels(bands=bands, dtype=np.uint16), 2, 0))
            files.append(bytes(memory.getbuffer()))
    return [*files, imagecodecs.jpeg2k_encode(_pixels(), level=0)]


def _crafted_scenes() -> list[bytes]:
    """Files that name other files, under the ending of a picture."""
    band = '<VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename relativeToVRT="1">{}'
    band += "</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
    virtual = '<VRTDataset rasterXSize="32" rasterYSize="24">{}</VRTDataset>'
    python = (
        '<VRTRasterBand dataType="Byte" band="1" subClass="VRTDerivedRasterBand"><PixelFunctionLanguage>Python'
        "</PixelFunctionLanguage><PixelFunctionType>f</PixelFunctionType><PixelFunctionCode><![CDATA[import os\n"
        "def f(*a): os.system('true')\n]]></PixelFunctionCode></VRTRasterBand>"
    )
    service = "<GDAL_WMS><Service name='TMS'><ServerUrl>http://127.0.0.1:9/${z}</ServerUrl></Service></GDAL_WMS>"
    texts = [
        virtual.format(band.format(name)) for name in ("secret.png", "/vsicurl/http://127.0.0.1:9/x", "/etc/passwd")
    ]
    return [text.encode() for text in (*texts, virtual.format(python), service)] + [_declared_tiff(200_000, 200_000)]


def _scene(path: Path) -> str | None:
    secret = path.with_name("secret.png")
    if not secret.exists():
        secret.write_bytes(_saved(np.full((24, 32), _SECRET, np.uint8), "PNG"))
    try:
        with open_raster(str(path), 3) as raster:
            pixels, _ = raster.read(0, 0, min(raster.height, 64), min(raster.width, 64))
            raster.on_earth(np.array([[1.0, 2.0]]))
    except ImportError:
        raise UserError("needs rasterio") from None
    return "read another file" if pixels.size and (pixels == _SECRET).all() else None


FORMATS = (
    Format("tiff", "TIFF as picture and as mask", _tiffs, _decoded, _crafted_tiffs, suffix=".tif"),
    Format("jpeg", "JPEG", _jpegs, _decoded, _crafted_jpegs, suffix=".jpg"),
    Format("png", "PNG as picture and as mask", _pngs, _decoded, _crafted_pngs, _with_checksums, ".png"),
    Format("other_images", "WebP, JPEG 2000, BMP, NPY", _others, _decoded, _crafted_others, suffix=".img"),
    Format("scene", "GeoTIFF and JPEG 2000 read in parts by GDAL", _scenes, _scene, _crafted_scenes, suffix=".tif"),
)
