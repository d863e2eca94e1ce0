"""Maps of classes: a run of segmentation tells every pixel of images of any size.

    python -m scaling.predict --checkpoint=DIR --input=FILE|DIR --output=DIR [--stride=N] [--bands=3,2,1]

The checkpoint is the --workdir of `scaling.finetune --task=segmentation`; classes, bands and normalisation are its own.
A GeoTIFF (with the extra `geo`) becomes a GeoTIFF with the same transform and coordinate reference system, in memory
that does not grow with its height; a PNG or JPEG becomes a PNG. Both hold a label for each pixel, 8 bits, or 16 beyond
255 classes, with a table of colours; `classes.csv` says what the labels stand for. Where nothing was measured (the
declared nodata, NaN, outside of a mask) the network sees the mean of the band, and the map has the ignored label, which
is its nodata. An input folder is searched with all below it, and its folders stay.

The network looks through windows of the size it was trained at, which begin every --stride pixels, at the scale of the
images as they are stored; logits are averaged where windows overlap. `--pictures=DIR` draws every image beside its map,
large ones reduced. `scaling.score` scores maps against truth.

`--format=loveda` takes the folder of LoveDA as it is downloaded and writes what its server reads of the test split:
`N.png` with the labels 0 to 6, grey and of 8 bits, all of them in one folder, which is checked at the end.
"""

import collections
import dataclasses
import functools
import logging
import os
import time
from collections.abc import Iterator

import numpy as np
from etils import epath

from scaling import cli
from scaling.core.errors import UserError
from scaling.core.paths import check_folder
from scaling.data.arrays import far_from_normalised, normalise
from scaling.data.rasters import Raster, open_raster, small_cache
from scaling.data.sources.base import Info
from scaling.data.sources.files import is_image, walk
from scaling.data.sources.loveda import CLASSES
from scaling.data.sources.registry import open_source
from scaling.encoders.bands import bands_of, training_dtype
from scaling.evaluation.pictures import Picture
from scaling.evaluation.submissions import check_loveda
from scaling.evaluation.windows import Read, Windows, likeliest
from scaling.tasks.segmentation_run import SegmentationRun

log = logging.getLogger(__name__)

_LOOKED_AT = 512  # pixels along each side of what is looked at beforehand
TABLE = "classes.csv"


def define_flags(define: cli.Define) -> None:
    define.path("checkpoint", None, "The --workdir of a run of segmentation.")
    define.integer("step", None, "Which checkpoint of it; the newest by default.")
    define.path("input", None, "An image (GeoTIFF, PNG, JPEG), or a folder of images.")
    define.path("output", None, "Folder of the maps.")
    define.integer("stride", 0, "Pixels from one window to the next; by default as in the run's test.", lower_bound=0)
    define.integer("batch_size", 4, "Windows at once on each device.", lower_bound=1)
    define.path("pictures", "", "Folder of pictures of the images beside their maps, with a legend.")
    define.enum("format", "maps", ["maps", "loveda"], "Maps, or files for the server of LoveDA.")
    define.list("bands", [], "Bands of the images, by index or name; by default as the run was trained.")


@cli.command(define_flags, resumes=False)
def main(argv: list[str], flags: cli.Flags) -> None:
    if missing := [name for name in ("checkpoint", "input", "output") if not flags[name].value]:
        raise UserError(f"--{missing[0]} is missing; see --help")
    run = SegmentationRun.described(flags.checkpoint, flags.step)
    windows = _windows(flags, run)
    with small_cache():
        files = _loveda(flags, run) if flags.format == "loveda" else _files(flags.input)
        jobs = _Checks(run, flags.bands).jobs(files)
        _check_free(flags, jobs)
        check_folder("output", flags.output)
        if not run.config.tests_whole_images and (
            other := next((job for job in jobs if job.size != windows.size), None)
        ):
            seen, there = ("{} x {}".format(*size) for size in (windows.size, other.size))
            log.warning(
                f"the run was trained and tested on images resized to {seen} pixels; {other.path} has {there} and is "
                "looked at as it is stored: are objects as large there? If not, train with data.crop=ratio"
            )
        _map(run, windows, jobs, flags)
    if flags.format == "loveda":
        print(f"{flags.output}: {check_loveda(flags.output, {job.output: job.size for job in jobs})}")
        return
    run.legend.write(epath.Path(flags.output) / TABLE)
    print(f"{len(jobs):,} maps in {flags.output}, what their labels stand for in {TABLE} there")


