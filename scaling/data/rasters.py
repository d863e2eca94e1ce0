"""Images of any size, read in parts, and maps of classes of the same size, written row by row.

A GeoTIFF or JPEG 2000 is read a few rows of blocks at a time, with rasterio (the extra `geo`); its map is a GeoTIFF
with the same transform, coordinate reference system and control points. Other images are decoded whole.
"""

import contextlib
import os
import warnings
from collections.abc import Iterator
from typing import Any, Protocol, Self

import imagecodecs
import numpy as np
from etils import epath
from PIL import Image

from scaling.core.errors import UserError
from scaling.core.files import in_bucket, whole_file
from scaling.data.declared import check_declared
from scaling.data.images import KINDS, CorruptImage, checked, is_picture, samples
from scaling.data.legend import Legend

_WITH_PLACE = (".tif", ".tiff", ".jp2", ".j2k")
_CACHE = 64  # megabytes for GDAL's cache of blocks, which by default is a share of all memory
_BLOCK = 256  # pixels along each side of a block of a written map


class Raster(Protocol):
    """An image file, open within its context.

    Attributes:
      ending: ending of the file of its map.
      height, width, bands: size of the image.
      names: names of its bands; () if unknown.
      dtype: dtype of the stored pixels.
      masked: whether some pixels may be nodata.
    """

    ending: str
    height: int
    width: int
    bands: int
    names: tuple[str, ...]
    dtype: np.dtype
    masked: bool

    def __enter__(self) -> Self: ...

    def __exit__(self, *raised: Any) -> None: ...

    def read(self, top: int, left: int, bottom: int, right: int) -> tuple[np.ndarray, np.ndarray | None]:
        """A part of the image: pixels [h, w, bands], uint8, uint16 or float32, and bool of the same shape, true for
        measured values; None instead if the image is not `masked`.
        """

    def on_earth(self, points: np.ndarray) -> np.ndarray | None:
        """Longitudes and latitudes in degrees (WGS 84) [..., 2] of points (x, y) in pixels [..., 2]; not finite if
        undefined, and None if the location of the image is unknown.
        """

    def written(
        self, path: epath.PathLike, legend: Legend, coloured: bool = True
    ) -> contextlib.AbstractContextManager["MapWriter"]:
        """A writer of a map of this size, complete at the end or absent; `coloured` adds the colours of a legend."""


class MapWriter(Protocol):
    """Receives the labels of an image, row by row."""

    def add(self, top: int, labels: np.ndarray) -> None:
        """Labels [rows, width] of the type of the legend, from row `top`."""


@contextlib.contextmanager
def small_cache() -> Iterator[None]:
    """Context in which GDAL, if installed, caches few blocks of the images that it reads and writes."""
    with contextlib.ExitStack() as leaving:
        with contextlib.suppress(ImportError):
            import rasterio

            leaving.enter_context(rasterio.Env(GDAL_CACHEMAX=_CACHE))
        yield


def open_raster(path: str, takes: int) -> Raster:
    """Opens an image.

    Args:
      path: path of a local GeoTIFF or JPEG 2000, or of another image (`scaling.data.images`), local or in a bucket.
      takes: number of bands wanted. If a TIFF has exactly that many, its alpha channel is one of them, else a mask of
        the measured pixels; a grey picture is repeated as three colours.

    Raises:
      UserError: the image cannot be read, or its pixels are not measurements.
      ImportError: a TIFF or JPEG 2000, without rasterio.
    """
    return GeoRaster(path, takes) if path.lower().endswith(_WITH_PLACE) else Picture(path, takes)


