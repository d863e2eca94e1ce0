"""Features of a pretrained encoder.

    python -m scaling.features --checkpoint=DIR --input=x.npy --output=y.npy [--pool=cls|mean|tokens]
    python -m scaling.features --checkpoint=DIR --source=folder:IMAGES --split=test --output=y.npy [--labels=labels.npy]

`--input` holds float images [N, height, width, bands], already normalised. Images of a `--source` are resized, cropped
to the central square and normalised as in training. The output is float32 [N, D], or [N, T, D] with `--pool=tokens`.
"""

import numpy as np
from absl import flags
from etils import epath

from scaling import cli
from scaling.errors import UserError
from scaling.evaluation.encoder import Encoder, load_encoder
from scaling.evaluation.splits import read_split

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "The --workdir of a training run.")
_STEP = flags.DEFINE_integer("step", None, "Which checkpoint of it; the newest by default.")
_INPUT = flags.DEFINE_string("input", None, "Normalised images, .npy.")
_SOURCE = flags.DEFINE_string("source", None, "A data source, instead of --input.")
_SPLIT = flags.DEFINE_string("split", "train", "Which part of the source.")
_OUTPUT = flags.DEFINE_string("output", None, "Where the features go, .npy.")
_LABELS = flags.DEFINE_string("labels", None, "Where the labels of a source go, .npy.")
_POOL = flags.DEFINE_string("pool", "mean", "cls, mean (over the patches) or tokens.")


def main(argv: list[str]) -> None:
    del argv
    if not _CHECKPOINT.value or not _OUTPUT.value or (_INPUT.value is None) == (_SOURCE.value is None):
        raise UserError("give --checkpoint=DIR, --output=FILE and either --input=FILE or --source=SPEC")
    encoder = load_encoder(_CHECKPOINT.value, _STEP.value)
    source = _SOURCE.value
    features = _from_source(encoder, source) if source else encoder.features(_load(_INPUT.value), _POOL.value)
    _save(_OUTPUT.value, features)
    print(f"{list(features.shape)} features in {_OUTPUT.value}")


def _from_source(encoder: Encoder, source: str) -> np.ndarray:
    features, labels = [], []
    for images, label in read_split(encoder, source, _SPLIT.value):
        features.append(encoder.features(images, _POOL.value))
        labels.append(label)
    if _LABELS.value:
        _save(_LABELS.value, np.concatenate(labels))
    return np.concatenate(features)


def _load(path: str | None) -> np.ndarray:
    try:
        with epath.Path(path).open("rb") as f:
            images = np.load(f, allow_pickle=False)
    except (OSError, ValueError) as e:
        raise UserError(f"--input={path} cannot be read as .npy: {e}") from e
    if not np.issubdtype(images.dtype, np.floating):
        raise UserError(f"--input={path} is {images.dtype}; give normalised float images, or the files as --source")
    return images


def _save(path: str, array: np.ndarray) -> None:
    try:
        with epath.Path(path).open("wb") as f:
            np.save(f, array)
    except OSError as e:
        raise UserError(f"{path} cannot be written: {e.strerror}") from e


if __name__ == "__main__":
    cli.run(main)
