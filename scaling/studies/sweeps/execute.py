"""Trains and measures the runs of a plan: jobs of `scaling.studies.grid`, each in a folder of its own.

The folder has everything that `scaling.train` writes and, written last, `rows.jsonl`, which marks a run as finished.
Nothing is shared between runs while they train, so any number of processes can work on different runs of one sweep; the
file of the whole sweep is made from those of its runs.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from etils import epath

from scaling.core.config import config_dict
from scaling.core.errors import TrainingError, UserError
from scaling.core.files import write_whole
from scaling.core.rows import Row, provenance, read_rows, write_rows
from scaling.data.config import checked_sources, held_out, open_sources
from scaling.data.sources.registry import open_source
from scaling.encoders.loading import load_encoder
from scaling.encoders.splits import labelled_features
from scaling.evaluation.probes import PROBES
from scaling.parallel import hosts
from scaling.studies.grid import DONE, FAILED, STARTED, WAITING, Job, Ledger, StoppedError
from scaling.studies.rows import score_rows
from scaling.studies.sweeps.plan import RUNS, PlannedRun, ProbeConfig, component_flops, folder_of
from scaling.training.config import TrainConfig
from scaling.training.loop import Stopped
from scaling.training.pretraining import pretrain
from scaling.training.resume import FREE, refusal
from scaling.training.stored_config import stored_config
from scaling.training.workdir import course, on_screen
from scaling.training.writers import read_metrics

# A row states the number of steps, and has the best of all evaluations.
_FREE = tuple(field for field in FREE if field not in ("steps", "eval_every"))
_ROWS, _CLAIM, _FAILED = "rows.jsonl", "run.json", "failed.txt"


@dataclasses.dataclass(frozen=True)
class TrainingJob:
    """One run of a sweep, resumed, trained and measured.

    Attributes:
      workdir: working directory of the sweep.
      planned: the run.
      probe: probe that is measured in addition to the losses.
      change: fields that may differ from those the run was begun with, in addition to those without effect on its
        numbers.
    """

    workdir: epath.Path
    planned: PlannedRun
    probe: ProbeConfig
    change: Collection[str] = ()

    @property
    def name(self) -> str:
        return self.planned.name

    @property
    def cost(self) -> float:
        return float(self.planned.row.train_flops)

    def run(self) -> list[Row]:
        folder = folder_of(self.workdir, self.planned)
        if code := train(self.planned.config, folder, self.change):
            raise StoppedError(code)
        return measure(folder, self.planned, self.probe)


class RunFolders(Ledger):
    """The folders of the runs of a sweep.

    Args:
      workdir: working directory of the sweep.
    """

    def __init__(self, workdir: epath.Path):
        self._workdir = workdir

    @property
    def folder(self) -> epath.Path:
        return self._workdir

    def state(self, job: Job) -> str:
        """State of a run: it is done only if it was also measured by its job's probe; a finished run is left unchanged.

        Raises:
          UserError: the folder has a run of the same name with another configuration.
        """
        assert isinstance(job, TrainingJob)
        run, probe, folder = job.planned, job.probe, folder_of(self._workdir, job.planned)
        if not (folder / _CLAIM).exists():
            return WAITING
        claimed = json.loads((folder / _CLAIM).read_text())
        if claimed["config_hash"] != run.row.config_hash:
            before = stored_config(claimed["config"])
            if refused := refusal(run.config, before, (*_FREE, *job.change)):
                raise UserError(f"{folder} was started with another configuration: {refused}")
        if (folder / _FAILED).exists():
            return FAILED
        rows = read_rows(folder / _ROWS) if (folder / _ROWS).exists() else []
        measured = any(row.dataset == probe.source for row in rows if row.probe) if probe.source else bool(rows)
        return DONE if measured else STARTED

    def begin(self, job: Job) -> None:
        assert isinstance(job, TrainingJob)
        folder, run = folder_of(self._workdir, job.planned), job.planned
        if hosts.is_first():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / _FAILED).unlink(missing_ok=True)
            claim = {"config_hash": run.row.config_hash, "config": config_dict(run.config).to_dict()}
            write_whole(folder / _CLAIM, json.dumps(claim, indent=2, default=str) + "\n")

    def keep(self, job: Job, rows: Sequence[Row], seconds: float) -> None:
        if hosts.is_first():
            write_rows(self._workdir / RUNS / job.name / _ROWS, rows)
        merge(self._workdir)

    def fail(self, job: Job, why: str) -> None:
        if hosts.is_first():
            write_whole(self._workdir / RUNS / job.name / _FAILED, f"{why}\n")

    def failure(self, job: Job) -> str:
        """Why a run failed."""
        return (self._workdir / RUNS / job.name / _FAILED).read_text().strip()

    def times(self) -> list[tuple[float, float]]:
        rows = collect(self._workdir)
        return [(row.train_flops, row.value) for row in rows if row.metric == "train_seconds" and row.value]


def check(runs: Sequence[PlannedRun], probe: ProbeConfig) -> None:
    """Opens the sources of runs and probe, once for each distinct configuration, before any run is trained.

    Raises:
      UserError: a source cannot be read, or does not fit a model.
    """
    for run in {run.config.data: run for run in runs}.values():
        try:
            checked_sources(run.config.data, run.config.model.bands)
        except UserError as e:
            raise UserError(f"run {run.name}: {e}") from e
    for split in (probe.train_split, probe.test_split) if probe.source else ():
        try:
            labelled = bool(open_source(probe.source, split).info.classes)
        except UserError as e:
            raise UserError(f"probe.source={probe.source}: {e}") from e
        if not labelled:
            raise UserError(f"probe.source={probe.source}, split {split}, has no labels to probe with")


def train(c: TrainConfig, folder: epath.Path, change: Collection[str]) -> int:
    """Pretrains with a progress bar. Returns the exit code."""
    outcome = pretrain(c, folder, change, on_screen)
    if isinstance(outcome, Stopped):
        return outcome.exit_code
    if hosts.is_first():
        print(course(folder))
    return 0


def measure(folder: epath.Path, run: PlannedRun, probe: ProbeConfig) -> list[Row]:
    """The rows of a trained run: losses, operations by component, seconds of training, and the probe's scores."""
    file = folder / "metrics.jsonl"
    log = read_metrics(file) if file.is_file() else []
    losses = [row["eval_loss"] for row in log if "eval_loss" in row]
    if not losses:
        raise TrainingError(f"{file} has no held-out loss by which to measure this run; train it again")
    if not math.isfinite(losses[-1]):
        raise TrainingError(
            f"{file}: the run diverged, its last held-out loss is {losses[-1]}; lower optimizer.base_lr"
        )
    values = {"eval_loss": losses[-1], "best_eval_loss": min(filter(math.isfinite, losses)), "loss": log[-1]["loss"]}
    values |= {f"train_flops/{part}": float(n) for part, n in component_flops(run.config).items()}
    values["train_seconds"] = training_seconds(log, run.config.batch_size)
    total = len(open_sources(run.config.data)[0])
    images = total - held_out(total, run.config.data)
    row = dataclasses.replace(run.row, images=images, **provenance())  # type: ignore[arg-type]
    rows = [dataclasses.replace(row, metric=name, value=value) for name, value in values.items()]
    return rows + (_probed(folder, row, probe) if probe.source else [])


