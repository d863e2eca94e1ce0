"""Predicts with a fine-tuned run: classes of images, maps of classes for images of any size, or objects as boxes.

    python -m scaling.predict --checkpoint=DIR --input=FILE|DIR --output=DIR [--stride=N] [--bands=3,2,1]

The checkpoint is the --workdir of `scaling.finetune`; classes, bands and normalisation are those of this run. An image
is a GeoTIFF or JPEG 2000 (with the extra `geo`), PNG, JPEG, WebP, BMP or .npy; an input folder is searched recursively,
and the output has the same subfolders. For maps and boxes, the network reads windows of its training size, --stride
pixels apart, at the scale of the stored images. Pixels without a measurement (the declared nodata value, NaN, or
outside of the file's mask) are replaced by the mean of the band. `scaling.score` scores the predictions against truth.

Classification: `predictions.csv` has a row for every readable image, with its file name, its class (for multi-label
models, all classes with a probability above 0.5) and the probability of every class. Images are resized and cropped to
the central part, like the test images of the run. `--width_ratio=0.25` applies a classifier that was fine-tuned with
`finetune_slimmable.py` at a quarter of its width.

Segmentation: a GeoTIFF or JPEG 2000 becomes a GeoTIFF with the same transform and coordinate reference system, in
memory that does not grow with its height; any other image becomes a PNG. Both hold a label for each pixel, in 8 bits
(16 for more than 255 classes), with a table of colours; `classes.csv` names the class of each label. Pixels without a
measurement get the ignored label, which is the map's nodata. Logits are averaged where windows overlap.
`--pictures=DIR` draws every image beside its map, large ones reduced; `--rgb=3,2,1` chooses the bands shown.
`--format=loveda` takes the folder of LoveDA as downloaded and writes the test split for its server: `N.png`, 8-bit
grey, labels 0 to 6, in one folder, which is checked at the end.

Detection: neighbouring tiles share 200 of 1024 pixels, as in DOTA, and non-maximum suppression keeps the best of the
detections of one class that overlap by more than an IoU of 0.1. `Task1_<class>.txt` has the detections in all images,
named without folders, in the format of DOTA's programs and `scaling.score`; `--format=dota` adds `Task1.zip` for DOTA's
server, and checks it. `<image>.geojson` has the detections of one image: in longitude and latitude (WGS 84, as RFC 7946
requires) for a GeoTIFF with any coordinate reference system, otherwise in pixels, which the file then states.
`--rates=0.5,1,1.5` detects at exactly these image scales (multi-scale testing). `--pictures=DIR` draws the boxes; with
`--truth=labelTxt` it marks right and wrong ones, and the objects that were missed.
"""

import dataclasses
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from etils import epath

from scaling import cli
from scaling.core.errors import UserError
from scaling.core.paths import check_folder
from scaling.data.rasters import open_raster, small_cache
from scaling.data.sources.loveda import CLASSES
from scaling.data.sources.registry import open_source
from scaling.evaluation.detection_files import write_server_zip, write_task1
from scaling.evaluation.submissions import check_loveda
from scaling.evaluation.windows import Windows
from scaling.tasks.classification_run import ClassificationRun, files_of, write_told
from scaling.tasks.detection_run import DetectionRun
from scaling.tasks.finished_run import finished_config
from scaling.tasks.found import ENDING, check_names, read_truth, text_files, write_found
from scaling.tasks.maps import write_maps
from scaling.tasks.segmentation_run import SegmentationRun
from scaling.tasks.unseen import Checks, Job, image_files
from scaling.training.config import FinetuneConfig

log = logging.getLogger(__name__)

TABLE, ZIP, PREDICTIONS = "classes.csv", "Task1.zip", "predictions.csv"


def define_flags(define: cli.Define) -> None:
    define.path("checkpoint", None, "The --workdir of a fine-tuned run.")
    define.integer("step", None, "Step of the checkpoint; the newest by default.")
    define.path("input", None, "An image, or a folder of images.")
    define.path("output", None, "Folder for the predictions.")
    define.integer("stride", 0, "Pixels from one window or tile to the next; see above for the default.", lower_bound=0)
    define.integer("batch_size", 4, "Images, windows or tiles at once on each device.", lower_bound=1)
    define.path("pictures", "", "Folder for pictures of the images with their predictions, and a legend.")
    define.enum(
        "format",
        "plain",
        ["plain", "maps", "loveda", "dota"],
        "Format of the output: plain, or that of the server of LoveDA or DOTA.",
    )
    define.float(
        "width_ratio", 1.0, "Width of a slimmable classifier, relative to the fine-tuned network: one of those trained."
    )
    define.list("bands", [], "Bands of the images, by index or name; by default as the run was trained.")
    define.list(
        "rgb", [], "Bands that --pictures shows, from 0 among those taken, as 3,2,1; by default the run's data.rgb."
    )
    define.list("rates", ["1"], "Detection: image scales, as 0.5,1,1.5; only these are used.")
    define.float("least_score", 0.0, "Detection: score threshold, if higher than that of the run.")
    define.path("truth", "", "Detection: folder of the true <image>.txt in DOTA's format, for --pictures.")


