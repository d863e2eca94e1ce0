"""Unlabelled calibration images for orderings and repairs of a slimming study: their source, and the choice for
each seed.
"""

import numpy as np

from scaling.core.errors import UserError
from scaling.data.sources.registry import open_source
from scaling.encoders.bands import training_source
from scaling.encoders.encoder import Encoder
from scaling.encoders.splits import Split, gathered
from scaling.studies.slimming.cells import PRETRAINING, PROBED, SlimmingStudyConfig

_OPTION = "calibration_source"


def check_calibration(encoder: Encoder, c: SlimmingStudyConfig) -> None:
    """Opens the source of calibration images, if one is needed.

    Raises:
      UserError: it does not exist, does not fit the encoder, or has too few images.
    """
    if c.calibrates and c.calibration_source != PROBED:
        _opened(encoder, c, c.seeds[0])


def calibration_images(encoder: Encoder, c: SlimmingStudyConfig, probed: np.ndarray, seed: int) -> np.ndarray | None:
    """Normalised images [N, h, w, C], different for every seed if there are enough; None if nothing uses them.

    Args:
      encoder: the full encoder.
      c: the settings, with their number and source.
      probed: the training images of the probed data set.
      seed: seed that selects the images.

    Raises:
      UserError: see `check_calibration`.
    """
    if not c.calibrates:
        return None
    if c.calibration_source == PROBED:
        chosen = np.random.default_rng(seed).permutation(len(probed))[: c.calibration]
        return probed[np.sort(chosen)]
    opened = _opened(encoder, c, seed)
    images, _ = gathered(((part.images, part.records) for part in opened.parts()), opened.images)
    return images


def _opened(encoder: Encoder, c: SlimmingStudyConfig, seed: int) -> Split:
    """The images of a seed: consecutive blocks of the fixed order of parts of a split."""
    pretraining = c.calibration_source in ("", PRETRAINING)
    try:
        source = training_source(encoder, _OPTION) if pretraining else c.calibration_source
        split = encoder.train.data.split if pretraining else c.calibration_split
        total = len(open_source(source, split))
        if total < c.calibration:
            raise UserError(
                f"{source}, split {split}, has {total:,} images, but calibration={c.calibration} needs more"
            )
        start = seed * c.calibration % (total - c.calibration + 1)
        return Split(encoder, source, f"({split})[{start}:{start + c.calibration}]", option=_OPTION)
    except UserError as e:
        raise UserError(
            f"{_OPTION}={c.calibration_source or PRETRAINING}: {e}; give the spec of another source, or {PROBED} for "
            "training images of the probed data set"
        ) from e
