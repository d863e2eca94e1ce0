"""Training the runs of a plan and measuring them.

Every run has a folder of its own, with all that `scaling.train` leaves there and, as the last thing, `rows.jsonl`: a
run that has it is finished. Nothing is shared between runs while they train, so any number of processes can work on
different runs of one sweep; the file of the whole sweep is made from those of its runs.
"""

import dataclasses
import functools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from scaling.config import config_dict
from scaling.data.config import held_out, open_sources
from scaling.errors import TrainingError, UserError
from scaling.evaluation.encoder import load_encoder
from scaling.evaluation.probes import PROBES
from scaling.evaluation.splits import labelled_features
from scaling.parallel import hosts
from scaling.results import Results, Row, read_rows
from scaling.sweeps.plan import Planned, ProbeConfig, component_flops, folder_of
from scaling.training.run import train

_ROWS, _CLAIM, _FAILED = "rows.jsonl", "run.json", "failed.txt"
DONE, FAILED, STARTED, WAITING = "done", "failed", "started", "waiting"


def state_of(workdir: epath.Path, run: Planned) -> str:
    """One of DONE, FAILED, STARTED, WAITING.

    Raises:
      UserError: the folder has a run of the same name with another configuration.
    """
    folder = folder_of(workdir, run)
    if not (folder / _CLAIM).exists():
        return WAITING
    claimed = json.loads((folder / _CLAIM).read_text())["config_hash"]
    if claimed != run.row.config_hash:
        raise UserError(
            f"{folder} was begun with another configuration ({claimed}, now {run.row.config_hash}); "
            "choose another --workdir, or remove that folder"
        )
    return DONE if (folder / _ROWS).exists() else FAILED if (folder / _FAILED).exists() else STARTED


def execute(workdir: epath.Path, run: Planned, probe: ProbeConfig) -> int:
    """Trains and measures one run, from where it was left. Returns an exit code; that of a failed run is kept with it.

    Raises:
      UserError: what is wrong is not this run's alone.
    """
    folder = folder_of(workdir, run)
    if hosts.is_first():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _FAILED).unlink(missing_ok=True)
        claim = {"config_hash": run.row.config_hash, "config": config_dict(run.config).to_dict()}
        temporary = folder / f"{_CLAIM}.new"  # a kill must not leave half of it, which nobody could read
        temporary.write_text(json.dumps(claim, indent=2, default=str) + "\n")
        temporary.replace(folder / _CLAIM)
    try:
        code = train(run.config, folder)
    except TrainingError as e:
        if hosts.is_first():
            (folder / _FAILED).write_text(f"{e}\n")
        return e.exit_code
    if code == 0:
        rows = measure(folder, run, probe)
        if hosts.is_first():
            _write(folder / _ROWS, rows)
    return code


def failure(workdir: epath.Path, run: Planned) -> str:
    """What a failed run failed of."""
    return (folder_of(workdir, run) / _FAILED).read_text().strip()


def measure(folder: epath.Path, run: Planned, probe: ProbeConfig) -> list[Row]:
    """The rows of a trained run: losses, operations by component, seconds of training, and the probe's scores."""
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [row["eval_loss"] for row in log if "eval_loss" in row]
    values = {"eval_loss": losses[-1], "best_eval_loss": min(losses), "loss": log[-1]["loss"]}
    values |= {f"train_flops/{part}": float(n) for part, n in component_flops(run.config).items()}
    values["train_seconds"] = training_seconds(log, run.config.batch_size)
    total = len(open_sources(run.config.data)[0])
    row = dataclasses.replace(run.row, images=total - held_out(total, run.config.data))
    rows = [dataclasses.replace(row, metric=name, value=value) for name, value in values.items()]
    return rows + (_probed(folder, row, probe) if probe.source else [])


def training_seconds(log: list[dict[str, float]], batch_size: int) -> float:
    """Wall time of the steps of a run, however often it was interrupted: without compiling, evaluating and saving."""
    steps = np.diff([0, *(row["step"] for row in log)])
    rates = [row["images_per_second"] for row in log]  # 0 in a row of nothing but the step that was compiled
    return float(sum(n * batch_size / rate for n, rate in zip(steps, rates, strict=True) if rate))


def _probed(folder: epath.Path, row: Row, c: ProbeConfig) -> list[Row]:
    encoder = load_encoder(folder)
    functions = {"features": functools.partial(encoder.features, pool=c.pool)}
    splits = [
        labelled_features(encoder, c.source, split, functions, c.limit) for split in (c.train_split, c.test_split)
    ]
    outcome = PROBES["knn"](*((features["features"], labels) for features, labels in splits), k=c.k)
    fields: dict[str, Any] = {"dataset": c.source, "split": c.test_split, "probe": "knn"}
    intervals = outcome.intervals()
    return [
        dataclasses.replace(row, metric=name, value=score, low=intervals[name][0], high=intervals[name][1], **fields)
        for name, score in outcome.scores().items()
    ]


def collect(workdir: epath.Path, plan: Sequence[Planned]) -> list[Row]:
    """The rows of all finished runs, in the order of the plan."""
    files = [folder_of(workdir, run) / _ROWS for run in plan]
    return [row for file in files if file.exists() for row in read_rows(file)]


def merge(workdir: epath.Path, plan: Sequence[Planned]) -> list[Row]:
    """Writes them to the sweep's own file."""
    rows = collect(workdir, plan)
    if hosts.is_first():
        _write(workdir / _ROWS, rows)
    return rows


def _write(path: epath.Path, rows: list[Row]) -> None:
    """All of them or none."""
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    Results(temporary).add(rows)
    temporary.replace(path)
