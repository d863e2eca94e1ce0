"""Classification of every pixel of images of any size: a task's network on windows, on all devices."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from etils import epath

from scaling.core.errors import UserError
from scaling.data.legend import Legend
from scaling.data.pipeline import eval_batches, whole_examples
from scaling.data.sources.base import Source
from scaling.data.targets import Masks, wanted
from scaling.evaluation.pictures import Picture
from scaling.evaluation.windows import Forward, Windows, likeliest, reader
from scaling.parallel import hosts
from scaling.parallel.batches import split_batch
from scaling.parallel.mesh import batch_sharding, replicated
from scaling.training.config import FinetuneConfig
from scaling.training.state import State
from scaling.training.step import TrainStep

PICTURED = 4  # test images drawn

Example = dict[str, Any]  # `image` [height, width, bands], and its targets


def forward_of(
    train_step: TrainStep, function: Callable[..., Any], state: State, places: State
) -> Callable[[np.ndarray], Any]:
    """A task's function of unnormalised windows, with a run's parameters, compiled on its mesh.

    Args:
      train_step: step of the task.
      function: its `pixel_logits` or `detections`; see `scaling.tasks.base.Task`.
      state: parameters and auxiliary trees.
      places: their placement on the devices: `train_step.formats` or `shardings`.

    Returns:
      A function from pixels [B, h, w, C], the same in all processes and with B divisible by the number of devices, to
      the function's whole result; the batch is split over the devices.
    """
    inputs = places.params, train_step.beside(places), batch_sharding(train_step.mesh)
    tell = train_step.compiled(function, inputs, replicated(train_step.mesh))
    params, beside = state.params, train_step.beside(state)
    return lambda pixels: tell(params, beside, split_batch(pixels, train_step.mesh))


def windows_of(c: FinetuneConfig, stride: int, batch: int) -> Windows:
    """Windows of the model's size; a stride of 0 is three quarters of it, as published."""
    size = c.model.image_shape
    down, right = (stride or max(length * 3 // 4, 1) for length in size)
    return Windows(size, (down, right), batch)


def told(examples: Iterable[Example], windows: Windows, forward: Forward) -> Iterator[tuple[Example, int, np.ndarray]]:
    """Logits of the pixels of whole images, which are read one after the other and released once all rows are done.

    Yields:
      An example, the first row, and float32 [rows, width, K]; every row of an image once, from the top.
    """
    waiting: dict[int, Example] = {}

    def images() -> Iterator[tuple[Any, int, int]]:
        for number, example in enumerate(examples):
            waiting[number] = example
            yield reader(example["image"]), *example["image"].shape[:2]

    for number, top, logits in windows.logits_of_images(images(), forward):
        example = waiting[number]
        if top + len(logits) == len(example["image"]):
            del waiting[number]
        yield example, top, logits


class PixelTest:
    """Pixel predictions for the images of a test split.

    Args:
      source: the test split.
      c: configuration of the run.
      train_step: step of the run.

    Raises:
      UserError: the split lacks a target of the task.
    """

    def __init__(self, source: Source, c: FinetuneConfig, train_step: TrainStep):
        self._source, self._c, self._train_step = source, c, train_step
        taken = wanted(source.info.all_targets, train_step.arrays, c.data.source)
        self._targets = tuple(target for target in taken if target.follows)
        self._pictures: dict[int, Picture] = {}  # pictures of the first images, by record

    def counts(self, state: State) -> dict[str, np.ndarray]:
        """`Task.pixel_counts` of every readable image at its stored size, stacked; every pixel counts once.

        Raises:
          UserError: no readable image.
        """
        task: Any = self._train_step.objective
        found: list[dict[str, np.ndarray]] = []
        self._pictures.clear()
        for example, top, logits in self._told(state, whole_examples(self._source, self._c.data, self._targets)):
            self._sketch(example, top, logits)
            rows = slice(top, top + len(logits))
            counts = task.pixel_counts(logits, {target.name: example[target.name][rows] for target in self._targets})
            if top:
                counts = {name: found.pop()[name] + x for name, x in counts.items()}
            found.append(counts)
        if not found:
            raise UserError(f"{self._c.data.source}, split {self._c.test_split}, has no readable image")
        return {name: np.stack([counts[name] for counts in found]) for name in found[0]}

    def draw(self, state: State, folder: epath.Path) -> list[epath.Path]:
        """Pictures of the first few images; see `scaling.evaluation.pictures`.

        Args:
          state: state for predictions not yet counted. All processes call this; the first one draws.
          folder: folder of the pictures.
        """
        if not self._pictures:
            for rows in self._told(state, self._resized()):
                self._sketch(*rows)
        drawn = [folder / f"{number}.png" for number in range(len(self._pictures) * hosts.is_first())]
        for path, (record, picture) in zip(drawn, self._pictures.items(), strict=False):
            picture.draw(path.with_suffix(""), self._source.name(record))
        return drawn

    def _told(self, state: State, examples: Iterable[Example]) -> Iterator[tuple[Example, int, np.ndarray]]:
        windows = windows_of(self._c, self._c.test_stride, self._c.batch_size)
        objective: Any = self._train_step.objective
        forward = forward_of(self._train_step, objective.pixel_logits, state, self._train_step.formats)
        return told(examples, windows, forward)

    def _sketch(self, example: Example, top: int, logits: np.ndarray) -> None:
        """Keeps a reduced picture of the first few images that have masks."""
        masks, record = self._source.info.target(Masks.name), int(example["id"])
        if masks is None or (record not in self._pictures and len(self._pictures) == PICTURED):
            return
        new = Picture(example["mask"].shape, Legend(masks.classes, masks.ignore), self._c.data.rgb)
        rows = slice(top, top + len(logits))
        self._pictures.setdefault(record, new).add(
            top, image=example["image"][rows], truth=example["mask"][rows], prediction=likeliest(logits)
        )

    def _resized(self) -> Iterator[Example]:
        """The first images of the split, resized as for the score if that is not computed on whole images."""
        c, targets, size = self._c, self._targets, self._c.model.image_shape
        data = dataclasses.replace(c.data, eval_split=c.test_split, eval_examples=PICTURED)
        names = ("image", "id", *(target.name for target in targets))
        for batch in eval_batches(self._source, data, image_size=size, batch_size=PICTURED, targets=targets):
            yield from ({name: batch[name][row] for name in names} for row in np.flatnonzero(batch["weight"]))
