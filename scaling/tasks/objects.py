"""Detection in whole test images of any size, through tiles on all devices."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from etils import epath

from scaling.boxes.convert import corners
from scaling.core.errors import UserError
from scaling.data.pipeline import eval_batches, whole_examples
from scaling.data.sources.base import Source
from scaling.data.targets import Boxes, Quadrilaterals, wanted
from scaling.data.tiling import Tiling
from scaling.evaluation.box_pictures import BoxPicture, FoundBoxes
from scaling.evaluation.windows import reader
from scaling.parallel import hosts
from scaling.tasks.detected import rows_of
from scaling.tasks.finding import Tell, check_scores, found_in_images, inside, merged_boxes
from scaling.tasks.pixels import PICTURED, forward_of
from scaling.training.config import FinetuneConfig
from scaling.training.state import State
from scaling.training.step import TrainStep

SHARED = 200 / 1024  # share of a tile that overlaps the next one, as DOTA is cut
_ROOM = 1 << 14  # largest number of objects in a resized image: more than any data set has

Example = dict[str, Any]  # `image` [height, width, bands], and `boxes`


def tiling_of(c: FinetuneConfig, stride: int, rates: tuple[float, ...] = (1.0,)) -> Tiling:
    """Squares of the size that the model takes; a stride of 0 is 824 of 1024 pixels, as DOTA is cut.

    Raises:
      UserError: the model does not take squares.
    """
    height, width = c.model.image_shape
    if height != width:
        raise UserError(
            f"image_width={width}: whole images are processed in square tiles, not in {height} x {width}; leave it out"
        )
    return Tiling(width, width - stride if stride else round(width * SHARED), rates)


class ObjectTest:
    """Detections on the images of a test split.

    Args:
      source: the test split.
      c: configuration of the run.
      train_step: step of the run.

    Raises:
      UserError: the split lacks boxes.
    """

    def __init__(self, source: Source, c: FinetuneConfig, train_step: TrainStep):
        self._source, self._c, self._train_step = source, c, train_step
        taken = wanted(source.info.all_targets, train_step.arrays, c.data.source)
        self._targets = tuple(target for target in taken if target.follows)

    def rows(self, state: State) -> dict[str, np.ndarray]:
        """Detections and true objects of every readable image, see `scaling.tasks.detected`; images are whole or
        resized.

        Raises:
          UserError: no readable image.
        """
        told = list(self._told(state, self._whole()) if self._c.tests_whole_images else self._resized(state))
        if not told:
            raise UserError(f"{self._c.data.source}, split {self._c.test_split}, has no readable image")
        return rows_of([found for _, found in told], [example["boxes"] for example, _ in told])

    def draw(self, state: State, folder: epath.Path) -> list[epath.Path]:
        """Pictures of the first few images; see `scaling.evaluation.box_pictures`. All processes call this; the first
        one draws.
        """
        task: Any = self._train_step.objective
        whole = self._c.tests_whole_images
        first = self._told(state, self._first(), keep=True) if whole else self._resized(state, PICTURED)
        drawn = []
        for number, (example, found) in enumerate(first):
            path = folder / f"{number}.png"
            if hosts.is_first():
                picture = BoxPicture(example["image"].shape[:2], task.task.classes, self._c.data.rgb)
                picture.add(0, example["image"])
                title = self._source.name(int(example["id"]))
                picture.draw(path.with_suffix(""), found, example["boxes"], title, rules=task.rules)
                drawn.append(path)
        return drawn

    def _whole(self) -> Iterator[Example]:
        return whole_examples(self._source, self._c.data, self._targets)

    def _first(self) -> Iterator[Example]:
        return (example for _, example in zip(range(PICTURED), self._whole(), strict=False))

    def _tell(self, state: State) -> Tell:
        objective: Any = self._train_step.objective
        return forward_of(self._train_step, objective.detections, state, self._train_step.formats)

    def _resized(self, state: State, images: int = 0) -> Iterator[tuple[Example, FoundBoxes]]:
        """The first images of the split, or all, resized like those for monitoring."""
        c, tell = self._c, self._tell(state)
        data = dataclasses.replace(c.data, eval_split=c.test_split, eval_examples=images)
        sizes: Any = {"image_size": c.model.image_shape, "batch_size": c.batch_size}
        targets = [dataclasses.replace(target, most=_ROOM) for target in self._targets if isinstance(target, Boxes)]
        for batch in eval_batches(self._source, data, targets=targets, **sizes):
            assert not batch["box_overflow"].any()  # it would hide objects from the scores
            told = {name: np.asarray(x) for name, x in tell(batch["image"]).items()}
            for row in np.flatnonzero(batch["weight"]):
                check_scores(told["scores"][row])
                boxes = Quadrilaterals(*(batch[name][row] for name in Boxes.arrays[:3]))
                there, valid = boxes.taken(batch["box_valid"][row]), told["valid"][row]
                found = FoundBoxes(corners(told["boxes"][row]), told["scores"][row], told["labels"][row]).taken(valid)
                yield {"image": batch["image"][row], "id": batch["id"][row], "boxes": there}, found

    def _told(
        self, state: State, examples: Iterable[Example], keep: bool = False
    ) -> Iterator[tuple[Example, FoundBoxes]]:
        """The objects of whole images, one after the other; `keep` adds the pixels."""
        waiting: dict[int, tuple[Example, tuple[int, ...]]] = {}

        def images() -> Iterator[tuple[Any, int, int]]:
            for number, example in enumerate(examples):
                image = example["image"]
                waiting[number] = example if keep else {**example, "image": None}, image.shape[:2]
                yield reader(image), *image.shape[:2]

        tiling = tiling_of(self._c, self._c.test_stride)
        for number, found in found_in_images(images(), tiling, self._c.batch_size, self._tell(state)):
            example, size = waiting.pop(number)
            yield example, merged_boxes(found.taken(inside(found, size)))