@cli.command(define_flags, resumes=False)
def main(argv: list[str], flags: cli.Flags) -> None:
    cli.require(flags, "checkpoint=DIR", "input=IMAGES", "output=DIR")
    config = finished_config(flags.checkpoint, flags.step, KINDS)
    for name, tasks in OF_SOME.items():
        if config.task.name not in tasks and flags[name].value != flags[name].default:
            of = " and ".join(tasks)
            raise UserError(f"--{name} is for runs of {of}; {flags.checkpoint} is one of {config.task.name}")
    if flags.rgb:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, rgb=_shown(flags, config)))
    kind, tell = KINDS[config.task.name]
    with small_cache():
        tell(kind(flags.checkpoint, flags.step, config), flags)


def _classes(run: ClassificationRun, flags: cli.Flags) -> None:
    run.check_width("--width_ratio", flags.width_ratio)
    source = files_of(image_files(flags.input))
    bands = run.checked_bands(source, flags.input, flags.bands)
    table = check_folder("output", flags.output) / PREDICTIONS
    if table.exists():
        raise UserError(f"--output={flags.output}: {PREDICTIONS} is there already; choose another folder")
    told = list(run.told(source, bands, flags.batch_size, flags.width_ratio))
    if not told:
        raise UserError(f"--input={flags.input}: no image can be read")
    write_told(table, source, told, run.classes(), run.task.multi_label)
    count = sum(len(part.records) for part in told)
    left_out = f", {len(source) - count:,} could not be read" if count < len(source) else ""
    print(f"{count:,} images{left_out}; their classes in {table}")


def _maps(run: SegmentationRun, flags: cli.Flags) -> None:
    if flags.format == "dota":
        raise UserError("--format=dota: a run of segmentation finds no objects; leave it out")
    windows = _windows(flags, run)
    files = _loveda(flags, run) if flags.format == "loveda" else image_files(flags.input)
    jobs = Checks(run, flags.bands).jobs(files)
    _check_free(flags, jobs, [TABLE])
    _tell_sizes(run, jobs, windows.size)
    write_maps(run, windows, jobs, flags.output, flags.pictures, flags.format != "loveda")
    if flags.format == "loveda":
        print(f"{flags.output}: {check_loveda(flags.output, {job.output: job.size for job in jobs})}")
        return
    run.legend.write(epath.Path(flags.output) / TABLE)
    print(f"{len(jobs):,} maps in {flags.output}, what their labels stand for in {TABLE} there")


def _objects(run: DetectionRun, flags: cli.Flags) -> None:
    if flags.format not in ("plain", "dota"):
        raise UserError(f"--format={flags.format}: a run of detection writes no maps; leave it out")
    if flags.truth and not flags.pictures:
        raise UserError(f"--truth={flags.truth}: it is drawn in pictures; set --pictures=DIR, or leave it out")
    tiling, batch = run.tiling(flags.stride, _rates(flags)), run.batch(flags.batch_size)
    jobs = Checks(run, flags.bands).jobs(image_files(flags.input), ENDING)
    to_server = flags.format == "dota"
    check_names(jobs, run.classes, to_server)
    _check_free(flags, jobs, [*text_files(run.classes), *[ZIP] * to_server])
    _check_places(jobs, run)
    truth = read_truth(flags.truth, jobs, run.classes) if flags.truth else {}
    _tell_sizes(run, jobs, (tiling.size, tiling.size))
    found = write_found(run, tiling, batch, jobs, flags.output, flags.least_score, flags.pictures, truth)
    write_task1(flags.output, found)
    if to_server:
        write_server_zip(epath.Path(flags.output) / ZIP, found)
    counts = [len(of.scores) for of in found.values()]
    what = f"{sum(counts):,} objects of {np.count_nonzero(counts)} classes in {len(jobs):,} images"
    print(f"{what}; Task1_<class>.txt and GeoJSON in {flags.output}")


