"""Every file becomes [height, width, bands]; a damaged one says so by name."""

import io

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from scaling.data.images import CorruptImage, checked, decode
from scaling.data.masks import decode_mask
from tests.data.examples import jpeg, shared, smooth
from tests.drills.hostile import BY_NAME

RNG = np.random.default_rng(0)


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def tiff(image: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image, **options)
    return buffer.getvalue()


def npy(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, image)
    return buffer.getvalue()


@pytest.mark.parametrize("bands", [1, 3, 4, 12])
@pytest.mark.parametrize("kind", ["jp2", "j2k"])
def test_jpeg_2000_keeps_its_bands_and_depth(bands, kind):
    image = RNG.integers(0, 2**15, (24, 32, bands), dtype=np.uint16)
    data = imagecodecs.jpeg2k_encode(image.squeeze(), level=0, reversible=True, codecformat=kind)
    np.testing.assert_array_equal(decode(data, "a"), image)


@pytest.mark.parametrize(("mode", "bands"), [("L", 1), ("1", 1), ("P", 3), ("RGB", 3), ("RGBA", 3)])
def test_bmp_of_every_kind(mode, bands):
    image = Image.fromarray(smooth(2)).convert(mode)
    expected = np.asarray(image.convert("L" if bands == 1 else "RGB"))
    np.testing.assert_array_equal(decode(encoded(image, "BMP"), "a").squeeze(), expected)


@pytest.mark.parametrize("alpha", [False, True])
def test_webp_has_its_colours_without_alpha(alpha):
    image = Image.fromarray(smooth(2))
    if alpha:
        image.putalpha(255)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True)
    np.testing.assert_array_equal(decode(buffer.getvalue(), "a"), smooth(2))


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "u1", "<f4", ">f8"])
def test_an_array_is_an_image(dtype):
    image = RNG.integers(0, 200, (5, 6, 7)).astype(dtype)
    found = decode(npy(image), "a")
    np.testing.assert_array_equal(found, image)
    assert found.dtype == {"u2": np.uint16, "u1": np.uint8}.get(dtype[-2:], np.float32)
    np.testing.assert_array_equal(decode(npy(image[..., 0]), "a"), image[..., :1])


def test_jpeg_agrees_with_pillow():
    data = jpeg(smooth(0))
    theirs = np.asarray(Image.open(io.BytesIO(data))).astype(int)
    assert np.abs(decode(data, "a").astype(int) - theirs).max() <= 1


def test_grey_jpeg_has_one_band():
    assert decode(jpeg(smooth(0)[..., 0]), "a").shape == (40, 48, 1)


def test_cmyk_jpeg_becomes_rgb():
    image = smooth(1)
    found = decode(encoded(Image.fromarray(image).convert("CMYK"), "JPEG"), "a")
    assert found.shape == image.shape
    assert np.abs(found.astype(int) - image).mean() < 6


