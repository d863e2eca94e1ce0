"""Telling every pixel of images of any size: a task's network on windows, on all devices."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from scaling.evaluation.windows import Forward, Windows, reader
from scaling.parallel.batches import split_batch
from scaling.parallel.mesh import batch_sharding, replicated
from scaling.training.config import FinetuneConfig
from scaling.training.state import State
from scaling.training.step import TrainStep

Example = dict[str, Any]  # `image` [height, width, bands], and its targets


def pixel_forward(train_step: TrainStep, state: State, places: State) -> Forward:
    """Logits of every pixel of windows as they are stored, by a run's parameters, on its mesh.

    Args:
      train_step: of a task that tells pixels.
      state: parameters and what is kept beside them.
      places: how these lie on the devices: `train_step.formats`, or `shardings`.

    Returns:
      pixels [B, h, w, C], the same in all processes -> float32 [B, h, w, K], split over the devices on the way; B is
      divisible by their number.
    """
    inputs = places.params, train_step.beside(places), batch_sharding(train_step.mesh)
    objective: Any = train_step.objective
    tell = train_step.compiled(objective.pixel_logits, inputs, replicated(train_step.mesh))
    params, beside = state.params, train_step.beside(state)
    return lambda pixels: tell(params, beside, split_batch(pixels, train_step.mesh))


def windows_of(c: FinetuneConfig, stride: int, batch: int) -> Windows:
    """Windows of the size that the model takes; a stride of 0 is three quarters of that, as published."""
    size = c.model.image_shape
    down, right = (stride or max(length * 3 // 4, 1) for length in size)
    return Windows(size, (down, right), batch)


def told(examples: Iterable[Example], windows: Windows, forward: Forward) -> Iterator[tuple[Example, int, np.ndarray]]:
    """Logits of the pixels of whole images, read one after the other and let go when all of their rows are told.

    Yields:
      An example, top, and float32 [rows, width, K]; of every image downwards, all rows once.
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
