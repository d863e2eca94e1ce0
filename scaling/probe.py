"""Scores frozen features by nearest neighbours or logistic regression, next to the same probe on raw pixels.

    python -m scaling.probe --checkpoint=DIR [--source=SPEC] [--train_split=train] [--test_split=test] [--k=5] [--json]
    python -m scaling.probe --checkpoint=DIR --probe=linear [--validation_split=validation] [--controls]

The source is by default the training data of the encoder; if it has no test split, the probe is trained on four fifths
of the images and scored on the rest. --probe=knn trains nothing: the labels of the nearest training images vote.
--probe=linear chooses its regularisation on --validation_split, by default on a fifth of the training images.
--noraw_pixels skips the probe on raw pixels, which is slow for many or large images. For images with several labels the
score is mean average precision. The intervals are bootstrap intervals over the test images.
"""

import functools
import json

from rich.progress import track

from scaling import cli
from scaling.core.console import console
from scaling.core.errors import UserError
from scaling.data.config import DataConfig
from scaling.data.sources.default_splits import default_splits
from scaling.data.sources.registry import open_source, stored_spec
from scaling.data.statistics import band_statistics
from scaling.encoders.bands import bands_of, training_source
from scaling.encoders.controls import CONTROLS, FeatureFunction
from scaling.encoders.loading import load_encoder
from scaling.encoders.splits import labelled_features
from scaling.evaluation.probes import PROBES
from scaling.evaluation.scores import Predictions
from scaling.evaluation.summary import summary


def define_flags(define: cli.Define) -> None:
    define.path("checkpoint", None, "The --workdir of a training run.")
    define.integer("step", None, "Step of the checkpoint; the newest by default.")
    define.string("source", None, "A labelled data source.")
    define.string("train_split", "train", "Split that the probe learns from.")
    define.string("validation_split", "", "Split that chooses the regularisation of --probe=linear.")
    define.string("test_split", "test", "Split that the probe is scored on.")
    define.integer("limit", 4000, "Maximum number of images of each split, 0 for all.")
    define.list("bands", [], "Bands of the source, by index or name; by default as the encoder was trained.")
    define.enum(
        "normalise", "training", ["training", "source"], "Source of the mean and standard deviation of each band."
    )
    define.enum("probe", "knn", list(PROBES), "Nearest neighbours or logistic regression.")
    define.integer("k", 5, "Number of neighbours.")
    define.string("metric", "cosine", "Distance of the neighbours, cosine or euclidean.")
    define.string("pool", "mean", "cls, or mean over the patches.")
    define.bool("controls", False, "Probe the controls of scaling.encoders.controls too.")
    define.bool("raw_pixels", True, "Probe the raw pixels too.")
    define.bool("json", False, "Print JSON.")


@cli.command(define_flags, resumes=False)
def main(argv: list[str], flags: cli.Flags) -> None:
    if not flags.checkpoint:
        raise UserError("--checkpoint: is missing; give --checkpoint=DIR, the --workdir of a training run")
    if flags.pool not in ("cls", "mean"):
        raise UserError(f"--pool={flags.pool}: must be cls or mean")
    encoder = load_encoder(flags.checkpoint, flags.step)
    source = stored_spec(flags.source or training_source(encoder, "--source"))
    train, test = default_splits(source, flags.train_split, flags.test_split)
    opened = open_source(source, train)
    bands = bands_of(encoder, opened, source, flags.bands, option="--bands")
    functions: dict[str, FeatureFunction] = {
        "features": functools.partial(encoder.encode, pool=flags.pool),
    }
    if flags.raw_pixels:
        functions["raw pixels"] = lambda images: images.reshape(len(images), -1)
    if flags.controls:
        functions |= {name.replace("_", " "): make(encoder, flags.pool, 0) for name, make in CONTROLS.items()}
    own = flags.normalise == "source"
    config = DataConfig(source=source, split=train, bands=bands)
    statistics = band_statistics(opened, config) if own else None
    read = functools.partial(
        labelled_features,
        encoder,
        source,
        functions=functions,
        limit=flags.limit,
        bands=bands or range(encoder.config.bands),
        statistics=statistics,
        option="--bands",
        own="--normalise=source",
    )
    names = [train, test, *([flags.validation_split] if flags.validation_split else [])]
    out = console(stderr=True)
    bar = functools.partial(track, console=out, transient=True, disable=not out.is_terminal)
    splits = [read(split=name) for name in bar(names, "reading")]
    options = {"k": flags.k, "metric": flags.metric} if flags.probe == "knn" else {}
    predictions = {
        name: PROBES[flags.probe](*((features[name], labels) for features, labels in splits), **options)
        for name in bar(functions, "probing")
    }
    _report(flags, source, len(splits[0][1]), predictions)


def _report(flags: cli.Flags, source: str, training: int, predictions: dict[str, Predictions]) -> None:
    first = next(iter(predictions.values()))
    if flags.json:
        row = {
            "source": source,
            "probe": flags.probe,
            "k": flags.k,
            "metric": flags.metric,
            "accuracy": {name: each.scores() for name, each in predictions.items()},
            "intervals": {name: each.intervals() for name, each in predictions.items()},
            "details": {name: each.details for name, each in predictions.items()},
            "chance": first.chance(),
            "absent_labels": first.absent_labels(),
        }
        print(json.dumps(row))
        return
    what = f"{flags.k}-NN" if flags.probe == "knn" else "linear probe"
    print(summary(what, source, training, predictions))


if __name__ == "__main__":
    cli.run(main)
