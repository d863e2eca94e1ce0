"""What frozen features are worth: nearest neighbours or logistic regression, beside the same on the raw pixels.

    python -m scaling.probe --checkpoint=DIR [--source=SPEC] [--train_split=train] [--test_split=test] [--k=5] [--json]
    python -m scaling.probe --checkpoint=DIR --probe=linear [--validation_split=validation] [--controls]

The source is by default the one the encoder was trained on. --probe=knn trains nothing: the labels of the nearest
training images vote. --probe=linear chooses its regularisation on --validation_split, without one on a fifth of the
training images. --noraw_pixels leaves out the raw pixels, which take long for many or large images. Of images with
several labels the score is mean average precision. The intervals say what another test set of the same size might have
given (bootstrap).
"""

import functools
import json

from absl import flags
from rich.progress import track

from scaling import cli
from scaling.console import console
from scaling.data.config import DataConfig
from scaling.data.sources import open_source
from scaling.data.statistics import band_statistics
from scaling.errors import UserError
from scaling.evaluation.bands import bands_of, training_source
from scaling.evaluation.controls import CONTROLS, FeatureFunction
from scaling.evaluation.encoder import load_encoder
from scaling.evaluation.metrics import Outcome
from scaling.evaluation.probes import PROBES
from scaling.evaluation.splits import labelled_features
from scaling.evaluation.summary import summary

_CHECKPOINT = cli.define_path("checkpoint", None, "The --workdir of a training run.")
_STEP = flags.DEFINE_integer("step", None, "Which checkpoint of it; the newest by default.")
_SOURCE = flags.DEFINE_string("source", None, "A labelled data source.")
_TRAIN = flags.DEFINE_string("train_split", "train", "Split whose labels vote or are fitted.")
_VALIDATION = flags.DEFINE_string("validation_split", "", "Split that chooses the regularisation of --probe=linear.")
_TEST = flags.DEFINE_string("test_split", "test", "Split that is classified.")
_LIMIT = flags.DEFINE_integer("limit", 4000, "At most this many images of each split, 0 for all.")
_BANDS = flags.DEFINE_list("bands", [], "Bands of the source, by index or name; by default as the encoder was trained.")
_UNITS = flags.DEFINE_enum("normalise", "training", ["training", "source"], "Whose mean and deviation of each band.")
_PROBE = flags.DEFINE_enum("probe", "knn", list(PROBES), "Nearest neighbours or logistic regression.")
_K = flags.DEFINE_integer("k", 5, "Number of neighbours.")
_METRIC = flags.DEFINE_string("metric", "cosine", "Distance of the neighbours, cosine or euclidean.")
_POOL = flags.DEFINE_string("pool", "mean", "cls, or mean over the patches.")
_CONTROLS = flags.DEFINE_bool("controls", False, "Probe the controls of scaling.evaluation.controls too.")
_RAW = flags.DEFINE_bool("raw_pixels", True, "Probe the raw pixels too.")
_JSON = flags.DEFINE_bool("json", False, "Print JSON.")


def main(argv: list[str]) -> None:
    del argv
    if not _CHECKPOINT.value:
        raise UserError("give --checkpoint=DIR, the --workdir of a training run")
    if _POOL.value not in ("cls", "mean"):
        raise UserError(f"--pool={_POOL.value}: cls or mean")
    encoder = load_encoder(_CHECKPOINT.value, _STEP.value)
    source = _SOURCE.value or training_source(encoder, "--source")
    opened = open_source(source, _TRAIN.value)
    bands = bands_of(encoder, opened, source, _BANDS.value, option="--bands")
    functions: dict[str, FeatureFunction] = {
        "features": functools.partial(encoder.features, pool=_POOL.value),
    }
    if _RAW.value:
        functions["raw pixels"] = lambda images: images.reshape(len(images), -1)
    if _CONTROLS.value:
        functions |= {name.replace("_", " "): make(encoder, _POOL.value, 0) for name, make in CONTROLS.items()}
    own = _UNITS.value == "source"
    config = DataConfig(source=source, split=_TRAIN.value, bands=bands)
    statistics = band_statistics(opened, config) if own else None
    read = functools.partial(
        labelled_features,
        encoder,
        source,
        functions=functions,
        limit=_LIMIT.value,
        bands=bands or range(encoder.config.bands),
        statistics=statistics,
        option="--bands",
    )
    names = [_TRAIN.value, _TEST.value, *([_VALIDATION.value] if _VALIDATION.value else [])]
    out = console(stderr=True)
    bar = functools.partial(track, console=out, transient=True, disable=not out.is_terminal)
    splits = [read(split=name) for name in bar(names, "reading")]
    options = {"k": _K.value, "metric": _METRIC.value} if _PROBE.value == "knn" else {}
    outcomes = {
        name: PROBES[_PROBE.value](*((features[name], labels) for features, labels in splits), **options)
        for name in bar(functions, "probing")
    }
    _report(source, len(splits[0][1]), outcomes)


def _report(source: str, training: int, outcomes: dict[str, Outcome]) -> None:
    first = next(iter(outcomes.values()))
    if _JSON.value:
        row = {
            "source": source,
            "probe": _PROBE.value,
            "k": _K.value,
            "metric": _METRIC.value,
            "accuracy": {name: outcome.scores() for name, outcome in outcomes.items()},
            "intervals": {name: outcome.intervals() for name, outcome in outcomes.items()},
            "details": {name: outcome.details for name, outcome in outcomes.items()},
            "chance": first.chance(),
            "absent_labels": first.absent_labels(),
        }
        print(json.dumps(row))
        return
    what, task = (f"{_K.value}-NN", "vote") if _PROBE.value == "knn" else ("linear probe", "fit")
    print(summary(what, source, training, task, outcomes))


if __name__ == "__main__":
    cli.run(main, resumes=False)
