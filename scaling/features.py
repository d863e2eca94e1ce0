"""Features of a pretrained encoder, at its full width or slimmed.

    python -m scaling.features --checkpoint=DIR --input=x.npy --output=y.npy [--pool=cls|mean|tokens]
    python -m scaling.features --checkpoint=DIR --source=folder:IMAGES --split=test --output=y.npy [--labels=labels.npy]
    python -m scaling.features … --width=0.25 [--slim=inner|token|heads|branch] [--ordering=svd] [--recovery=ridge]

`--input` holds float images [N, height, width, bands], already normalised. Images of a `--source` are resized, cropped
to the central square and normalised as in training. The output is float32 [N, D], or [N, T, D] with `--pool=tokens`.

A slimmed encoder is the published one (2601.22841) unless an ordering or a recovery is named. Those that need
unlabelled images take them from the data the encoder was trained on, or from `--calibration`: never from the images
whose features are asked for, so that two calls (training and test images) use one and the same encoder.
"""

import numpy as np
from absl import flags
from etils import epath

from scaling import cli
from scaling.errors import UserError
from scaling.evaluation.encoder import Encoder, load_encoder
from scaling.evaluation.slimmed import slim, uses_images
from scaling.evaluation.splits import read_split
from scaling.paths import check_file

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "The --workdir of a training run.")
_STEP = flags.DEFINE_integer("step", None, "Which checkpoint of it; the newest by default.")
_INPUT = flags.DEFINE_string("input", None, "Normalised images, .npy.")
_SOURCE = flags.DEFINE_string("source", None, "A data source, instead of --input.")
_SPLIT = flags.DEFINE_string("split", "train", "Which part of the source.")
_OUTPUT = flags.DEFINE_string("output", None, "Where the features go, .npy.")
_LABELS = flags.DEFINE_string("labels", None, "Where the labels of a source go, .npy.")
_POOL = flags.DEFINE_string("pool", "mean", "cls, mean (over the patches) or tokens.")
_WIDTH = flags.DEFINE_float("width", 1.0, "Share of the width that is kept, in (0, 1].")
_SLIM = flags.DEFINE_string("slim", "inner", "What is cut: inner, token, heads, branch, or axes joined by +.")
_ORDERING = flags.DEFINE_string("ordering", "first", "Which units are kept: first, last, random, energy or svd.")
_RECOVERY = flags.DEFINE_string("recovery", "none", "What is repaired after the cut: none, mean or ridge.")
_CALIBRATION = flags.DEFINE_string(
    "calibration", None, "Source of unlabelled images, or normalised ones as .npy; the training data by default."
)
_CALIBRATION_SPLIT = flags.DEFINE_string("calibration_split", "train", "Which part of the --calibration source.")
_CALIBRATION_IMAGES = flags.DEFINE_integer("calibration_images", 256, "How many of them; 0: svd by weights alone.")
_SEED = flags.DEFINE_integer("seed", 0, "Of --ordering=random.")


def main(argv: list[str]) -> None:
    del argv
    if not _CHECKPOINT.value or not _OUTPUT.value or (_INPUT.value is None) == (_SOURCE.value is None):
        raise UserError("give --checkpoint=DIR, --output=FILE and either --input=FILE or --source=SPEC")
    for flag in (_OUTPUT, _LABELS):
        if flag.value:
            check_file(flag.name, flag.value)
    encoder = _encoder(_CHECKPOINT.value)
    source = _SOURCE.value
    features = _from_source(encoder, source) if source else encoder.features(_load("input", _INPUT.value), _POOL.value)
    _save(_OUTPUT.value, features)
    print(f"{list(features.shape)} features in {_OUTPUT.value}")


def _encoder(checkpoint: str) -> Encoder:
    ordering, recovery = _ORDERING.value, _RECOVERY.value
    if (ordering, recovery) == ("first", "none"):
        return load_encoder(checkpoint, _STEP.value, _WIDTH.value, _SLIM.value)
    full = load_encoder(checkpoint, _STEP.value)
    images = _calibration_images(full) if uses_images(ordering, recovery) and _CALIBRATION_IMAGES.value else None
    return slim(full, _WIDTH.value, _SLIM.value, ordering, recovery, images, _SEED.value)


def _calibration_images(encoder: Encoder) -> np.ndarray:
    source, limit = _CALIBRATION.value, _CALIBRATION_IMAGES.value
    if source and source.endswith(".npy"):
        return _load("calibration", source)[:limit]
    split = _CALIBRATION_SPLIT.value if source else encoder.train.data.split
    return np.concatenate(
        [images for images, _ in read_split(encoder, source or encoder.train.data.source, split, limit)]
    )


def _from_source(encoder: Encoder, source: str) -> np.ndarray:
    features, labels = [], []
    for images, label in read_split(encoder, source, _SPLIT.value):
        features.append(encoder.features(images, _POOL.value))
        labels.append(label)
    if _LABELS.value:
        _save(_LABELS.value, np.concatenate(labels))
    return np.concatenate(features)


def _load(flag: str, path: str | None) -> np.ndarray:
    try:
        with epath.Path(path).open("rb") as f:
            images = np.load(f, allow_pickle=False)
    except (OSError, ValueError) as e:
        raise UserError(f"--{flag}={path} cannot be read as .npy: {e}") from e
    if not np.issubdtype(images.dtype, np.floating):
        raise UserError(f"--{flag}={path} is {images.dtype}; give normalised float images, or the files as --source")
    return images


def _save(path: str, array: np.ndarray) -> None:
    with epath.Path(path).open("wb") as f:
        np.save(f, array)


if __name__ == "__main__":
    cli.run(main)
