"""Predictions of fine-tuned models."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from etils import epath
from numpy.typing import ArrayLike

from scaling.api.checks import Source, checked
from scaling.core.errors import UserError
from scaling.core.paths import user_path
from scaling.encoders.images import as_array
from scaling.objectives import TASKS
from scaling.tasks.base import TaskConfig
from scaling.tasks.classification_run import ClassificationRun, ImageArrays, Unlabelled, chosen, files_of, in_order
from scaling.tasks.finetuning import Finetuned
from scaling.tasks.finished_run import finished_config
from scaling.tasks.unseen import image_files


class Predicted(NamedTuple):
    """Predictions for the readable images.

    Attributes:
      names: names of the N files; for an array, the indices of its images as text.
      predicted: class of each image; for multi-label models, the tuple of all classes with a probability above 0.5.
      probabilities: float32 [N, K].
      classes: names of the K classes.
    """

    names: list[str]
    predicted: list[Any]
    probabilities: np.ndarray
    classes: tuple[str, ...]

    def __repr__(self) -> str:
        """Short, for notebooks."""
        return f"Predicted({len(self.names):,} images, {len(self.classes)} classes)"


@checked
def predict(
    path: epath.PathLike | Finetuned,
    images: ArrayLike | Source,
    step: int | None = None,
    *,
    bands: Sequence[int | str] = (),
    width_ratio: float = 1.0,
) -> Predicted:
    """Classes of images by a fine-tuned classifier, like the command `scaling predict`.

    Args:
      path: working directory of `finetune`; or the result of `finetune`, for the model that it scored.
      images: pixels [N, h, w, C] with the dtype and in the units of the training data; or the path of an image or a
        folder of images. They are resized and cropped to the central part, like the test images of the run.
      step: step of the checkpoint; by default the newest, or the one that was scored.
      bands: bands of the images, by index or name; by default those of the training.
      width_ratio: width of the network, one of those that a slimmable classifier was trained at.

    Raises:
      UserError: a run that is not a classifier, or images that do not fit it or cannot be read.

    >>> encoder = scaling.load("runs/tiny")
    >>> fields = {"epochs": 1.0, "warmup_epochs": 0.0, "batch_size": 16, "test_split": "test[:32]"}
    >>> fields |= {"data.source": "scenes?size=16&count=64", "data.split": "train"}
    >>> tuned = scaling.finetune(encoder, "finetune.py", "runs/classifier", fields)
    >>> found = scaling.predict(tuned, images)  # or scaling.predict("runs/classifier", images)
    >>> found
    Predicted(64 images, 10 classes)
    >>> found.predicted[0] == found.classes[found.probabilities[0].argmax()]
    True
    """
    if isinstance(path, Finetuned):
        step, path = int(path.trained.state.step) if step is None else step, path.path
    folder = user_path("checkpoint", path)
    config = finished_config(folder, step, TASKS)
    if "label" not in cast(TaskConfig, config.task).takes:
        raise UserError(f"--checkpoint={path}: is a run of {config.task.name}; the command scaling predict applies it")
    run = ClassificationRun(folder, step, config)
    run.check_width("width_ratio", width_ratio)
    source: Unlabelled
    if isinstance(images, str | os.PathLike):
        where = os.fspath(user_path("input", images))
        source = files_of(image_files(where))
    else:
        where, array = "images", as_array(images)
        if array.ndim != 4 or not len(array):
            raise UserError(f"images of shape {list(array.shape)}: must be [N, h, w, C]; one image is image[None]")
        source = ImageArrays(array)
    told = list(run.told(source, run.checked_bands(source, where, list(map(str, bands))), 4, width_ratio))
    if not told:
        raise UserError(f"--input={where}: no image can be read")
    records, probabilities = in_order(told)
    classes, several = run.classes(), run.task.multi_label
    called = [tuple(classes[k] for k in chosen(row, several)) for row in probabilities]
    names = [source.name(int(record)) for record in records]
    return Predicted(names, called if several else [one for (one,) in called], probabilities, classes)