@dataclasses.dataclass(frozen=True)
class Job:
    """An image to map.

    Attributes:
      path: of its file.
      output: path of its map below the output folder.
      bands: indices of those that are taken, () for all.
      size: height and width.
    """

    path: str
    output: str
    bands: tuple[int, ...]
    size: tuple[int, int]

    @property
    def picture(self) -> str:
        """Path of its picture below the folder of pictures."""
        return f"{self.output.rpartition('.')[0]}.png"


def _windows(flags: cli.Flags, run: SegmentationRun) -> Windows:
    windows = run.windows(flags.stride, flags.batch_size)
    if flags.stride > min(windows.size):
        size = "{} x {}".format(*windows.size)
        raise UserError(f"--stride={flags.stride}: pixels would be passed over; windows have {size}")
    return windows


def _files(given: str) -> list[tuple[str, str]]:
    """Paths of the images, and what each is called in the output, without its ending."""
    root = epath.Path(given)
    if root.is_dir():
        found = [
            (f"{given}/{name}", name.rpartition(".")[0])
            for name in sorted(f"{inner}/{file}".lstrip("/") for inner, files in walk(given) for file in files)
        ]
        if not found:
            raise UserError(f"--input={given}: no images there (GeoTIFF, PNG or JPEG)")
        return found
    if not root.is_file():
        raise UserError(f"--input={given}: no such file or folder")
    if not is_image(root.name):
        raise UserError(f"--input={given}: give a GeoTIFF, PNG or JPEG, or a folder of them")
    return [(given, root.name.rpartition(".")[0])]


def _loveda(flags: cli.Flags, run: SegmentationRun) -> list[tuple[str, str]]:
    """The images of the test split of LoveDA as it is downloaded, by their numbers."""
    if run.task.classes != CLASSES:
        told = ", ".join(run.task.classes)
        raise UserError(f"--format=loveda: the run tells {told}; give one of LoveDA's classes: {', '.join(CLASSES)}")
    source = open_source(f"loveda:{flags.input}", "test")
    names = [source.name(i) for i in range(len(source))]
    if there := [file.name for file in epath.Path(flags.output).iterdir()] if epath.Path(flags.output).exists() else []:
        raise UserError(f"--output={flags.output}: {there[0]} is there already; the files for the server are alone")
    return [(f"{flags.input}/Test/{name}", name.rpartition("/")[2].rpartition(".")[0]) for name in names]


def _check_free(flags: cli.Flags, jobs: list[Job]) -> None:
    """Nothing is written over, nor twice."""
    names: dict[str, str] = {}
    for job in jobs:
        if job.output in names:
            raise UserError(f"{names[job.output]} and {job.path} would both become {job.output}; rename one")
        names[job.output] = job.path
    if flags.pictures and os.path.realpath(flags.pictures) == os.path.realpath(flags.output):
        raise UserError(f"--pictures={flags.pictures} is the --output, whose maps would be lost; choose another folder")
    pictures = [job.picture for job in jobs] if flags.pictures else []
    if twice := next((name for name in pictures if pictures.count(name) > 1), ""):
        raise UserError(f"--pictures={flags.pictures}: two images would both become {twice}; rename one")
    for flag, folder, files in (("output", flags.output, [*names, TABLE]), ("pictures", flags.pictures, pictures)):
        if there := [name for name in files if (epath.Path(folder) / name).exists()]:
            raise UserError(
                f"--{flag}={folder}: {there[0]} is there already ({len(there)} such files); choose another folder"
            )


