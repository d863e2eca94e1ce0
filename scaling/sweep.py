"""Trains many models that differ in width, depth, data, length, learning rate or seed, and measures each.

    python -m scaling.sweep --config=sweeps/width.py --workdir=DIR [--plan] [--config.vary.steps="(500,)" ...]
    python -m scaling.sweep --config=sweeps/width.py --workdir=DIR --task=3 --tasks=8     # of an array of jobs
    python -m scaling.sweep --config=sweeps/width.py --workdir=gs://... --commands        # one line per run, for pods

A sweep is a Python file: `get_config()` returns `sweep_config(...)`, whose fields can be overridden, and `runs(base,
vary)` yields names and configurations. First its plan is printed (runs, parameters, operations, time; --plan stops
there); then the runs are trained in order of increasing cost. Finished runs are skipped, interrupted runs resume, and
failed runs are retried only with --retry. --change names the fields that may differ from those with which a run was
started. DIR gets `rows.jsonl` (the schema of `scaling.core.rows`), `figures/`, and one working directory per run under
`runs/NAME/`. Exit code 3: some runs failed.
"""

import itertools
import shlex
import sys
from pathlib import Path

from etils import epath
from ml_collections import config_flags

from scaling import cli
from scaling.analysis.sweep_figure import draw_sweep
from scaling.core.console import console
from scaling.core.errors import BusyError, TrainingError, UserError
from scaling.core.paths import check_folder
from scaling.parallel import hosts
from scaling.studies.grid import DONE, FAILED, Grid, Job, StoppedError, part
from scaling.studies.sweeps import execute
from scaling.studies.sweeps.announce import show
from scaling.studies.sweeps.execute import RunFolders, TrainingJob
from scaling.studies.sweeps.plan import PlannedRun, SweepConfig, planned_runs


def define_flags(define: cli.Define) -> None:
    define.config(SweepConfig, "Sweep file, by path or by bare name.")
    define.path("workdir", None, "Folder for the runs and their rows; unfinished runs in it are resumed.")
    define.bool("plan", False, "Show the runs and their cost; train none.")
    define.alias("dry_run", "plan")
    define.bool("commands", False, "Print one command per unfinished run; train none.")
    define.list("only", [], "Names of the runs to train.")
    define.tasks("runs")
    define.bool("retry", False, "Train failed runs again.")
    define.change()
    define.processes()


@cli.command(define_flags)
def main(argv: list[str], flags: cli.Flags) -> int:
    cli.require(flags, "config=FILE", "workdir=DIR")
    file = Path(config_flags.get_config_filename(flags["config"]))
    settings, plan = planned_runs(file, flags.config)
    _check_overrides(flags, settings, plan)
    workdir = epath.Path(flags.workdir)
    ledger, jobs = RunFolders(workdir), [TrainingJob(workdir, run, settings.probe, flags.change) for run in plan]
    grid = Grid(_chosen(flags, jobs), ledger, flags.retry)
    states = Grid(jobs, ledger).states()  # all jobs: none may have another configuration
    todo = [job.planned for job in grid.todo()]
    if flags.commands:
        print("\n".join(_command(flags, run) for run in todo))
        return 0
    cli.join(flags)
    if not flags.plan:
        check_folder("workdir", workdir, checkpoints=True)
    execute.check(todo, settings.probe)
    if hosts.is_first():
        show(settings.study, [job.planned for job in grid.jobs], states, todo, execute.collect(workdir))
    return 0 if flags.plan else _train(workdir, jobs, grid, ledger)


def _check_overrides(flags: cli.Flags, settings: SweepConfig, plan: list[PlannedRun]) -> None:
    """Raises a UserError for an overridden field of `base` that the sweep itself sets in every run."""
    given = config_flags.get_override_values(flags["config"])
    for name in ("steps", "seed"):
        wanted = getattr(settings.base, name)
        if f"base.{name}" in given and all(getattr(run.config, name) != wanted for run in plan):
            raise UserError(f"--config.base.{name}: the sweep sets this field in every run; set --config.vary instead")


def _chosen(flags: cli.Flags, jobs: list[TrainingJob]) -> list[TrainingJob]:
    names = {job.name for job in jobs}
    for name in flags.only:
        if name not in names:
            raise UserError(f"--only={name}: there is no such run; they are {', '.join(sorted(names))}")
    return part([job for job in jobs if not flags.only or job.name in flags.only], flags.task, flags.tasks)


def _train(workdir: epath.Path, jobs: list[TrainingJob], grid: Grid[TrainingJob], ledger: RunFolders) -> int:
    out = console()

    def begins(job: Job, number: int, of: int) -> None:
        if hosts.is_first():
            out.print(f"\n[bold]run {number + 1} of {of}: {job.name}[/bold]")

    try:
        outcome = grid.run(begins)
    except StoppedError as e:
        return e.code
    if hosts.is_first():
        draw_sweep(execute.merge(workdir), workdir / "figures" / "eval_loss")
    states = Grid(jobs, ledger).states()
    failed = [job for job in grid.jobs if states[job.name] == FAILED]
    done = sum(state == DONE for state in states.values())
    if hosts.is_first():
        out.print(f"\n{done} of {len(jobs)} runs are finished; rows {workdir / 'rows.jsonl'}")
        for job in failed:
            out.print(f"failed   {job.name}: {ledger.failure(job)}", markup=False)
    if failed:
        raise TrainingError(f"{len(failed)} runs failed; --retry trains them again")
    if outcome.busy:
        raise BusyError(
            f"{len(outcome.busy)} runs are being trained by other processes, first {outcome.busy[0]}; start again when "
            "they have ended"
        )
    return 0


def _command(flags: cli.Flags, run: PlannedRun) -> str:
    """The command line of a single run."""
    kept, words = [], iter(sys.argv[1:])
    for word in words:
        name, has_value, _ = word.lstrip("-").partition("=")
        switch = name if name in flags else name.removeprefix("no")
        alone = has_value or (switch in flags and flags[switch].boolean)
        pair = [word] if alone else [word, *itertools.islice(words, 1)]
        if switch not in ("commands", "only", "task", "tasks"):
            kept += pair
    return shlex.join(["python", "-m", "scaling.sweep", *kept, f"--only={run.name}"])


if __name__ == "__main__":
    cli.run(main)