class Picture:
    """An image without a location; see `Raster`."""

    ending = ".png"
    names: tuple[str, ...] = ()
    masked = False

    def __init__(self, path: str, takes: int):
        try:
            stored = samples(epath.Path(path).read_bytes(), path)
            image = checked(stored, path)
        except OSError as e:
            raise UserError(f"{path}: cannot be read ({e.strerror or e}); make it readable, or remove it") from e
        except CorruptImage as e:
            raise UserError(f"{e}; repair the file, or remove it") from e
        grey = image.shape[2] == 1 and takes == 3 and image.dtype == np.uint8
        self._image = np.repeat(image, 3, axis=2) if grey else image
        (self.height, self.width, self.bands), self.dtype = self._image.shape, stored.dtype

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: Any) -> None:
        pass

    def read(self, top: int, left: int, bottom: int, right: int) -> tuple[np.ndarray, np.ndarray | None]:
        return self._image[top:bottom, left:right], None

    def on_earth(self, points: np.ndarray) -> None:
        """See `Raster`."""

    @contextlib.contextmanager
    def written(self, path: epath.PathLike, legend: Legend, coloured: bool = True) -> Iterator[MapWriter]:
        """A PNG of labels, with a palette if they have 8 bits."""
        rows = _Rows(np.full((self.height, self.width), legend.ignore, legend.dtype))
        yield rows
        write_png(path, rows.labels, legend if coloured else None)


class _Rows:
    def __init__(self, labels: np.ndarray):
        self.labels = labels

    def add(self, top: int, labels: np.ndarray) -> None:
        self.labels[top : top + len(labels)] = labels


def write_png(path: epath.PathLike, labels: np.ndarray, legend: Legend | None = None) -> None:
    """Writes labels as a PNG, whole or not at all: 8 bits, with the palette of a legend if given, or 16."""
    with whole_file(path) as aside:
        if legend is None or labels.dtype != np.uint8:
            aside.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(labels)))
            return
        image = Image.fromarray(labels)
        image.putpalette(legend.painted(np.arange(256)).tobytes())
        image.save(aside, "PNG", bits=8)