@pytest.mark.parametrize(("mode", "bands"), [("L", 1), ("1", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("RGBA", 3)])
def test_png_of_every_kind(mode, bands):
    image = Image.fromarray(smooth(2)).convert("RGBA" if mode != "LA" else "L").convert(mode)
    found = decode(encoded(image, "PNG"), "a")
    assert found.shape == (40, 48, bands)
    expected = np.asarray(image.convert("L" if bands == 1 else "RGB"))
    np.testing.assert_array_equal(found.squeeze(), expected)


def test_sixteen_bit_png_keeps_its_depth():
    image = RNG.integers(0, 2**16, (5, 6, 3), dtype=np.uint16)
    np.testing.assert_array_equal(decode(imagecodecs.png_encode(image), "a"), image)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("compression", [None, "lzw", "deflate"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_multi_band_tiff_round_trip(dtype, compression, planar):
    image = (RNG.random((9, 7, 5)) * 200).astype(dtype)
    stored = np.moveaxis(image, -1, 0) if planar == "separate" else image
    data = tiff(stored, planarconfig=planar, photometric="minisblack", compression=compression)
    found = decode(data, "a")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, image)


def test_tiff_with_one_page_per_band():
    image = RNG.integers(0, 9000, (4, 9, 7), dtype=np.uint16)
    np.testing.assert_array_equal(decode(tiff(image, photometric="minisblack"), "a"), np.moveaxis(image, 0, -1))


def test_signed_tiff_becomes_float():
    image = RNG.integers(-100, 100, (9, 7), dtype=np.int16)
    found = decode(tiff(image), "a")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[..., 0], image)


@pytest.mark.parametrize(
    "data",
    [
        jpeg(smooth(3))[:-2],
        jpeg(smooth(3))[:300],
        encoded(Image.fromarray(smooth(3)), "PNG")[:-40],
        tiff(smooth(3), compression="deflate")[:400],
        imagecodecs.jpeg2k_encode(smooth(3), level=0, reversible=True)[:-20],
        imagecodecs.webp_encode(smooth(3), lossless=True)[:-20],
        encoded(Image.fromarray(smooth(3)), "BMP")[:-20],
        npy(smooth(3))[:-20],
        npy(np.array([{}])),
        b"",
        b"GIF89a",
    ],
    ids=["jpeg without its end", "half a jpeg", "png", "tiff", "jp2", "webp", "bmp", "npy", "pickle", "empty", "gif"],
)
def test_damaged_file_is_named(data):
    with pytest.raises(CorruptImage, match=r"^forest/7\.jpg: ."):
        decode(data, "forest/7.jpg")


_TAG, _COUNT, _VALUE = (0, 2), (4, 4), (8, 4)  # first byte and length of the parts of an entry


def with_entry(data: bytes, tag: int, part: tuple[int, int], value: int) -> bytes:
    """A little-endian TIFF in whose first directory a part of the entry of a tag has another value."""
    directory, (first, size) = int.from_bytes(data[4:8], "little"), part
    count = int.from_bytes(data[directory : directory + 2], "little")
    entries = range(directory + 2, directory + 2 + 12 * count, 12)
    (at,) = (at + first for at in entries if int.from_bytes(data[at : at + 2], "little") == tag)
    return data[:at] + value.to_bytes(size, "little") + data[at + size :]


@pytest.mark.parametrize("read", [decode, decode_mask])
@pytest.mark.parametrize(
    "change",
    [
        lambda x: with_entry(x, 273, _VALUE, 10**6),
        lambda x: x[:-100],
        lambda x: with_entry(x, 273, _TAG, 0xFFFE),
        lambda x: with_entry(x, 273, _VALUE, 0),
    ],
    ids=["beyond the end", "cut short", "no place", "at zero"],
)
def test_a_tiff_whose_pixels_are_not_in_the_file_is_not_one_of_zeros(read, change):
    whole = tiff(smooth(1)[..., 0])
    assert read(whole, "a").any()
    with pytest.raises(CorruptImage, match="cut short, or does not say where all its pixels are"):
        read(change(whole), "a")


@pytest.mark.parametrize("read", [decode, decode_mask])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"compression": "zlib", "tile": (16, 16)}])
@pytest.mark.parametrize("lost", [(279, 325), (273, 324)], ids=["lengths", "offsets"])
def test_a_tiff_with_fewer_places_than_parts_is_refused_or_read_whole(read, options, lost):
    image = smooth(1)[..., 0]
    whole = tiff(image, rowsperstrip=8, **options) if "tile" not in options else tiff(image, **options)
    np.testing.assert_array_equal(np.squeeze(read(whole, "a")), image)
    try:
        found = read(with_entry(whole, lost["tile" in options], _COUNT, 2), "a")
    except CorruptImage as error:
        assert "does not say where all its pixels are" in str(error)  # noqa: PT017
        return
    assert not options  # pixels that lie one after the other are found by the place of the first
    np.testing.assert_array_equal(np.squeeze(found), image)


def test_a_stack_of_imagej_that_is_cut_short_does_not_lose_its_bands():
    whole = tiff(np.full((3, 32, 32), 5, np.uint8), imagej=True)
    assert decode(whole, "a").shape == (32, 32, 3)
    with pytest.raises(CorruptImage, match="is cut short"):
        decode(whole[:-1000], "a")


def test_a_last_strip_that_is_counted_as_a_whole_one_is_read():
    image = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    whole = bytearray(tiff(image, rowsperstrip=24))
    with tifffile.TiffFile(io.BytesIO(bytes(whole))) as file:
        tag = file.pages.first.tags[279]
    width = {3: 2, 4: 4, 16: 8}[int(tag.dtype)]
    at = tag.valueoffset + 2 * width
    assert int.from_bytes(whole[at : at + width], "little") == 16 * 128
    whole[at : at + width] = (24 * 128).to_bytes(width, "little")
    np.testing.assert_array_equal(decode(bytes(whole), "a")[..., 0], image)


