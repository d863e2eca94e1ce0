"""Flags of the commands that compare layers on unlabelled images."""

from collections.abc import Iterator, Sequence

import numpy as np
from absl import flags as absl_flags

from scaling.core.flags import Define, Flags
from scaling.encoders.bands import training_source
from scaling.encoders.encoder import Encoder
from scaling.encoders.similarity import TOKENS
from scaling.encoders.splits import Split

absl_flags.disclaim_key_flags()  # --help shows these as the command's own


def define_image_flags(define: Define, images: int = 512) -> None:
    """Defines the flags that `unlabelled` reads; `images` is the default number of images."""
    define.string("source", None, "Source of the unlabelled images; by default the training data.")
    define.string("split", "", "Split of the source; by default train, or the split that the encoder was trained on.")
    define.list("bands", [], "Bands of the source, by index or name; by default as the encoder was trained.")
    define.integer("images", images, "Number of images, spread evenly over the source; 0 for all.", lower_bound=0)


def define_unlabelled_flags(define: Define) -> None:
    """Defines the same flags and --tokens."""
    define_image_flags(define)
    define.enum("tokens", "all", TOKENS, "Tokens to compare: all, the mean of the patches, or the class token.")


def unlabelled(encoders: Sequence[Encoder], flags: Flags) -> list[Split]:
    """The images that the flags select, opened for each encoder with its size, bands and normalisation.

    Raises:
      UserError: see `Split`; or no source is given, and the first checkpoint does not name its own.
    """
    source, split = flags.source, flags.split or "train"
    if not source:
        source, split = training_source(encoders[0], "--source"), flags.split or encoders[0].train.data.split
    return [Split(encoder, source, split, flags.images, bands=flags.bands, option="--bands") for encoder in encoders]


def looked_at(split: Split) -> dict[str, object]:
    """The fields by which rows identify the images."""
    return {"source": split.source, "split": split.split, "images": split.images, "bands": split.bands}


def pixels(splits: Sequence[Split]) -> Iterator[tuple[np.ndarray, ...]]:
    """Normalised images of one split in parts, [n, h, w, C] for each encoder it was opened for."""
    for parts in zip(*(split.parts() for split in splits), strict=True):
        yield tuple(part.images for part in parts)
