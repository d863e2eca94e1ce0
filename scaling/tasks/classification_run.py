"""A finished classification run, for the classes of unseen images, and the table of its predictions."""

import contextlib
import csv
import dataclasses
import io
import logging
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from scipy import special

from scaling.core.errors import UserError
from scaling.core.files import whole_file, write_csv
from scaling.core.paths import BEST
from scaling.data.arrays import normalise
from scaling.data.images import CorruptImage, checked, samples
from scaling.data.pipeline import Skipped, eval_batches
from scaling.data.sources.base import Info, Stored
from scaling.data.sources.registry import open_source
from scaling.data.spot_checks import few_images, layout_of, warn_of_masks
from scaling.encoders.bands import bands_of, training_dtype
from scaling.evaluation.windows import Forward
from scaling.tasks.classification import Labelling
from scaling.tasks.finished_run import FinishedRun
from scaling.tasks.pixels import forward_of
from scaling.tasks.slimmable import SlimmableLabelling
from scaling.tasks.unseen import check_dtype, check_units

log = logging.getLogger(__name__)

CLASSES = "classes.csv"  # in a working directory: the names of the labels


class ImageFiles(Stored):
    """Image files without labels.

    Args:
      files: path and name of each.
    """

    def __init__(self, files: Sequence[tuple[str, str]]):
        self.info, self._files = Info(), files

    def __len__(self) -> int:
        return len(self._files)

    def stored(self, index: int) -> tuple[bytes, int]:
        """The bytes of the file and no label."""
        try:
            return epath.Path(self._files[index][0]).read_bytes(), -1
        except OSError as error:
            raise CorruptImage(self.name(index), error.strerror or str(error)) from error

    def stored_dtype(self, read: np.dtype) -> np.dtype:
        """Data type of the pixels in the file of the first image whose decoded dtype is `read`."""
        for index in range(len(self)):
            with contextlib.suppress(CorruptImage):
                stored = samples(self.stored(index)[0], self.name(index))
                if checked(stored, self.name(index)).dtype == read:
                    return stored.dtype
        return read

    def name(self, index: int) -> str:
        return self._files[index][1]


class ImageArrays(Stored):
    """Images in memory without labels: each [height, width, bands]; named by their index."""

    def __init__(self, images: np.ndarray):
        self.info, self._images = Info(), images

    def __len__(self) -> int:
        return len(self._images)

    def stored(self, index: int) -> tuple[np.ndarray, int]:
        """The pixels and no label."""
        return self._images[index], -1

    def stored_dtype(self, read: np.dtype) -> np.dtype:
        """Data type of the pixels."""
        return self._images.dtype

    def name(self, index: int) -> str:
        return str(index)


Unlabelled = ImageFiles | ImageArrays


class Told(NamedTuple):
    """Predictions for some images: their indices [b], and the probability of every class float32 [b, K]."""

    records: np.ndarray
    probabilities: np.ndarray