class GeoRaster:
    """A TIFF or JPEG 2000, with or without a location; see `Raster`."""

    ending = ".tif"

    def __init__(self, path: str, takes: int):
        if in_bucket(path):
            raise UserError(f"{path}: a TIFF or JPEG 2000 must be a local file; copy it here")
        try:
            _check_beginning(path)
            self._file = _opened(path)
            self._describe(path, takes)
        except (UserError, ImportError):
            raise
        except Exception as e:  # GDAL's own errors have no common type
            raise _unreadable(path, e) from e

    def _describe(self, path: str, takes: int) -> None:
        from rasterio.enums import ColorInterp, MaskFlags

        file = self._file
        alpha = [what == ColorInterp.alpha for what in file.colorinterp]
        taken = file.count == takes  # with the alpha channel, which may be near infrared under a wrong name
        self._bands = [band for band, is_alpha in zip(file.indexes, alpha, strict=True) if taken or not is_alpha]
        flags = {flag for band in self._bands for flag in file.mask_flag_enums[band - 1]} - {MaskFlags.all_valid}
        self._masks = bool(flags) and not (taken and any(alpha) and MaskFlags.alpha in flags)
        self._check(path, ColorInterp.palette in file.colorinterp)
        self.height, self.width, self.bands = file.height, file.width, len(self._bands)
        described = [file.descriptions[band - 1] or "" for band in self._bands]
        self.names = tuple(described) if all(described) else ()
        self.dtype = np.dtype(file.dtypes[self._bands[0] - 1])
        for height, width in file.block_shapes:  # GDAL allocates a block whole
            check_declared(height * width * self.dtype.itemsize, os.path.getsize(path))
        self.masked = self._masks or self.dtype.kind == "f"

    def _check(self, path: str, palette: bool) -> None:
        dtypes = {self._file.dtypes[band - 1] for band in self._bands}
        if palette:
            raise UserError(f"{path}: its pixels are indices of a palette; give an image with bands")
        if len(dtypes) > 1 or any(np.dtype(name).kind not in "uif" for name in dtypes):
            raise UserError(f"{path}: has pixels of type {', '.join(sorted(dtypes))}; give whole or real numbers")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: Any) -> None:
        self._file.close()

    def read(self, top: int, left: int, bottom: int, right: int) -> tuple[np.ndarray, np.ndarray | None]:
        from rasterio.windows import Window

        window = Window(left, top, right - left, bottom - top)
        try:
            pixels = np.moveaxis(self._file.read(self._bands, window=window), 0, 2)
            masks = np.moveaxis(self._file.read_masks(self._bands, window=window), 0, 2) if self._masks else None
        except Exception as e:  # see above
            raise _unreadable(self._file.name, e) from e
        measured = None if masks is None else masks > 0
        if self.dtype.kind == "f":
            measured = np.isfinite(pixels) if measured is None else measured & np.isfinite(pixels)
        return pixels if pixels.dtype in (np.uint8, np.uint16) else pixels.astype(np.float32), measured

    def on_earth(self, points: np.ndarray) -> np.ndarray | None:
        """Coordinates by the transform and coordinate reference system; control points alone do not define a
        location.
        """
        from rasterio.warp import transform

        source = self._file
        if source.crs is None or source.transform.is_identity:
            return None
        place, x, y = source.transform, points[..., 0].ravel(), points[..., 1].ravel()
        east, north = place.a * x + place.b * y + place.c, place.d * x + place.e * y + place.f
        try:
            degrees = transform(source.crs, "EPSG:4326", east, north)
        except Exception as e:  # see above
            raise _unreadable(source.name, e) from e
        return np.stack([np.asarray(axis) for axis in degrees], axis=-1).reshape(points.shape)

    @contextlib.contextmanager
    def written(self, path: epath.PathLike, legend: Legend, coloured: bool = True) -> Iterator[MapWriter]:
        """A compressed GeoTIFF of one band with the same transform, a colour table and the names of the classes."""
        source = self._file
        profile = {
            "driver": "GTiff", "count": 1, "dtype": legend.dtype.name, "height": self.height, "width": self.width,
            "nodata": legend.ignore, "crs": source.crs, "transform": source.transform, "compress": "deflate",
            "tiled": True, "blockxsize": _BLOCK, "blockysize": _BLOCK, "BIGTIFF": "IF_SAFER",
        }  # fmt: skip
        table = {label: (*colour, 255) for label, colour in enumerate(legend.colours.tolist())}
        with whole_file(path) as aside, _opened(aside, "w", **profile) as file:
            points, crs = source.gcps
            if points:
                file.gcps = points, crs
            if source.rpcs:
                file.rpcs = source.rpcs
            if coloured:
                file.write_colormap(1, {**table, legend.ignore: (0, 0, 0, 0)})
            file.update_tags(1, **{f"CLASS_{i}": name for i, name in enumerate(legend.classes)})
            yield _GeoRows(file)


def _check_beginning(path: str) -> None:
    """Raises UserError for a file that is not a picture: GDAL would open a description of other files and servers too,
    whatever the ending.
    """
    with open(path, "rb") as file:
        start = file.read(12)
    if not is_picture(start):
        raise UserError(f"{path}: cannot be read (it is not a {KINDS} file); repair the file, or remove it")


def _unreadable(path: str, error: Exception) -> UserError:
    why = " ".join(str(error.__cause__ or error).split()).removeprefix(f"{path}: ") or "it is not an image"
    return UserError(f"{path}: cannot be read ({why}); repair the file, or remove it")


def _opened(path: Any, mode: str = "r", **profile: Any) -> Any:
    """A file, which may lack a location."""
    import rasterio

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        return rasterio.open(path, mode, **profile)


class _GeoRows:
    def __init__(self, file: Any):
        self._file = file

    def add(self, top: int, labels: np.ndarray) -> None:
        from rasterio.windows import Window

        self._file.write(labels, 1, window=Window(0, top, labels.shape[1], len(labels)))
