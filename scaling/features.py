"""Features of a pretrained encoder, at its full width or slimmed.

    python -m scaling.features --checkpoint=DIR --input=x.npy --output=y.npy [--pool=cls|mean|tokens]
    python -m scaling.features --checkpoint=DIR --source=folder:IMAGES --split=test --output=y.npy [--labels=labels.npy]
    python -m scaling.features … --bands=3,2,1                   bands of the source; by default those of the training
    python -m scaling.features … --width_ratio=0.25 [--mode=inner|token|heads|branch] [--ordering=svd --recovery=ridge]

`--input` holds float images [N, height, width, bands], already normalised: .npy, or .npz with one array; to encode
unnormalised pixels, use Python, `scaling.load(DIR).features(pixels)`, or store one .npy per image and give the folder.
A `--source` is folder:DIR or the path of the folder (which `--input` takes, too), zip:FILE, or another one of
scaling/data/sources/registry.py; its images are resized, cropped to the central square and normalised as in training.
The output is float32 [N, D], or [N, T, D] with `--pool=tokens`. For a source, a table of the rows is written beside it
(y.csv beside y.npy): index, name of the file or record, label, class. Unreadable images have no row; they are listed in
the log.

By default the bands are those used in training: matched by name if both source and checkpoint name them, otherwise by
the indices stored in the checkpoint, otherwise all bands. `--bands` chooses them by name or by index from 0, in the
order of the encoder. Each band is normalised by the mean and standard deviation stored in the encoder for that band.

Slimming follows the published method (2601.22841) by default; --ordering and --recovery change it. Methods that need
unlabelled images take them from the pretraining data or from `--calibration`, never from the images being encoded, so
that training and test features come from the same encoder.
"""

import concurrent.futures
import csv
import os
from collections.abc import Iterator

import numpy as np
from etils import epath

from scaling import cli
from scaling.core.errors import UserError
from scaling.core.files import whole_file
from scaling.core.paths import check_file
from scaling.data.arrays import read_images, written_rows
from scaling.encoders.encoder import Encoder
from scaling.encoders.flags import EncoderFlags, define_encoder_flags
from scaling.encoders.splits import Split

_COLUMNS = ("index", "name", "label", "class")
_BLOCK = 1024  # images of a file in one batch
_READERS = 16  # threads that read the names of records


def define_flags(define: cli.Define) -> None:
    define_encoder_flags(define)
    define.path("input", None, "Normalised images, .npy, or .npz with one array.")
    define.string("source", None, "A data source, instead of --input, such as folder:DIR.")
    define.string("split", "train", "Split of the source.")
    define.integer("limit", 0, "Maximum number of images, spread evenly over the source; 0 for all.", lower_bound=0)
    define.list("bands", [], "Bands of the source, by index or name; by default as the encoder was trained.")
    define.path("output", None, "File for the features, .npy; their table is written beside it.")
    define.path("labels", None, "File for the labels of the source, .npy.")
    define.string("pool", "mean", "Pooling: cls, mean (over the patches) or tokens.")


@cli.command(define_flags, resumes=False)
def main(argv: list[str], flags: cli.Flags) -> None:
    file, source, output = flags.input, flags.source, flags.output
    cli.require(flags, "checkpoint=DIR", "output=FILE")
    if (file is None) == (source is None):
        raise UserError("--input and --source: exactly one must be given; give either --input=FILE or --source=SPEC")
    if file and epath.Path(file).is_dir():  # images in files are a source
        file, source = None, file
    if file and (flags.bands or flags.labels or flags.limit):
        raise UserError("--bands, --labels and --limit need a --source; an --input has the bands of the encoder")
    for name in ("output", "labels"):
        if not (path := flags[name].value):
            continue
        check_file(name, path, {"the --input": [file]})
    if flags.labels and os.path.realpath(flags.labels) in map(os.path.realpath, (output, _beside(output))):
        raise UserError(
            f"--labels={flags.labels} is the --output or its table, which would be lost; choose another file"
        )
    asked = EncoderFlags(flags)
    described = asked.describe()
    described.check_pool(flags.pool)
    if file:
        images = read_images("input", file)
        described.check_normalised(images, f"--input={file}")
        shape = _of_file(flags, images, asked.load(), output)
        print(f"{list(shape)} features in {output}")
    if source:
        opened, table = (
            Split(described, source, flags.split, flags.limit, bands=flags.bands, option="--bands"),
            _table(output),
        )
        shape = _of_source(flags, opened, asked.load(), output, table)
        print(f"{list(shape)} features in {output}\nrows in {table}")


def _of_file(flags: cli.Flags, images: np.ndarray, encoder: Encoder, output: str) -> tuple[int, ...]:
    with written_rows(output) as rows:
        for i in range(0, max(len(images), 1), _BLOCK):  # one empty block if there are no images, for the shape
            rows.add(encoder.encode(images[i : i + _BLOCK], flags.pool))
    return rows.shape


def _of_source(flags: cli.Flags, source: Split, encoder: Encoder, output: str, table: str) -> tuple[int, ...]:
    labels: list[np.ndarray] = []
    names: list[str] = []
    with written_rows(output) as rows, concurrent.futures.ThreadPoolExecutor(_READERS) as readers:
        for part in source.parts():
            named = readers.map(source.opened.name, part.records.tolist())
            rows.add(encoder.encode(part.images, flags.pool))
            labels.append(part.labels)
            names += named
        if not rows.count:
            raise UserError(f"{source.source}, split {source.split}, has no readable image")
        together = np.concatenate(labels)
        with whole_file(table) as aside, aside.open("w", newline="", errors="backslashreplace") as f:
            writer = csv.writer(f)
            writer.writerow(_COLUMNS)
            writer.writerows(_lines(names, together, source.opened.info.classes))
        if flags.labels:
            with written_rows(flags.labels) as column:
                column.add(together)
    return rows.shape


def _beside(output: str) -> epath.Path:
    return epath.Path(output).with_suffix(".csv")


def _table(output: str) -> str:
    """Path of the table of the rows; raises a UserError if it would replace another file."""
    table = _beside(output)
    if table == epath.Path(output):
        raise UserError(f"--output={output}: features are written as .npy, the table of their rows as .csv beside it")
    header = ",".join(_COLUMNS).encode()
    if table.exists():
        with table.open("rb") as f:
            if f.read(len(header)) != header:
                raise UserError(f"--output={output}: the table of its rows would replace {table}; choose another name")
    return str(table)


def _lines(names: list[str], labels: np.ndarray, classes: tuple[str, ...]) -> Iterator[tuple[int, str, str, str]]:
    for i, (name, label) in enumerate(zip(names, labels, strict=True)):
        several = np.flatnonzero(label) if np.ndim(label) else [label][: int(label >= 0)]
        called = [classes[k] if k < len(classes) else "" for k in several]
        yield i, name, ";".join(map(str, several)), ";".join(called)


if __name__ == "__main__":
    cli.run(main)
