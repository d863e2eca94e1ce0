"""Reads any source of measured numbers, as own rows or as a table: files of both kinds, and folders of runs."""

import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Any

from etils import epath

from scaling.analysis.frames.exports import is_events
from scaling.analysis.frames.reading import Frame, is_own, read_frame, together
from scaling.analysis.laws.choosing import Measurements
from scaling.core.config import config_dict
from scaling.core.errors import UserError
from scaling.core.rows import Row, config_hash, given_rows, read_rows
from scaling.studies.rows import pretraining_row
from scaling.training.config import TrainConfig
from scaling.training.goodput import STARTS, goodput, read_starts
from scaling.training.stored_config import stored_config
from scaling.training.writers import read_metrics

_LOWEST, _HIGHEST = ("loss", "error"), ("accuracy", "iou", "f1", "_ap", "score")  # in the name of what has a best value


def read_measurements(path: epath.Path) -> tuple[Measurements, list[str]]:
    """The measurements in a file or folder, and a description of what was skipped.

    A folder gives its files of rows; without any, the final and best values of the runs below it; without runs, the
    TensorBoard event files below it.

    Raises:
      UserError: nothing can be read.
    """
    if not path.is_dir():
        return (given_rows(path) if is_own(path) else read_frame(path)), []
    below = list(_below(path))
    if files := list(filter(_is_rows, below)):
        return [row for file in files for row in read_rows(file)], []
    if logs := [file for file in below if file.name == "metrics.jsonl"]:
        return _of_runs(path, logs)
    if events := [file for file in below if is_events(file)]:
        return together([_of_events(path, file) for file in events]), []
    raise UserError(
        f"{path}: there is no rows.jsonl, NAME.rows.jsonl, metrics.jsonl or event file below it; give a file"
    )


def _is_rows(file: epath.Path) -> bool:
    return file.name == "rows.jsonl" or file.name.endswith(".rows.jsonl")


def has_runs_only(folder: epath.Path) -> bool:
    """Whether a folder has runs or TensorBoard events below it, but no file of rows."""
    below = list(_below(folder))
    return not any(map(_is_rows, below)) and any(file.name == "metrics.jsonl" or is_events(file) for file in below)


def _below(folder: epath.Path) -> Iterator[epath.Path]:
    """All files below a folder, local or in a bucket, except those of checkpoints."""
    for path in sorted(folder.iterdir()):
        if not path.is_dir():
            yield path
        elif path.name != "checkpoints":
            yield from _below(path)


def _of_events(folder: epath.Path, file: epath.Path) -> Frame:
    import polars as pl

    frame, run = read_frame(file), str(file.parent.relative_to(folder))
    return Frame(frame.data.with_columns(run=pl.lit(run)), frame.notes)


def _of_runs(folder: epath.Path, logs: list[epath.Path]) -> tuple[list[Row], list[str]]:
    """The rows of all runs below a folder, and the runs without rows, with the reason."""
    rows, passed_over = list[Row](), []
    for log in logs:
        name = str(log.parent.relative_to(folder)).replace("\\", "/")
        try:
            rows += rows_of_run(log.parent, folder.name, folder.name if name == "." else name)
        except UserError as e:
            passed_over.append(str(e))
    if not rows:
        raise UserError(f"{folder}: no run below it can be read: {passed_over[0]}")
    return rows, passed_over


def rows_of_run(workdir: epath.Path, study: str, name: str) -> list[Row]:
    """The rows of a pretraining run, from its working directory: the last value of every logged metric and, for losses,
    errors and scores, the best as `best_NAME`; the goodput over all starts as `goodput_of_all_starts`; with counts of
    parameters, and of operations up to the last step.

    Raises:
      UserError: not the directory of a pretraining run, or nothing was logged.
    """
    file = workdir / "config.json"
    if not file.is_file():
        raise UserError(f"{workdir}: there is no config.json beside metrics.jsonl")
    try:
        c = stored_config(json.loads(file.read_text()))
    except (UserError, ValueError, TypeError, KeyError) as e:
        raise UserError(f"{file}: cannot be read as the configuration of a run: {e}") from e
    if not isinstance(c, TrainConfig):
        raise UserError(
            f"{file}: is of a run of {type(c).__name__}, but only pretraining runs are read from their folders"
        )
    log = read_metrics(workdir / "metrics.jsonl")
    if not log:
        raise UserError(f"{workdir}/metrics.jsonl: nothing was logged")
    until = pretraining_row(study, name, dataclasses.replace(c, steps=int(log[-1]["step"])))
    row = dataclasses.replace(until, config_hash=config_hash(config_dict(c).to_dict()))
    found = _values(log)
    starts = workdir / STARTS
    if starts.is_file() and (whole := goodput(read_starts(starts.read_text()), log, c.batch_size)):
        found["goodput_of_all_starts"] = whole.share
    return [dataclasses.replace(row, metric=metric, value=value) for metric, value in found.items()]


def _values(log: list[dict[str, Any]]) -> dict[str, float | None]:
    """Last and best values of a log by metric; None if the last is not finite, as in a run that diverged."""
    found: dict[str, float | None] = {}
    for name in dict.fromkeys(name for row in log for name in row if name != "step"):
        values = [float(row[name]) for row in log if isinstance(row.get(name), int | float)]
        finite = [value for value in values if math.isfinite(value)]
        if not values:
            continue
        found[name] = values[-1] if math.isfinite(values[-1]) else None
        choose = min if any(w in name for w in _LOWEST) else max if any(w in name for w in _HIGHEST) else None
        if choose and finite:
            found[f"best_{name}"] = choose(finite)
    return found
