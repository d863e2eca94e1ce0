"""Flags of the commands that read an encoder from a checkpoint, whole, or cut and repaired."""

import dataclasses
import os

import numpy as np
from absl import flags

from scaling import cli
from scaling.evaluation.arrays import ENDINGS, read_images
from scaling.evaluation.bands import training_source
from scaling.evaluation.encoder import Encoder, describe_encoder, load_encoder
from scaling.evaluation.slimmed import slim, uses_images
from scaling.evaluation.splits import Split
from scaling.paths import user_path
from scaling.training.config import CutConfig


class EncoderFlags:
    """Defines the flags, and reads what they ask for once they are parsed."""

    def __init__(self) -> None:
        text, number = flags.DEFINE_string, flags.DEFINE_integer
        self._checkpoint = cli.define_path(
            "checkpoint", None, "The --workdir of a training run, or what scaling.convert wrote."
        )
        self._step = number("step", None, "Which checkpoint of it; the newest by default.")
        self._width = flags.DEFINE_float("width", 1.0, "Share of the width that is kept, in (0, 1].")
        self._slim = text("slim", "inner", "What is cut: inner, token, heads, branch, or axes joined by +.")
        self._ordering = text("ordering", "first", "Which units are kept: first, last, random, energy or svd.")
        self._recovery = text("recovery", "none", "What is repaired after the cut: none, mean or ridge.")
        self._calibration = text(
            "calibration",
            None,
            "Source of unlabelled images, or normalised ones as .npy; the training data by default.",
        )
        self._split = text("calibration_split", "train", "Which part of the --calibration source.")
        self._bands = flags.DEFINE_list("calibration_bands", [], "Its bands, by index or name, as --bands of features.")
        self._images = number("calibration_images", 256, "How many of them; 0: svd by weights alone.", lower_bound=0)
        self._seed = number("seed", 0, "Of --ordering=random.")

    @property
    def checkpoint(self) -> str | None:
        return self._checkpoint.value

    @property
    def cuts(self) -> bool:
        """Whether anything is cut or reordered."""
        return (self._width.value, self._ordering.value, self._recovery.value) != (1.0, "first", "none")

    def describe(self) -> Encoder:
        """The whole encoder without its parameters."""
        return describe_encoder(self._checkpoint.value, self._step.value)

    def load(self) -> Encoder:
        """The encoder, with what was cut noted in it.

        Raises:
          UserError: no such checkpoint, cut or calibration images.
        """
        width, mode = self._width.value, self._slim.value
        ordering, recovery = self._ordering.value, self._recovery.value
        if not self.cuts:
            return load_encoder(self._checkpoint.value, self._step.value)
        if (ordering, recovery) == ("first", "none"):
            small = load_encoder(self._checkpoint.value, self._step.value, width, mode)
            return small.after(self._cut(small))
        full = load_encoder(self._checkpoint.value, self._step.value)
        cut, images = self._cut(full), None
        if uses_images(ordering, recovery) and self._images.value:
            images, cut = self._calibrated(full, cut)
        return slim(full, width, mode, ordering, recovery, images, self._seed.value).after(cut)

    def _cut(self, encoder: Encoder) -> CutConfig:
        path = str(self._checkpoint.value)
        return CutConfig(
            checkpoint=path if "://" in path else os.path.abspath(path),
            step=encoder.step,
            width=self._width.value,
            slim=self._slim.value,
            ordering=self._ordering.value,
            recovery=self._recovery.value,
            seed=self._seed.value,
        )

    def _calibrated(self, encoder: Encoder, cut: CutConfig) -> tuple[np.ndarray, CutConfig]:
        """Unlabelled images, normalised, and the cut with where they come from."""
        source, limit = self._calibration.value, self._images.value
        if source and source.endswith(ENDINGS):
            source = str(user_path("calibration", source))
            images = read_images("calibration", source)[:limit]
            return images, dataclasses.replace(cut, calibration=source, calibration_images=len(images))
        split = self._split.value if source else encoder.train.data.split
        source = source or training_source(encoder, "--calibration")
        opened = Split(encoder, source, split, limit, bands=self._bands.value, option="--calibration_bands")
        images = np.concatenate([part.images for part in opened.parts()])
        about = dataclasses.replace(cut, calibration=source, calibration_split=split, calibration_bands=opened.bands)
        return images, dataclasses.replace(about, calibration_images=len(images))