@pytest.mark.parametrize("read", [decode, decode_mask])
def test_directories_of_a_tiff_that_lead_in_a_circle_end(read):
    """A case of the drills, whose circle tifffile would follow for ever."""
    with pytest.raises(CorruptImage, match="ZSTD"):
        read(BY_NAME["tiff"].content(2971), "a")


def test_a_jpeg_that_declares_more_than_it_can_hold_is_refused_behind_bytes_that_are_no_marker_too():
    """Decoders skip such bytes, and would allocate what is declared behind them."""
    small = jpeg(smooth(3))
    frame = small.index(b"\xff\xc0")
    large = small[: frame + 5] + b"\xff\xdc\xff\xdc" + small[frame + 9 :]
    for data in (large, large[:2] + b"\0\1\2" + large[2:], large[:frame] + b"\xff\0" + large[frame:]):
        with pytest.raises(CorruptImage, match=r"declares 12\.0 GiB of pixels"):
            decode(data, "a")


def test_pixels_that_are_not_finite_are_corrupt():
    image = np.ones((8, 8, 2), np.float32)
    image[3, 3, 1] = np.nan
    with pytest.raises(CorruptImage, match="not finite"):
        decode(tiff(image, photometric="minisblack"), "a")


@pytest.mark.parametrize(
    ("layer", "bands"), [("S2L2A", 12), ("S2L1C", 13), ("S1RTC", 2), ("DEM", 1), ("NDVI", 1), ("S2RGB", 3)]
)
def test_real_multi_band_tiffs(layer, bands):
    files = sorted(shared(f"terramesh/{layer}").glob("*.tif"))
    assert [decode(file.read_bytes(), file.name).shape for file in files] == [(224, 224, bands)] * 5


def declared(image: np.ndarray, nodata: str) -> bytes:
    """A TIFF with GDAL's tag for pixels that were not measured."""
    return tiff(image, photometric="minisblack", extratags=[(42113, "s", 0, nodata, True)])


@pytest.mark.parametrize(
    ("dtype", "value", "nodata"),
    [
        (np.int16, -9999, "-9999"),
        (np.int16, -32768, "-32768"),
        (np.int32, -2147483648, "-2147483648"),
        (np.float32, -9999, "-9999"),
        (np.float32, np.finfo(np.float32).min, "-3.4028234663852886e+38"),
        (np.float64, -1.5, "-1.5 "),
        (np.uint16, 65535, "65535"),
    ],
)
def test_pixels_of_the_declared_nodata_value_are_not_pixels(dtype, value, nodata):
    image = np.arange(64).reshape(8, 8).astype(dtype)
    assert decode(declared(image, nodata), "a").shape == (8, 8, 1)
    image[2, 3] = value
    with pytest.raises(CorruptImage, match=r"^a: has pixels of the declared nodata value -?[\d.e+]+; fill them"):
        decode(declared(image, nodata), "a")


@pytest.mark.parametrize(
    ("dtype", "nodata"), [(np.uint8, "0"), (np.uint8, "3"), (np.uint16, "0"), (np.uint16, "-9999")]
)
def test_a_declared_value_that_is_drawn_too_stays(dtype, nodata):
    image = np.arange(64).reshape(8, 8).astype(dtype)
    np.testing.assert_array_equal(decode(declared(image, nodata), "a")[..., 0], image)


@pytest.mark.parametrize("nodata", ["nan", "none", ""])
def test_nodata_that_is_no_number_changes_nothing(nodata):
    image = np.ones((8, 8), np.float32)
    np.testing.assert_array_equal(decode(declared(image, nodata), "a")[..., 0], image)


@pytest.mark.parametrize("value", [-3.4028235e38, 1e35, np.inf, 1e300])
def test_absurd_values_are_not_pixels(value):
    image = np.ones((8, 8), np.float64)
    image[0, 0] = value
    with pytest.raises(CorruptImage, match=r"has pixels .*fill them"):
        decode(tiff(image), "a")


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_complex_pixels_are_not_cut_to_their_real_part(dtype):
    with pytest.raises(
        CorruptImage, match=r"has pixels of type complex\d+; store amplitude, or real and imaginary part"
    ):
        decode(tiff(np.ones((8, 8), dtype)), "a")
    with pytest.raises(CorruptImage, match="complex"):
        checked(np.ones((8, 8, 2), dtype), "a")
