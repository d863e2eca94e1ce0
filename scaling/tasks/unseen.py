"""Unseen images of a finished run: finding, checking and reading them in parts."""

import collections
import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np
from etils import epath

from scaling.core.errors import UserError
from scaling.data.arrays import far_from_normalised, normalise
from scaling.data.images import KINDS
from scaling.data.rasters import Raster, open_raster
from scaling.data.sources.base import Info
from scaling.data.sources.files import image_groups, image_or_array, walk
from scaling.data.sources.outputs import check_images_folder
from scaling.data.spot_checks import warn_of_masks
from scaling.encoders.bands import bands_of, training_dtype
from scaling.evaluation.windows import Image
from scaling.tasks.finished_run import FinishedRun

_LOOKED_AT = 512  # side in pixels of the part that is checked beforehand
_SEEN = 16  # images that are compared with masks


@dataclasses.dataclass(frozen=True)
class Job:
    """An image to be predicted.

    Attributes:
      path: path of its file.
      name: its name in the output, without ending.
      ending: ending of its output file.
      bands: indices of the bands taken, () for all.
      size: height and width.
    """

    path: str
    name: str
    ending: str
    bands: tuple[int, ...]
    size: tuple[int, int]

    @property
    def output(self) -> str:
        """Path of its output file, below the output folder."""
        return self.name + self.ending

    @property
    def picture(self) -> str:
        """Path of its picture below the folder of pictures."""
        return f"{self.name}.png"


def image_files(given: str) -> list[tuple[str, str]]:
    """Paths of the images, and their names in the output without ending."""
    root = epath.Path(given)
    if root.is_dir():
        check_images_folder(f"--input={given}", root)
        groups = image_groups(walk(given, image_or_array), given)
        names = sorted(f"{inner}/{file}".lstrip("/") for inner, files in groups for file in files)
        found = [(f"{given}/{name}", name.rpartition(".")[0]) for name in names]
        if not found:
            raise UserError(f"--input={given}: must hold images ({KINDS}), and has none; give their folder")
        return found
    if given.removeprefix("zip:").lower().endswith(".zip"):
        raise UserError(f"--input={given}: must be an image or a folder of images; unpack the archive")
    if not root.is_file():
        raise UserError(f"--input={given}: no such file or folder; give one that exists")
    if not image_or_array(root.name):
        raise UserError(f"--input={given}: must be a {KINDS} file, or a folder of them; give one")
    return [(given, root.name.rpartition(".")[0])]


def check_dtype(where: str, there: np.dtype, trained_on: np.dtype | None) -> None:
    """Raises UserError if these images are 8-bit and those of the training were not, or vice versa."""
    if trained_on and (there == np.uint8) != (trained_on == np.uint8):
        raise UserError(f"{where}: has pixels of {there}, the training had {trained_on}; give images as those")


def check_units(where: str, normalised: np.ndarray, pixels: str = "its pixels") -> None:
    """Raises UserError for images [N, ..., C] that, normalised as in training, are far from its range.

    pixels: description of the images, for the message.
    """
    if far := far_from_normalised(normalised):
        raise UserError(
            f"{where}: normalised as in the training, {pixels} are of {far}: they are in other units (8 or 16 bits, "
            "reflectances); give images in those of the training"
        )


class Checks:
    """Checks of an image before anything is computed."""

    def __init__(self, run: FinishedRun, bands: Sequence[str]):
        self._run, self._asked = run, list(bands)
        self._encoder, self._trained_on = run.encoder, training_dtype(run.encoder)
        self._known: dict[tuple[int, tuple[str, ...], str], tuple[int, ...]] = {}

    def jobs(self, files: Sequence[tuple[str, str]], ending: str = "") -> list[Job]:
        """Opens every image.

        Args:
          files: paths of the images, and their names in the output.
          ending: ending of the output files; by default that of a map.

        Raises:
          UserError: an image cannot be read, or its bands or dtype differ from the training's.
        """
        jobs, dtypes, seen = [], dict[bool, str](), list[np.ndarray]()
        for path, name in files:
            with open_raster(path, self._encoder.config.bands) as raster:
                size = raster.height, raster.width
                jobs.append(Job(path, name, ending or raster.ending, self._bands(path, raster), size))
                pixels = self._checked(path, raster, jobs[-1].bands)
                seen += [pixels] * (len(seen) < _SEEN)
                dtypes.setdefault(raster.dtype == np.uint8, path)
        warn_of_masks(files[0][0] + " and others" * (len(files) > 1), seen)
        if len(dtypes) > 1:
            raise UserError(f"{dtypes[True]} is of 8 bits, {dtypes[False]} is not; map images of one kind at a time")
        return jobs

    def _bands(self, path: str, raster: Raster) -> tuple[int, ...]:
        key = (raster.bands, raster.names, raster.dtype.name)
        if key not in self._known:
            self._known[key] = bands_of(self._encoder, _Part(raster), path, self._asked, option="--bands")
        return self._known[key]

    def _checked(self, path: str, raster: Raster, bands: tuple[int, ...]) -> np.ndarray:
        """Checks type and units of an image, and returns its central part."""
        data = self._run.config.data
        check_dtype(path, raster.dtype, self._trained_on)
        top, left = (max(length - _LOOKED_AT, 0) // 2 for length in (raster.height, raster.width))
        bottom, right = min(top + _LOOKED_AT, raster.height), min(left + _LOOKED_AT, raster.width)
        pixels, measured = taken(raster, bands, top, left, bottom, right)
        found = normalise(pixels, data.mean, data.std)
        found = found if measured is None else found[measured.all(2)]
        check_units(path, found[None])
        return pixels


class _Part:
    """A corner of an image as a source with one example."""

    def __init__(self, raster: Raster):
        self.info, self._raster = Info(bands=raster.names), raster

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"image": self._raster.read(0, 0, min(64, self._raster.height), min(64, self._raster.width))[0]}

    def name(self, index: int) -> str:
        return ""


def opened_images(run: FinishedRun, jobs: Sequence[Job], opened: collections.deque[Raster]) -> Iterator[Image]:
    """The images in turn; each is also appended to `opened`, for the writer of its output."""
    means = np.asarray(run.config.data.mean, np.float32)
    for job in jobs:
        opened.append(open_raster(job.path, run.config.model.bands))
        yield functools.partial(_pixels, opened[-1], job.bands, means), opened[-1].height, opened[-1].width


def _pixels(
    raster: Raster, bands: tuple[int, ...], means: np.ndarray, top: int, left: int, bottom: int, right: int
) -> np.ndarray:
    """A part of an image, uint8 or float32, with the means of the bands in place of nodata."""
    pixels, measured = taken(raster, bands, top, left, bottom, right)
    if pixels.dtype != np.uint8:
        pixels = pixels.astype(np.float32)
    if measured is None:
        return pixels
    if raster.dtype.kind in "ui":  # the nodata value in a single band may be a real measurement
        measured = np.asarray(measured.any(2, keepdims=True))
    return np.where(measured, pixels, means.round() if pixels.dtype == np.uint8 else means).astype(pixels.dtype)


def taken(
    raster: Raster, bands: tuple[int, ...], top: int, left: int, bottom: int, right: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """`Raster.read` for selected bands."""
    pixels, measured = raster.read(top, left, bottom, right)
    if not bands:
        return pixels, measured
    return pixels[..., bands], None if measured is None else measured[..., bands]
