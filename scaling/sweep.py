"""Trains many models that differ in width, depth, data, length, learning rate or seed, and measures each.

    python -m scaling.sweep --config=sweeps/width.py --workdir=DIR [--plan] [--config.vary.steps="(500,)" ...]
    python -m scaling.sweep --config=sweeps/width.py --workdir=DIR --task=3 --tasks=8     # of an array of jobs
    python -m scaling.sweep --config=sweeps/width.py --workdir=gs://... --commands        # a line a run, for pods

A sweep is a Python file: `get_config()` returns `sweep_config(...)`, whose fields can be overridden, and
`runs(base, vary)` yields names and configurations. It is planned first (runs, parameters, operations, time; --plan
stops there) and then trained from the cheapest to the dearest. A finished run is never trained again, an interrupted
one resumes from its newest checkpoint, one that failed is left alone until --retry. What may differ from what a run was
begun with, beside where and how fast it computes, is named in --change. DIR gets `rows.jsonl` (the schema
of `scaling.results`), `figures/`, and `runs/NAME/` what `scaling.train` leaves. Exit code 3: some runs failed.
"""

import shlex
import sys
from pathlib import Path

from absl import flags
from etils import epath
from ml_collections import config_flags

from scaling import cli
from scaling.analysis.sweep_figure import draw_sweep
from scaling.console import console
from scaling.errors import TrainingError, UserError
from scaling.parallel import hosts
from scaling.paths import check_folder
from scaling.sweeps import execute
from scaling.sweeps.announce import show
from scaling.sweeps.plan import Planned, SweepConfig, make_plan

_CONFIG = config_flags.DEFINE_config_file("config", None, "Sweep file, by path or by bare name.")
_WORKDIR = cli.define_path("workdir", None, "Where the runs and their rows are kept; goes on from what is there.")
_PLAN = flags.DEFINE_bool("plan", False, "Show the runs and what they cost, train none.")
_COMMANDS = flags.DEFINE_bool("commands", False, "Print one command a run that is not finished, train none.")
_ONLY = flags.DEFINE_list("only", [], "Names of the runs to train.")
_TASK = flags.DEFINE_integer("task", 0, "Which part of the runs to train, from 0.", lower_bound=0)
_TASKS = flags.DEFINE_integer("tasks", 1, "In how many parts the runs are divided.", lower_bound=1)
_RETRY = flags.DEFINE_bool("retry", False, "Train failed runs again.")
_CHANGE = cli.define_change_flag()
_JOIN = cli.define_process_flags()

_ENDED = (execute.DONE, execute.FAILED)


def main(argv: list[str]) -> int:
    cli.check_no_words(argv)
    if _CONFIG.value is None or not _WORKDIR.value:
        raise UserError("give --config=FILE and --workdir=DIR")
    if _TASK.value >= _TASKS.value:
        raise UserError(f"--task={_TASK.value} of --tasks={_TASKS.value}: they are counted from 0")
    file = Path(config_flags.get_config_filename(flags.FLAGS["config"]))
    settings, plan = make_plan(file, _CONFIG.value)
    _check_overrides(settings, plan)
    workdir = epath.Path(_WORKDIR.value)
    chosen = _chosen(plan)
    states = {run.name: execute.state_of(workdir, run, settings.probe, _CHANGE.value) for run in plan}
    todo = [run for run in chosen if states[run.name] not in ((execute.DONE,) if _RETRY.value else _ENDED)]
    if _COMMANDS.value:
        print("\n".join(_command(run) for run in todo))
        return 0
    _JOIN()
    if not _PLAN.value:
        check_folder("workdir", workdir, checkpoints=True)
    execute.check(todo, settings.probe)
    if hosts.is_first():
        show(settings.study, chosen, states, todo, execute.collect(workdir))
    return 0 if _PLAN.value else _train(workdir, settings, plan, chosen, todo)


def _check_overrides(settings: SweepConfig, plan: list[Planned]) -> None:
    """Raises a UserError for a field of `base` that was given and that the sweep sets anew in every run."""
    given = config_flags.get_override_values(flags.FLAGS["config"])
    for name in ("steps", "seed"):
        wanted = getattr(settings.base, name)
        if f"base.{name}" in given and all(getattr(run.config, name) != wanted for run in plan):
            raise UserError(
                f"--config.base.{name} is set anew in every run of this sweep; give what it varies, --config.vary"
            )


def _chosen(plan: list[Planned]) -> list[Planned]:
    names = {run.name for run in plan}
    for name in _ONLY.value:
        if name not in names:
            raise UserError(f"--only={name}: there is no such run; they are {', '.join(sorted(names))}")
    wanted = [run for run in plan if not _ONLY.value or run.name in _ONLY.value]
    return wanted[_TASK.value :: _TASKS.value]  # neighbours in cost go to different tasks


def _train(
    workdir: epath.Path, settings: SweepConfig, plan: list[Planned], chosen: list[Planned], todo: list[Planned]
) -> int:
    out = console()
    for i, run in enumerate(todo):
        if hosts.is_first():
            out.print(f"\n[bold]run {i + 1} of {len(todo)}: {run.name}[/bold]")
        code = execute.execute(workdir, run, settings.probe, _CHANGE.value)
        if code in (hosts.STOPPED, hosts.INTERRUPTED):
            return code
        execute.merge(workdir)
    if hosts.is_first():
        draw_sweep(execute.merge(workdir), workdir / "figures" / "eval_loss")
    states = {run.name: execute.state_of(workdir, run, settings.probe, _CHANGE.value) for run in plan}
    failed = [run for run in chosen if states[run.name] == execute.FAILED]
    done = sum(state == execute.DONE for state in states.values())
    if hosts.is_first():
        out.print(f"\n{done} of {len(plan)} runs are finished; rows {workdir / 'rows.jsonl'}")
        for run in failed:
            out.print(f"failed   {run.name}: {execute.failure(workdir, run)}", markup=False)
    if failed:
        raise TrainingError(f"{len(failed)} runs failed; --retry trains them again")
    return 0


def _command(run: Planned) -> str:
    """This command for one run alone."""
    kept = [a for a in sys.argv[1:] if not a.lstrip("-").startswith(("commands", "only", "task"))]
    return shlex.join(["python", "-m", "scaling.sweep", *kept, f"--only={run.name}"])


if __name__ == "__main__":
    cli.run(main)