class ClassificationRun(FinishedRun):
    """See `FinishedRun`."""

    @property
    def task(self) -> Labelling:
        if isinstance(self.config.task, SlimmableLabelling):
            return self.config.task.labelling
        assert isinstance(self.config.task, Labelling)
        return self.config.task

    def check_width(self, where: str, width: float) -> None:
        """Raises UserError for a width that the run has not trained."""
        if width == 1:
            return
        if not isinstance(self.config.task, SlimmableLabelling):
            raise UserError(
                f"{where}={width:g}: this run was trained at full width alone; fine-tune with finetune_slimmable.py, "
                "or a cut encoder"
            )
        trained = [cut.width for cut in self.config.task.trained(self.config.model)]
        if not np.isclose(trained, width).any():
            raise UserError(
                f"{where}={width:g}: must be one of the trained widths {', '.join(map('{:g}'.format, trained))}, 1"
            )

    def classes(self) -> tuple[str, ...]:
        """Class names: those that the run stored, else those of its source, else numbers."""
        folder = epath.Path(self.checkpoint)
        kept = (folder.parent if folder.name == BEST else folder) / CLASSES
        if kept.exists():
            return tuple(row["name"] for row in csv.DictReader(io.StringIO(kept.read_text(), newline="")))
        data = self.config.data
        try:
            names = open_source(data.source, data.split).info.classes
        except UserError:
            names = ()
        if len(names) == self.task.classes:
            return names
        log.warning("%s does not name its classes: their numbers are used", self.checkpoint)
        return tuple(map(str, range(self.task.classes)))

    def checked_bands(self, source: Unlabelled, where: str, asked: Sequence[str]) -> tuple[int, ...]:
        """The bands to take from images; see `scaling.encoders.bands`.

        Raises:
          UserError: bands or dtype differ from the training's, or no image can be read.
        """
        images = few_images(source)
        bands = bands_of(self.encoder, source, where, list(asked), option="--bands", images=images)
        _, there = layout_of(images, bands)
        warn_of_masks(where, images)
        check_dtype(where, source.stored_dtype(there), training_dtype(self.encoder))
        return bands

    def told(
        self, source: Unlabelled, bands: tuple[int, ...], on_each_device: int, width: float = 1.0
    ) -> Iterator[Told]:
        """Predictions for every readable image, processed like the run's test images; others are named in the log.
        `width`: the width of the network, one of those that the run has trained.

        Raises:
          UserError: the images are in other units than the training's.
        """
        train_step, state = self.restored()
        objective: Any = train_step.objective

        at_width = objective.logits if width == 1 else objective.logits_at(width)

        def logits(params: Any, extra: dict[str, Any], images: jax.Array) -> jax.Array:
            found: jax.Array = at_width(params, images)
            return found

        forward: Forward = forward_of(train_step, logits, state, train_step.shardings)
        own = self.config.data
        data = dataclasses.replace(own, fraction=1.0, bands=bands, eval_source="files", eval_split="", eval_examples=0)
        size, count = self.config.model.image_shape, on_each_device * jax.device_count()
        skipped = Skipped(source, data)
        for batch in eval_batches(source, data, image_size=size, batch_size=count):
            real, images = batch["weight"] > 0, batch["image"]
            skipped.warn(batch)
            if not real.any():
                continue
            first = source.name(int(batch["id"][real][0]))
            check_units(first, normalise(images[real], own.mean, own.std), "its pixels and those read with it")
            yield Told(batch["id"][real], self._probabilities(np.asarray(jax.device_get(forward(images)))[real]))

    def _probabilities(self, logits: np.ndarray) -> np.ndarray:
        if bad := int((~np.isfinite(logits)).any(1).sum()):  # their likeliest class would be the first
            raise UserError(
                f"--checkpoint={self.checkpoint}: returns NaN or infinity for {bad:,} of {len(logits):,} images; give "
                "images in the units of the training, or another --step"
            )
        return np.asarray(special.expit(logits) if self.task.multi_label else special.softmax(logits, axis=1))


def chosen(probabilities: np.ndarray, several: bool) -> list[int]:
    """Classes of an image by their probabilities [K]: the likeliest, or all above one half."""
    return np.flatnonzero(probabilities > 0.5).tolist() if several else [int(probabilities.argmax())]


def files_of(images: Sequence[tuple[str, str]]) -> ImageFiles:
    """The images of `scaling.tasks.unseen.image_files`, named with their ending."""
    return ImageFiles([(path, f"{name}{path[path.rindex('.') :]}") for path, name in images])


def write_classes(file: epath.PathLike, classes: Sequence[str]) -> None:
    """Writes the class names of a run's labels."""
    write_csv(file, [("index", "name"), *enumerate(classes)])


def in_order(told: Sequence[Told]) -> tuple[np.ndarray, np.ndarray]:
    """Records [N] of all images in ascending order, and their probabilities [N, K]."""
    records = np.concatenate([part.records for part in told])
    order = np.argsort(records)
    return records[order], np.concatenate([part.probabilities for part in told])[order]


def write_told(
    file: epath.PathLike, source: ImageFiles, told: Sequence[Told], classes: Sequence[str], several: bool
) -> None:
    """Writes a table of images in the order of their names: `file`, `class`, and the probability `p_NAME` of every
    class. With `several` labels per image, `class` lists all above one half, separated by `;`.
    """
    records, probabilities = in_order(told)
    with whole_file(file) as aside, aside.open("w", newline="", errors="backslashreplace") as f:
        table = csv.writer(f, lineterminator="\n")
        table.writerow(("file", "class", *(f"p_{name}" for name in classes)))
        for record, row in zip(records.tolist(), probabilities, strict=True):
            mine = ";".join(classes[k] for k in chosen(row, several))
            table.writerow((source.name(record), mine, *map("{:.6g}".format, row)))
