"""Measured numbers: one schema, written by every command that measures and read by every command that fits or draws.

A file of rows is JSON Lines and only ever grows. A row is written once and complete; a line cut short by a kill is
dropped when the file is next opened. What a row measures is its identity; writing it again is refused, so that a
finished measurement is never made twice.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import logging
import math
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
from etils import epath

from scaling.core.config import RENAMED
from scaling.core.errors import UserError
from scaling.core.files import GrowingFile, json_lines, read_json_lines, write_whole

log = logging.getLogger(__name__)

MEASURED = ("value", "low", "high", "device", "versions", "outcomes")  # all other fields identify the measurement
LABELS = "labels"  # the probe of the row that holds the classes of the test images, for the outcomes beside it
_LARGEST = sys.float_info.max
_LIBRARIES = ("scaling", "jax", "flax", "numpy")


@dataclasses.dataclass(frozen=True)
class Row:
    """One measured number.

    Attributes:
      study: name of the experiment.
      model: name of the pretrained model, with the cut in brackets if a cut of it was saved; `random weights` for an
        untrained network.
      objective: pretraining objective: `mae`, `slimmable mae`; for an imported checkpoint the one it names, else its
        family; `finetune` for an encoder trained on labels since; `none` for random weights.
      params, flops: parameters of the encoder as measured, and its operations on one whole image, `full` convention.
      compute, compute_published: flops relative to the uncut encoder, in the two conventions.
      width_ratio, depth_ratio: share of the units, and of the layers, that is kept.
      mode, ordering, recovery: method of the cut.
      dataset, split, probe, metric: definition of the measurement.
      value, low, high: the number and its 95 % interval; None if undefined or not estimated.
      seed: seed of the random draws.
      step, samples_seen: training steps and samples of the checkpoint.
      embed, mlp, layers: sizes of these axes of the encoder; like all fields up to base_lr, in rows of a pretraining
        run only.
      params_total: parameters including the decoder.
      train_flops, train_flops_encoder: operations of the run, `full` convention, with and without the decoder.
      train_flops_published, train_flops_encoder_published: the same in the `published` convention.
      images: number of training images.
      parametrization, base_lr: see `scaling.training`.
      device, versions: hardware and libraries of the measurement.
      config_hash: hash of the configuration behind the number.
      outcomes: correctness of each answer, one bit per test image; see `scaling.evaluation.outcomes`. Empty for
        metrics that do not count right and wrong answers.
      source, certainty: for a number that was not measured here, its publication and version, and how certain the
        transcription is.
    """

    study: str
    model: str
    objective: str
    params: int
    flops: int
    compute: float
    compute_published: float
    width_ratio: float
    depth_ratio: float
    mode: str
    ordering: str
    recovery: str
    dataset: str
    split: str
    probe: str
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    seed: int = 0
    step: int = 0
    samples_seen: int = 0
    embed: int = 0
    mlp: int = 0
    layers: int = 0
    params_total: int = 0
    train_flops: int = 0
    train_flops_encoder: int = 0
    train_flops_published: int = 0
    train_flops_encoder_published: int = 0
    images: int = 0
    parametrization: str = ""
    base_lr: float = 0.0
    device: str = ""
    versions: str = ""
    config_hash: str = ""
    outcomes: str = ""
    source: str = ""
    certainty: str = ""

    @property
    def identity(self) -> tuple[Any, ...]:
        """The fields that identify the measurement, without its result."""
        return tuple(getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in MEASURED)


_NUMBERS = {int: (int,), float: (float, int), float | None: (float, int, type(None)), str: (str,)}
_KINDS = {f.name: _NUMBERS[f.type] for f in dataclasses.fields(Row)}  # type: ignore[index]


def config_hash(config: Mapping[str, Any]) -> str:
    """Twelve characters that identify a configuration.

    Fields added later do not change the hash while they have their former values, so that old studies can continue.
    """
    return hashlib.sha256(json.dumps(_as_at_first(config), sort_keys=True, default=str).encode()).hexdigest()[:12]


# Parts of a configuration that used to be fields of its `model`, by their former kind.
IN_MODEL_AT_FIRST = {"objective": "mae", "task": "classification", "decoder": "mae"}
_BESIDE = ("floors", "rgb")  # fields that only add rows of their own, or decide what is drawn
_AT_FIRST = {now: name for name, now in RENAMED.items()}
_AS_MANY = {0: 8}  # threads: 0 means one per core, with the results of 8
# Fields added later, with the values that change nothing.
_ADDED = {
    "fixed_positions": (False,),
    "encoder": ("",),
    "init_from": ("",),
    "best": ("",),
    "early_stopping": (0,),
    "image_size": (0,),
    "image_width": (0,),
    "test_stride": (0,),
    "objective": ("",),
    "attention": ("auto",),
    "half_logits": (False,),
    "calibration_source": (
        "",
        "probed",
    ),  # calibration images are unused, or come from the probed set as they once always did
    "calibration_split": ("train",),
    "window": (0,),
    "global_blocks": ((),),
    "window_padding": ("zeros",),
    "relative": (False,),
    "every_depth": (False,),
    "crop": ("area",),
    "resize_ratio": ((0.5, 2.0),),
    "resize_base": (0,),
    "max_class_share": (0.75,),
    "photometric": ("none",),
    "rotate": (0.0,),
    "rotate_upright": ((),),
    "decoder_head_dim": (0,),
    "decoder_mlp": (0,),
    "fraction": (1.0,),
    "fraction_seed": (0,),
    "checkpoint_minutes": (0.0,),
    "stage": ("",),
    "pairs": ((),),
    "anchor_size": (1.0,),
}


def _as_at_first(config: Any) -> Any:
    if not isinstance(config, Mapping):
        return config
    kept = {k: x for k, x in config.items() if k not in _BESIDE and (k not in _ADDED or x not in _ADDED[k])}
    fields = {_AT_FIRST.get(k, k): _as_at_first(value) for k, value in kept.items()}
    if "threads" in fields:
        fields["threads"] = _AS_MANY.get(fields["threads"], fields["threads"])
    for part, kind in IN_MODEL_AT_FIRST.items():
        if "model" in fields and isinstance(fields.get(part), dict) and fields[part].get("name") == kind:
            own = fields.pop(part)
            fields["model"] = fields["model"] | {field: value for field, value in own.items() if field != "name"}
    return fields


def provenance() -> dict[str, str]:
    """The fields `device` and `versions` of rows measured here."""
    versions = " ".join(f"{name}-{_version(name)}" for name in _LIBRARIES)
    return {"device": f"{jax.device_count()} x {jax.devices()[0].device_kind}", "versions": versions}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return "checkout" + _commit()


@functools.cache
def _commit() -> str:
    """`-` and the commit of this code, with `+` if the tree has changes; empty if git cannot tell."""
    command = ["git", "describe", "--always", "--exclude=*", "--abbrev=10", "--dirty=+"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return f"-{done.stdout.strip()}" if done.returncode == 0 else ""


def read_rows(path: epath.PathLike) -> list[Row]:
    """The rows of a file; a last line that is cut short is left out.

    Raises:
      UserError: the file does not exist, or a line is not a row.
    """
    file = epath.Path(path)
    if not file.is_file():
        raise UserError(f"{path}: there is no such file of rows; give one that exists")

    def wrong(number: int, error: Exception) -> None:
        raise UserError(f"{path}, line {number}, is not a row of measurements: {error}") from error

    return read_json_lines(file, _row, wrong)


def given_rows(path: epath.PathLike) -> list[Row]:
    """`read_rows` for a file that a user names: a last line that is left out is named in a warning.

    Raises:
      UserError: see `read_rows`; or there are no rows, as in a file that was emptied.
    """
    if not (rows := read_rows(path)):
        raise UserError(f"{path}: there are no rows in it; give a file of rows, or write it again")
    if len(epath.Path(path).read_bytes().splitlines()) > len(rows):
        log.warning("%s: its last line is cut short and left out; write the file again if rows are missing", path)
    return rows


def _row(fields: Any) -> Row:
    """The row of a mapping. Raises TypeError for wrong fields or types of fields, and ValueError for an integer that
    exceeds the range of a float, which no figure, page or law could use.
    """
    if not isinstance(fields, dict):
        raise TypeError("a row must be a mapping")
    names = {f.name for f in dataclasses.fields(Row)}
    fields = {name if name in names else RENAMED.get(name, name): value for name, value in fields.items()}
    row = Row(**fields)
    undefined: dict[str, Any] = {k: None for k in ("value", "low", "high") if getattr(row, k) != getattr(row, k)}  # NaN
    row = dataclasses.replace(row, **undefined)
    for name, kinds in _KINDS.items():
        value = getattr(row, name)
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise TypeError(f"{name}={_short(value)}: must be of type {kinds[0].__name__}")
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise ValueError(f"{name}={_short(value)} is too large; the largest number is {_LARGEST:.3g}")
    return row


def _short(value: object) -> str:
    """The repr of a value, cut to 60 characters."""
    written = repr(value)
    return written if len(written) <= 60 else f"{written[:60]}… ({len(written)} characters)"


class Results:
    """A file of rows, open for appending.

    Args:
      path: path of the file, local or in a bucket.

    Raises:
      UserError: an existing file is invalid; see `read_rows`.
    """

    def __init__(self, path: epath.PathLike):
        self.rows = read_rows(path) if epath.Path(path).exists() else []
        self._known = {row.identity for row in self.rows}
        self._file = GrowingFile(path, map(_fields, self.rows))

    def __contains__(self, row: Row) -> bool:
        return row.identity in self._known

    def add(self, rows: Iterable[Row]) -> None:
        """Appends the rows that the file does not have yet; returns once all are written."""
        new = list({row.identity: row for row in rows if row not in self}.values())
        self._file.add(map(_fields, new))
        self.rows.extend(new)
        self._known.update(row.identity for row in new)


def write_rows(path: epath.PathLike, rows: Iterable[Row]) -> None:
    """Replaces a file by these rows atomically, even if other processes do the same."""
    write_whole(path, json_lines(map(_fields, rows)))


_LATER = (
    "outcomes",
    "source",
    "certainty",
)  # empty fields are not written: rows without them stay as they were


def _fields(row: Row) -> dict[str, Any]:
    fields = {name: value for name, value in dataclasses.asdict(row).items() if value or name not in _LATER}
    for name, value in fields.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{name}={value} of {row.metric} on {row.dataset}: rows hold finite numbers, or None")
    return fields