class _Checks:
    """What can be known to be wrong with an image before anything is computed."""

    def __init__(self, run: SegmentationRun, bands: list[str]):
        self._run, self._asked = run, bands
        self._encoder, self._trained_on = run.encoder, training_dtype(run.encoder)
        self._known: dict[tuple[int, tuple[str, ...], str], tuple[int, ...]] = {}

    def jobs(self, files: list[tuple[str, str]]) -> list[Job]:
        """Opens every image.

        Raises:
          UserError: one cannot be read, or its bands or numbers are not those of the training.
        """
        jobs, dtypes = [], dict[bool, str]()
        for path, name in files:
            with open_raster(path, self._encoder.config.bands) as raster:
                size = raster.height, raster.width
                jobs.append(Job(path, name + raster.ending, self._bands(path, raster), size))
                self._check_numbers(path, raster, jobs[-1].bands)
                dtypes.setdefault(raster.dtype == np.uint8, path)
        if len(dtypes) > 1:
            raise UserError(f"{dtypes[True]} is of 8 bits, {dtypes[False]} is not; map images of one kind at a time")
        return jobs

    def _bands(self, path: str, raster: Raster) -> tuple[int, ...]:
        key = (raster.bands, raster.names, raster.dtype.name)
        if key not in self._known:
            self._known[key] = bands_of(self._encoder, _Part(raster), path, self._asked, option="--bands")
        return self._known[key]

    def _check_numbers(self, path: str, raster: Raster, bands: tuple[int, ...]) -> None:
        there, data = raster.dtype, self._run.config.data
        if self._trained_on and (there == np.uint8) != (self._trained_on == np.uint8):
            raise UserError(f"{path}: has pixels of {there}, the training had {self._trained_on}; give images as those")
        top, left = (max(length - _LOOKED_AT, 0) // 2 for length in (raster.height, raster.width))
        bottom, right = min(top + _LOOKED_AT, raster.height), min(left + _LOOKED_AT, raster.width)
        pixels, measured = _taken(raster, bands, top, left, bottom, right)
        found = normalise(pixels, data.mean, data.std)
        found = found if measured is None else found[measured.all(2)]
        if far := far_from_normalised(found[None]):
            raise UserError(
                f"{path}: normalised as in the training, its pixels are of {far}: they are in other units (8 or 16 "
                "bits, reflectances); give images in those of the training"
            )


class _Part:
    """A corner of an image as a source of one."""

    def __init__(self, raster: Raster):
        self.info, self._raster = Info(bands=raster.names), raster

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"image": self._raster.read(0, 0, min(64, self._raster.height), min(64, self._raster.width))[0]}

    def name(self, index: int) -> str:
        return ""


def _map(run: SegmentationRun, windows: Windows, jobs: list[Job], flags: cli.Flags) -> None:
    """Writes the maps one after the other; windows of two images may be on the devices together."""
    output, pictures = epath.Path(flags.output), flags.pictures
    opened = collections.deque[Raster]()
    rows = windows.logits_of_images(_read(run, jobs, opened), run.load())
    waiting = next(rows, None)
    for number, job in enumerate(jobs):
        raster, began = opened.popleft(), time.perf_counter()
        picture = Picture(job.size, run.legend) if pictures else None
        with raster, raster.written(output / job.output, run.legend, flags.format == "maps") as written:
            while waiting and waiting[0] == number:
                _, top, logits = waiting
                labels = _labels(run, raster, job, top, logits)
                written.add(top, labels)
                if picture:
                    pixels, _ = _taken(raster, job.bands, top, 0, top + len(labels), raster.width)
                    picture.add(top, image=pixels, prediction=labels)
                waiting = next(rows, None)
        if picture:
            picture.draw((epath.Path(pictures) / job.picture).with_suffix(""), job.path)
        size = "{:,} x {:,} pixels".format(*job.size)
        print(f"{output / job.output}  {size}, {time.perf_counter() - began:.1f} s", flush=True)


def _read(run: SegmentationRun, jobs: list[Job], opened: collections.deque[Raster]) -> Iterator[tuple[Read, int, int]]:
    """The images in turn, each of them `opened` for who writes its map."""
    means = np.asarray(run.config.data.mean, np.float32)
    for job in jobs:
        opened.append(open_raster(job.path, run.config.model.bands))
        yield functools.partial(_pixels, opened[-1], job.bands, means), opened[-1].height, opened[-1].width


def _pixels(
    raster: Raster, bands: tuple[int, ...], means: np.ndarray, top: int, left: int, bottom: int, right: int
) -> np.ndarray:
    """A part of an image, uint8 or float32, with the means of the bands in the place of what was not measured."""
    pixels, measured = _taken(raster, bands, top, left, bottom, right)
    if pixels.dtype != np.uint8:
        pixels = pixels.astype(np.float32)
    if measured is None:
        return pixels
    if raster.dtype.kind in "ui":  # one band of a pixel may have the number of nodata, and mean it
        measured = np.asarray(measured.any(2, keepdims=True))
    return np.where(measured, pixels, means.round() if pixels.dtype == np.uint8 else means).astype(pixels.dtype)


def _labels(run: SegmentationRun, raster: Raster, job: Job, top: int, logits: np.ndarray) -> np.ndarray:
    """The likeliest classes of some rows, and the ignored label where no band was measured."""
    labels = likeliest(logits).astype(run.legend.dtype)
    if raster.masked:
        _, measured = _taken(raster, job.bands, top, 0, top + len(labels), raster.width)
        assert measured is not None
        labels[~measured.any(2)] = run.legend.ignore
    return labels


def _taken(
    raster: Raster, bands: tuple[int, ...], top: int, left: int, bottom: int, right: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """`Raster.read`, of some bands."""
    pixels, measured = raster.read(top, left, bottom, right)
    if not bands:
        return pixels, measured
    return pixels[..., bands], None if measured is None else measured[..., bands]


if __name__ == "__main__":
    cli.run(main)
