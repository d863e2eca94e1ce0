"""Flags of the commands that read an encoder from a checkpoint, whole, or cut and repaired."""

import dataclasses
import os

import numpy as np
from absl import flags as absl_flags

from scaling.core.files import in_bucket
from scaling.core.flags import Define, Flags
from scaling.core.paths import user_path
from scaling.data.arrays import ENDINGS, read_images
from scaling.encoders.bands import training_source
from scaling.encoders.calibration import images_used
from scaling.encoders.encoder import Encoder
from scaling.encoders.loading import describe_encoder, load_encoder
from scaling.encoders.slimmed import slim, uses_images
from scaling.encoders.splits import Split
from scaling.training.stored_config import CutConfig

absl_flags.disclaim_key_flags()  # --help shows these as the command's own


def define_encoder_flags(define: Define) -> None:
    """Defines the flags that `EncoderFlags` reads."""
    define.path("checkpoint", None, "The --workdir of a run, or a checkpoint of scaling.convert.")
    define.integer("step", None, "Step of the checkpoint; the newest by default.")
    define.float("width_ratio", 1.0, "Fraction of the width to keep, in (0, 1].")
    define.string("mode", "inner", "Mode of the cut: inner, token, heads, branch, or axes joined by +.")
    define.string("ordering", "first", "Units to keep: first, last, random, energy or svd.")
    define.string("recovery", "none", "Repair after the cut: none, mean or ridge.")
    define.string(
        "calibration", None, "Source of unlabelled images, or .npy of normalised ones; by default the training data."
    )
    define.string("calibration_split", "train", "Split of the --calibration source.")
    define.list("calibration_bands", [], "Bands of the --calibration source, by index or name.")
    define.integer(
        "calibration_images", 256, "Number of calibration images; 0: svd of the weights alone.", lower_bound=0
    )
    define.integer("seed", 0, "Seed of --ordering=random.")


class EncoderFlags:
    """The encoder that the flags select."""

    def __init__(self, flags: Flags) -> None:
        self._flags = flags

    @property
    def checkpoint(self) -> str | None:
        return self._flags.checkpoint

    @property
    def cuts(self) -> bool:
        """Whether the flags cut or reorder the encoder."""
        return (self._flags.width_ratio, self._flags.ordering, self._flags.recovery) != (1.0, "first", "none")

    def describe(self) -> Encoder:
        """The whole encoder without its parameters."""
        return describe_encoder(self._flags.checkpoint, self._flags.step)

    def load(self) -> Encoder:
        """The encoder, with a record of its cut.

        Raises:
          UserError: no such checkpoint, cut or calibration images.
        """
        width_ratio, mode = self._flags.width_ratio, self._flags.mode
        ordering, recovery = self._flags.ordering, self._flags.recovery
        if not self.cuts:
            return load_encoder(self._flags.checkpoint, self._flags.step)
        if (ordering, recovery) == ("first", "none"):
            small = load_encoder(self._flags.checkpoint, self._flags.step, width_ratio, mode)
            return small.after(self._cut(small))
        full = load_encoder(self._flags.checkpoint, self._flags.step)
        cut, images = self._cut(full), None
        if uses_images(ordering, recovery) and self._flags.calibration_images:
            images, cut = self._calibrated(full, cut)
        return slim(full, width_ratio, mode, ordering, recovery, images, self._flags.seed).after(cut)

    def _cut(self, encoder: Encoder) -> CutConfig:
        path = str(self._flags.checkpoint)
        return CutConfig(
            checkpoint=path if in_bucket(path) else os.path.abspath(path),
            step=encoder.step,
            width_ratio=self._flags.width_ratio,
            mode=self._flags.mode,
            ordering=self._flags.ordering,
            recovery=self._flags.recovery,
            seed=self._flags.seed,
        )

    def _calibrated(self, encoder: Encoder, cut: CutConfig) -> tuple[np.ndarray, CutConfig]:
        """Unlabelled images, normalised, and the cut with their origin."""
        source, limit = self._flags.calibration, self._flags.calibration_images
        if source and source.endswith(ENDINGS):
            source = str(user_path("calibration", source))
            images = read_images("calibration", source)[:limit]
            encoder.check_normalised(images, f"--calibration={source}")
            return images, dataclasses.replace(cut, calibration=source, calibration_images=images_used(len(images)))
        split = self._flags.calibration_split if source else encoder.train.data.split
        source = source or training_source(encoder, "--calibration")
        opened = Split(encoder, source, split, limit, bands=self._flags.calibration_bands, option="--calibration_bands")
        images = np.concatenate([part.images for part in opened.parts()])
        about = dataclasses.replace(cut, calibration=source, calibration_split=split, calibration_bands=opened.bands)
        return images, dataclasses.replace(about, calibration_images=images_used(len(images)))
