"""Maps of classes of unseen images."""

import collections
import time
from collections.abc import Sequence

import numpy as np
from etils import epath

from scaling.data.rasters import Raster
from scaling.evaluation.pictures import Picture
from scaling.evaluation.windows import Windows, likeliest
from scaling.tasks.segmentation_run import SegmentationRun
from scaling.tasks.unseen import Job, opened_images, taken


def write_maps(
    run: SegmentationRun, windows: Windows, jobs: Sequence[Job], folder: epath.PathLike, pictures: str, coloured: bool
) -> None:
    """Writes the maps one after the other; a batch may hold windows of two images.

    Args:
      run: the finished run.
      windows: windows through which it processes images.
      jobs: the images.
      folder: folder of the maps.
      pictures: folder of the pictures; empty for none.
      coloured: whether the maps have a table of colours.
    """
    output = epath.Path(folder)
    opened = collections.deque[Raster]()
    rows = windows.logits_of_images(opened_images(run, jobs, opened), run.load())
    waiting = next(rows, None)
    for number, job in enumerate(jobs):
        raster, began = opened.popleft(), time.perf_counter()
        picture = Picture(job.size, run.legend, run.config.data.rgb) if pictures else None
        with raster, raster.written(output / job.output, run.legend, coloured) as written:
            while waiting and waiting[0] == number:
                _, top, logits = waiting
                labels = _labels(run, raster, job, top, logits)
                written.add(top, labels)
                if picture:
                    pixels, _ = taken(raster, job.bands, top, 0, top + len(labels), raster.width)
                    picture.add(top, image=pixels, prediction=labels)
                waiting = next(rows, None)
        if picture:
            picture.draw((epath.Path(pictures) / job.picture).with_suffix(""), job.path)
        size = "{:,} x {:,} pixels".format(*job.size)
        print(f"{output / job.output}  {size}, {time.perf_counter() - began:.1f} s", flush=True)


def _labels(run: SegmentationRun, raster: Raster, job: Job, top: int, logits: np.ndarray) -> np.ndarray:
    """The likeliest classes of some rows, and the ignored label for pixels not measured in any band."""
    labels = likeliest(logits).astype(run.legend.dtype)
    if raster.masked:
        _, measured = taken(raster, job.bands, top, 0, top + len(labels), raster.width)
        assert measured is not None
        labels[~measured.any(2)] = run.legend.ignore
    return labels
