"""What frozen features are worth: k-nearest-neighbour accuracy, beside that of the raw pixels.

    python -m scaling.probe --checkpoint=DIR [--source=SPEC] [--train_split=train] [--test_split=test] [--k=5] [--json]

The source is by default the one the encoder was trained on. Nothing is trained: the labels of the nearest training
images vote.
"""

import json

from absl import flags

from scaling import cli
from scaling.errors import UserError
from scaling.evaluation.encoder import load_encoder
from scaling.evaluation.knn import knn_accuracy
from scaling.evaluation.splits import labelled_features

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "The --workdir of a training run.")
_STEP = flags.DEFINE_integer("step", None, "Which checkpoint of it; the newest by default.")
_SOURCE = flags.DEFINE_string("source", None, "A labelled data source.")
_TRAIN = flags.DEFINE_string("train_split", "train", "Split whose labels vote.")
_TEST = flags.DEFINE_string("test_split", "test", "Split that is classified.")
_LIMIT = flags.DEFINE_integer("limit", 4000, "At most this many images of each split, 0 for all.")
_K = flags.DEFINE_integer("k", 5, "Number of neighbours.")
_METRIC = flags.DEFINE_string("metric", "cosine", "cosine or euclidean.")
_POOL = flags.DEFINE_string("pool", "mean", "cls, or mean over the patches.")
_JSON = flags.DEFINE_bool("json", False, "Print JSON.")


def main(argv: list[str]) -> None:
    del argv
    if not _CHECKPOINT.value:
        raise UserError("give --checkpoint=DIR, the --workdir of a training run")
    if _POOL.value not in ("cls", "mean"):
        raise UserError(f"--pool={_POOL.value}: cls or mean")
    encoder = load_encoder(_CHECKPOINT.value, _STEP.value)
    source = _SOURCE.value or encoder.train.data.source
    train, test = (
        labelled_features(encoder, source, split, _POOL.value, _LIMIT.value) for split in (_TRAIN.value, _TEST.value)
    )
    names = ("features", "raw pixels")
    result = {
        name: knn_accuracy(train[i], train[2], test[i], test[2], k=_K.value, metric=_METRIC.value)
        for i, name in enumerate(names)
    }
    if _JSON.value:
        print(json.dumps({"source": source, "k": _K.value, "metric": _METRIC.value, "accuracy": result}))
        return
    print(f"{_K.value}-NN accuracy on {source}, {len(train[2]):,} images to vote, {len(test[2]):,} to classify")
    for name, accuracy in result.items():
        print(f"  {name:<11} {accuracy['accuracy']:.1%} (mean of the classes {accuracy['macro_accuracy']:.1%})")


if __name__ == "__main__":
    cli.run(main)