KINDS: dict[str, tuple[Any, Callable[[Any, cli.Flags], None]]] = {
    "classification": (ClassificationRun, _classes),
    "slimmable_classification": (ClassificationRun, _classes),
    "segmentation": (SegmentationRun, _maps),
    "detection": (DetectionRun, _objects),
}
OF_SOME: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("stride", "pictures", "rgb", "format"), ("segmentation", "detection")),
    "width_ratio": ("slimmable_classification",),
    **dict.fromkeys(("rates", "least_score", "truth"), ("detection",)),
}  # flags that only some tasks have


def _shown(flags: cli.Flags, config: FinetuneConfig) -> tuple[int, ...]:
    """The bands that pictures show. Raises a UserError for other bands than those taken."""
    given, count = f"--rgb={','.join(flags.rgb)}", config.model.bands
    if not flags.pictures:
        raise UserError(f"{given}: is for pictures; set --pictures=DIR, or leave it out")
    if len(flags.rgb) != 3 or not all(band.isdecimal() and int(band) < count for band in flags.rgb):
        raise UserError(f"{given}: must be three bands from 0 to {count - 1}; give such as 2,1,0")
    return tuple(map(int, flags.rgb))


def _rates(flags: cli.Flags) -> tuple[float, ...]:
    try:
        return tuple(map(float, flags.rates))
    except ValueError as e:
        raise UserError(f"--rates={','.join(flags.rates)}: give numbers, as 0.5,1,1.5") from e


def _check_places(jobs: Sequence[Job], run: DetectionRun) -> None:
    """Raises a UserError for a georeferenced image whose corners have no longitude and latitude."""
    for job in jobs:
        height, width = job.size
        with open_raster(job.path, run.config.model.bands) as raster:
            places = raster.on_earth(np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64))
        if places is not None and not np.isfinite(places).all():
            raise UserError(
                f"{job.path}: its corners have no longitude and latitude; mend its coordinate reference system"
            )


def _tell_sizes(run: SegmentationRun | DetectionRun, jobs: Sequence[Job], size: tuple[int, int]) -> None:
    """Warns where objects may have another size than in training."""
    if run.config.tests_whole_images or all(job.size == size for job in jobs):
        return
    other = next(job for job in jobs if job.size != size)
    seen, there = ("{} x {}".format(*size) for size in (size, other.size))
    log.warning(
        f"the run was trained and tested on images resized to {seen} pixels; {other.path} has {there} and is "
        "looked at as it is stored: are objects as large there? If not, train with data.crop=ratio"
    )


def _windows(flags: cli.Flags, run: SegmentationRun) -> Windows:
    windows = run.windows(flags.stride, flags.batch_size)
    if flags.stride > min(windows.size):
        size = "{} x {}".format(*windows.size)
        raise UserError(f"--stride={flags.stride}: must not skip pixels; windows have {size}")
    return windows


def _loveda(flags: cli.Flags, run: SegmentationRun) -> list[tuple[str, str]]:
    """The test images of LoveDA as downloaded, by number."""
    if run.task.classes != CLASSES:
        told = ", ".join(run.task.classes)
        raise UserError(f"--format=loveda: the run tells {told}; give one of LoveDA's classes: {', '.join(CLASSES)}")
    source = open_source(f"loveda:{flags.input}", "test")
    names = [source.name(i) for i in range(len(source))]
    if there := [file.name for file in epath.Path(flags.output).iterdir()] if epath.Path(flags.output).exists() else []:
        raise UserError(f"--output={flags.output}: {there[0]} is there already; the files for the server are alone")
    return [(f"{flags.input}/Test/{name}", name.rpartition("/")[2].rpartition(".")[0]) for name in names]


def _check_free(flags: cli.Flags, jobs: Sequence[Job], more: Sequence[str]) -> None:
    """Raises a UserError if a file would be overwritten or written twice; `more` names other files of the output."""
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
    for flag, folder, files in (("output", flags.output, [*names, *more]), ("pictures", flags.pictures, pictures)):
        if there := [name for name in files if (epath.Path(folder) / name).exists()]:
            raise UserError(
                f"--{flag}={folder}: {there[0]} is there already ({len(there)} such files); choose another folder"
            )
    check_folder("output", flags.output)


if __name__ == "__main__":
    cli.run(main)
