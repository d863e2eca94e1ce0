"""OSCD (Onera Satellite Change Detection, Daudt et al. 2018) as it is downloaded: Sentinel-2 at two dates, 24 cities.

    Onera Satellite Change Detection dataset - Images/CITY/imgs_1_rect/B01.tif … B12.tif    before
    Onera Satellite Change Detection dataset - Images/CITY/imgs_2_rect/B01.tif … B12.tif    after, on the same grid
    Onera Satellite Change Detection dataset - Train Labels/CITY/cm/cm.png                  14 cities
    Onera Satellite Change Detection dataset - Test Labels/CITY/cm/cm.png                   10 cities

An image is a city, its bands are those of both dates, the earlier first, called `B04 before` and `B04 after`. Labels
are 0 and 255; files of other distributions with 1 and 2 for no change and change are understood, too.
"""

from typing import Any

import numpy as np
from etils import epath

from scaling.core.errors import UserError
from scaling.data.images import CorruptImage, decode
from scaling.data.resample import resample
from scaling.data.sources.base import Info, Stored
from scaling.data.sources.pairs import FolderFiles
from scaling.data.sources.slices import no_split
from scaling.data.targets import Masks, label_histogram

CLASSES = ("no change", "change")
BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
DATES = {"before": "imgs_1_rect", "after": "imgs_2_rect"}
IGNORE = 255

_NAME = "Onera Satellite Change Detection dataset - "
_IMAGES, _LABELS = f"{_NAME}Images", {"train": f"{_NAME}Train Labels", "test": f"{_NAME}Test Labels"}
_MAP = "cm/cm.png"
_WAYS = ((0, 255), (0, 1), (1, 2))  # pairs of values for no change and change


class Oscd(Stored):
    """One split; see the top of this module. Images are uint16 [height, width, 2 bands].

    Args:
      path: the folder with the three folders.
      split: `train` or `test`.
      bands: names separated by commas, `B04,B03,B02`, taken in this order from each date; by default all 13.

    Raises:
      UserError: not such a folder, a city lacks a file, or an unknown band.
    """

    def __init__(self, path: str, split: str, bands: str = ""):
        self.spec, self._root = f"oscd:{path}", epath.Path(path)
        if not path or not (self._root / _IMAGES).is_dir():
            raise UserError(f"{self.spec}: no folder {_IMAGES!r} there; give the folder that contains it")
        there = [name for name, folder in _LABELS.items() if (self._root / folder).is_dir()]
        if split not in there:
            raise no_split(self.spec, split, there)
        self._bands = tuple(bands.split(",")) if bands else BANDS
        if unknown := [name for name in self._bands if name not in BANDS]:
            raise UserError(f"{self.spec}: no band {unknown[0]!r}; there is {', '.join(BANDS)}")
        self._labels = _LABELS[split]
        folders = (self._root / self._labels).iterdir()
        self._cities = sorted(child.name for child in folders if child.is_dir() and not child.name.startswith("."))
        self._check_files()
        names = tuple(f"{band} {date}" for date in DATES for band in self._bands)
        self.info = Info(targets=(Masks(CLASSES, IGNORE),), bands=names)
        try:
            self.kept(0)
        except CorruptImage as error:
            raise UserError(f"{self.spec}: {error}; mend the file, or copy it again") from error

    def _check_files(self) -> None:
        """Raises UserError if a city lacks any of its files."""
        if not self._cities:
            raise UserError(f"{self.spec}: no cities in {self._labels!r}; unpack the whole download")
        known = set(FolderFiles(str(self._root), lambda name: name.endswith((".tif", ".png"))).names)
        wanted = [file for city in self._cities for file in (self._map(city), *self._files(city))]
        if absent := [file for file in wanted if file not in known]:
            raise UserError(
                f"{self.spec}: {len(absent)} of {len(wanted)} files are not there, first {absent[0]!r}; "
                "unpack the whole download"
            )

    def _map(self, city: str) -> str:
        return f"{self._labels}/{city}/{_MAP}"

    def _files(self, city: str) -> list[str]:
        """Files of the bands at both dates."""
        return [f"{_IMAGES}/{city}/{folder}/{band}.tif" for folder in DATES.values() for band in self._bands]

    def __len__(self) -> int:
        return len(self._cities)

    def name(self, index: int) -> str:
        return self._cities[index]

    def kept(self, index: int) -> dict[str, Any]:
        """The pixels of both dates, the map of changes and the label -1."""
        city = self._cities[index]
        mask = self._changes(self._map(city))
        image = np.concatenate([self._band(file, mask.shape) for file in self._files(city)], axis=2)
        return {"image": image, "label": -1, "mask": mask}

    def _band(self, file: str, size: tuple[int, ...]) -> np.ndarray:
        """A band [*size, 1], uint16; one of coarser pixels is resampled to the grid of the map."""
        band = decode(self._read(file), file)
        if band.shape[2] != 1 or band.dtype != np.uint16:
            raise CorruptImage(file, f"has {band.shape[2]} bands of {band.dtype}, not one of uint16")
        if band.shape[:2] == size:
            return band
        if not 0.98 < (band.shape[0] * size[1]) / (band.shape[1] * size[0]) < 1.02:
            found, expected = ("{} x {}".format(*shape) for shape in (band.shape, size))
            raise CorruptImage(file, f"has {found} pixels, the map of changes {expected}")
        out = np.empty((*size, 1), band.dtype)
        resample(band, (0, 0, band.shape[1], band.shape[0]), out)
        return out

    def _changes(self, file: str) -> np.ndarray:
        """Mask of changes, 0 or 1, uint8 [height, width]."""
        picture = decode(self._read(file), file)
        stored = picture[..., 0]
        if (picture != stored[..., None]).any():
            raise CorruptImage(file, "has colours, where black stands for no change and white for change")
        found = set(np.unique(stored).tolist())
        way = next((way for way in _WAYS if found == set(way) or found <= {0, 255} == set(way)), None)
        if way is None:
            raise CorruptImage(file, f"has labels that are not 0 and 255, nor 1 and 2: {label_histogram(stored)}")
        return (stored == way[1]).astype(np.uint8)

    def _read(self, file: str) -> bytes:
        try:
            return (self._root / file).read_bytes()
        except OSError as error:
            raise CorruptImage(file, error.strerror or str(error)) from error
