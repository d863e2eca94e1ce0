"""The plan of a sweep, made before anything is trained."""

import dataclasses
import re
import runpy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from scaling.compute import counting
from scaling.core.config import config_dict, from_config_dict
from scaling.core.errors import UserError
from scaling.core.rows import Row
from scaling.data.sources.registry import store_specs
from scaling.studies.rows import pretraining_row
from scaling.studies.sweeps.variation import NamedConfig
from scaling.training.config import TrainConfig

RUNS = "runs"  # name of the folder that holds the runs' folders


@dataclasses.dataclass(frozen=True)
class ProbeConfig:
    """k-NN probe of the features of every finished run.

    Attributes:
      source: labelled images; empty for no probe.
      train_split, test_split, limit: splits for training and testing, and the largest number of images from each.
      k, pool: see `scaling.probe`.
    """

    source: str = ""
    train_split: str = "train"
    test_split: str = "test"
    limit: int = 4000
    k: int = 5
    pool: str = "mean"

    def __post_init__(self) -> None:
        store_specs(self, "source")


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """Settings shared by all runs of a sweep.

    Attributes:
      study: name of the study in rows.
      base: the run that is varied.
      probe: probe that is measured in addition to the held-out loss.
    """

    study: str = "sweep"
    base: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    probe: ProbeConfig = dataclasses.field(default_factory=ProbeConfig)


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One run: its name (a folder of the sweep), its configuration, and the row with its cost."""

    name: str
    config: TrainConfig
    row: Row


def sweep_config(settings: SweepConfig, **vary: Any) -> ConfigDict:
    """The value that `get_config()` of a sweep file returns: the settings and, under `vary`, the arguments of its
    `runs`.
    """
    c = ConfigDict(config_dict(settings).to_dict())
    c.vary = ConfigDict(vary)
    return c.lock()


def planned_runs(file: Path, values: ConfigDict) -> tuple[SweepConfig, list[PlannedRun]]:
    """The runs of a sweep file, the cheapest first.

    Args:
      file: Python file with `get_config()` and `runs(base, vary)`, which yields (name, TrainConfig).
      values: result of `get_config`, with the overrides of the command line.

    Raises:
      UserError: it is not a sweep file, two runs have one name, or a run cannot be trained.
    """
    make = runpy.run_path(str(file)).get("runs")
    if make is None or "vary" not in values:
        raise UserError(
            f"{file.name} is not a sweep: it has no runs(base, vary); python -m scaling.train trains one config"
        )
    vary = values["vary"].to_dict()
    settings = from_config_dict(SweepConfig, {name: x for name, x in values.items() if name != "vary"})
    plan = [
        PlannedRun(name, c, pretraining_row(settings.study, name, c)) for name, c in _checked(make(settings.base, vary))
    ]
    if not plan:
        raise UserError(f"{file.name} has no runs: one of vary is empty")
    return settings, sorted(plan, key=lambda run: (run.row.train_flops, run.name))


def _checked(runs: Iterable[NamedConfig]) -> Iterable[NamedConfig]:
    names: set[str] = set()
    for name, c in runs:
        if not re.fullmatch(r"[\w.+-]+", name) or name in names:
            raise UserError(
                f"{name!r} is the name of two runs" if name in names else f"{name!r} cannot be the name of a folder"
            )
        names.add(name)
        try:
            c.check()
        except UserError as e:
            raise UserError(f"run {name}: {e}") from e
        if c.early_stopping:
            raise UserError(
                f"run {name}: early_stopping={c.early_stopping}: the rows state the planned lengths of the runs; leave "
                "it out"
            )
        yield name, c


def component_flops(c: TrainConfig) -> dict[str, int]:
    """Operations of the whole run by component, `full` convention."""
    shapes, names = c.objective.abstract(c.model)
    by = counting.step_flops(names, shapes, c.objective.tokens(c.model))["full"]
    return {part: c.steps * c.batch_size * count for part, count in counting.components(by).items()}


def folder_of(workdir: epath.Path, run: PlannedRun) -> epath.Path:
    return workdir / RUNS / run.name
