"""Flags of the commands that look at unlabelled images, whose layers are compared."""

from collections.abc import Iterator

import numpy as np
from absl import flags as absl_flags

from scaling.core.flags import Define, Flags
from scaling.encoders.bands import training_source
from scaling.encoders.encoder import Encoder
from scaling.encoders.similarity import TOKENS
from scaling.encoders.splits import Split

absl_flags.disclaim_key_flags()  # --help shows these as the command's own


def define_unlabelled_flags(define: Define) -> None:
    """Defines the flags that `unlabelled` reads, and --tokens."""
    define.string("source", None, "Source of the unlabelled images; the training data by default.")
    define.string("split", "train", "Which part of the --source.")
    define.list("bands", [], "Its bands, by index or name; by default as the encoder was trained.")
    define.integer("images", 512, "How many of them, drawn evenly; 0 for all.", lower_bound=0)
    define.enum("tokens", "all", TOKENS, "What is compared: all tokens, the mean of the patches, or the class token.")


def unlabelled(encoder: Encoder, flags: Flags) -> Split:
    """The images that the flags ask for, opened for an encoder.

    Raises:
      UserError: see `Split`; or an imported checkpoint, which does not say what it was trained on.
    """
    source, split = flags.source, flags.split
    if not source:
        source, split = training_source(encoder, "--source"), encoder.train.data.split
    return Split(encoder, source, split, flags.images, bands=flags.bands, option="--bands")


def pixels(split: Split) -> Iterator[np.ndarray]:
    """Normalised images of a split in parts, [n, h, w, C]."""
    for part in split.parts():
        yield part.images