def training_seconds(log: list[dict[str, float]], batch_size: int) -> float:
    """Wall time of the steps of a run over all of its starts, without compiling, evaluating and saving."""
    steps = np.diff([0, *(row["step"] for row in log)])
    rates = [row["images_per_second"] for row in log]  # 0 in a row that covers only the compiled step
    return float(sum(n * batch_size / rate for n, rate in zip(steps, rates, strict=True) if rate))


def _probed(folder: epath.Path, row: Row, c: ProbeConfig) -> list[Row]:
    encoder = load_encoder(folder)
    functions = {"features": functools.partial(encoder.encode, pool=c.pool)}
    splits = [
        labelled_features(encoder, c.source, split, functions, c.limit) for split in (c.train_split, c.test_split)
    ]
    outcome = PROBES["knn"](*((features["features"], labels) for features, labels in splits), k=c.k)
    fields: dict[str, Any] = {"dataset": c.source, "split": c.test_split, "probe": "knn"}
    return score_rows(row, outcome, **fields)


def collect(workdir: epath.Path) -> list[Row]:
    """The rows of all finished runs in a folder, including those of other plans, the cheapest first."""
    folder = workdir / RUNS
    files = [run / _ROWS for run in folder.iterdir()] if folder.exists() else []
    finished = [read_rows(file) for file in files if file.exists()]
    return [row for rows in sorted(finished, key=lambda x: (x[0].train_flops, x[0].model)) for row in rows]


def merge(workdir: epath.Path) -> list[Row]:
    """Writes these rows to the sweep's own file."""
    rows, written = collect(workdir), None
    while rows != written and hosts.is_first():  # another task may have finished a run and written in the meantime
        write_rows(workdir / _ROWS, rows)
        rows, written = collect(workdir), rows
    return rows
