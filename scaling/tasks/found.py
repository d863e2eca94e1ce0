"""Objects detected in unseen images, written as DOTA's text and as GeoJSON."""

import collections
import time
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath

from scaling.core.errors import UserError
from scaling.core.files import write_whole
from scaling.data.box_classes import unknown_class
from scaling.data.dota_text import Found, parse_objects
from scaling.data.geojson import outlines_as_geojson
from scaling.data.rasters import Raster
from scaling.data.sources.tables import text_of_table
from scaling.data.targets import Quadrilaterals
from scaling.data.tiling import Tiling
from scaling.evaluation.box_pictures import BoxPicture, FoundBoxes
from scaling.evaluation.detection_files import PREFIX
from scaling.tasks.detection_run import DetectionRun
from scaling.tasks.finding import found_in_images, inside, merged_boxes
from scaling.tasks.unseen import Job, opened_images, taken

ENDING = ".geojson"

_ROWS = 256  # rows of an image read together for its picture


def text_files(classes: Sequence[str]) -> list[str]:
    """Names of the files of DOTA's text, one for each class."""
    return [f"{PREFIX}{name}.txt" for name in classes]


def text_name(job: Job) -> str:
    """Name of an image in a line of text: its name without folders."""
    return job.name.rpartition("/")[2]


def check_names(jobs: Sequence[Job], classes: Sequence[str], to_server: bool = False) -> None:
    """Raises UserError for a name of an image or class that could not be read back from a line or file name, or,
    with `to_server`, that would be taken for that of a tile.
    """
    for name in classes:
        if not name or "/" in name or len(name.split()) != 1:
            raise UserError(
                f"class {name!r}: must have no spaces and no /, because it becomes part of the file name "
                f"{PREFIX}<class>.txt; rename it"
            )
    names: dict[str, str] = {}
    for job in jobs:
        name = text_name(job)
        if len(name.split()) != 1:
            raise UserError(f"{job.path}: must have no spaces, because it becomes a word of a line of text; rename it")
        if to_server and "__" in name:
            raise UserError(
                f"{job.path}: DOTA's server refuses detections of tiles, which have __ in their names; rename it"
            )
        if name in names:
            raise UserError(
                f"{names[name]} and {job.path} would both be called {name} in {PREFIX}<class>.txt; rename one"
            )
        names[name] = job.path


def read_truth(folder: str, jobs: Sequence[Job], classes: Sequence[str]) -> dict[str, Quadrilaterals]:
    """The objects of every image, by its path, from `<image>.txt` in a folder.

    Raises:
      UserError: a file is missing or cannot be read, or has a class that the run does not know.
    """
    root, there = epath.Path(folder), dict[str, Quadrilaterals]()
    if not root.is_dir():
        raise UserError(f"--truth={folder}: no such folder; give one that exists")
    for job in jobs:
        file = root / f"{text_name(job)}.txt"
        if not file.is_file():
            raise UserError(f"--truth={folder}: no {file.name} there; an image without objects needs an empty one")
        objects = parse_objects(text_of_table(file.read_bytes()), str(file))
        if unknown := [name for name in objects.names if name not in classes]:
            raise UserError(unknown_class(str(file), unknown[0], classes))
        numbers = [classes.index(name) for name in objects.names]
        there[job.path] = Quadrilaterals.of(objects.corners, numbers, objects.difficult)
    return there


def write_found(
    run: DetectionRun,
    tiling: Tiling,
    batch: int,
    jobs: Sequence[Job],
    folder: epath.PathLike,
    least: float,
    pictures: str,
    truth: Mapping[str, Quadrilaterals],
) -> dict[str, Found]:
    """Finds the objects image by image, and writes `<image>.geojson` for each.

    Args:
      run: the finished run.
      tiling, batch: tiling of the images, and tiles per batch.
      jobs: the images.
      folder: folder of the written files.
      least: smallest score of a detection.
      pictures: folder of the pictures; empty for none.
      truth: true objects by the path of the image, for the pictures; empty for none.

    Returns:
      The detections of all images, by class.
    """
    every: dict[str, list[Found]] = {name: [] for name in run.classes}
    opened = collections.deque[Raster]()
    began = time.perf_counter()
    for number, tiles in found_in_images(opened_images(run, jobs, opened), tiling, batch, run.load(), least):
        job, raster = jobs[number], opened.popleft()
        with raster:
            found = merged_boxes(tiles.taken(_seen(raster, job, tiles)))
            path = epath.Path(folder) / job.output
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, _geojson(raster, found, run.classes))
            if pictures:
                _draw(raster, job, found, truth.get(job.path), run, epath.Path(pictures))
        for i, name in enumerate(run.classes):
            mine = found.taken(found.classes == i)
            every[name].append(Found([text_name(job)] * len(mine.scores), mine.scores, mine.corners))
        size, now = "{:,} x {:,} pixels".format(*job.size), time.perf_counter()
        print(f"{path}  {size}, {len(found.scores):,} objects, {now - began:.1f} s", flush=True)
        began = now
    return {name: _joined(parts) for name, parts in every.items()}


def _joined(parts: Sequence[Found]) -> Found:
    images = [name for part in parts for name in part.images]
    return Found(images, *(np.concatenate([part[i] for part in parts]) for i in (1, 2)))


def _seen(raster: Raster, job: Job, found: FoundBoxes) -> np.ndarray:
    """Whether the middle of each detection is inside the image, on measured pixels, bool [n]."""
    seen = inside(found, job.size)
    if raster.masked:
        for i in np.flatnonzero(seen):
            x, y = map(int, found.corners[i].mean(0))
            _, measured = taken(raster, job.bands, y, x, y + 1, x + 1)
            seen[i] = measured is None or bool(measured.any())
    return seen


def _geojson(raster: Raster, found: FoundBoxes, classes: Sequence[str]) -> str:
    properties = [
        {"class": classes[i], "score": round(float(score), 6)}
        for i, score in zip(found.classes, found.scores, strict=True)
    ]
    return outlines_as_geojson(found.corners, properties, raster.on_earth(found.corners))


def _draw(
    raster: Raster, job: Job, found: FoundBoxes, truth: Quadrilaterals | None, run: DetectionRun, folder: epath.Path
) -> None:
    picture = BoxPicture(job.size, run.classes, run.config.data.rgb)
    for top in range(0, job.size[0], _ROWS):
        rows, _ = taken(raster, job.bands, top, 0, min(top + _ROWS, job.size[0]), job.size[1])
        picture.add(top, rows)
    picture.draw((folder / job.picture).with_suffix(""), found, truth, job.path, rules=run.rules)
