"""Rows of finished runs, with any number of processes writing."""

import dataclasses
import json
import runpy
import threading

import jax
import pytest
from etils import epath

from scaling.core.config import find_config
from scaling.core.errors import TrainingError, UserError
from scaling.core.rows import read_rows, write_rows
from scaling.parallel.claim import Claim
from scaling.parallel.mesh import MeshConfig
from scaling.studies.grid import DONE, FAILED, STARTED, Grid, Outcome, StoppedError
from scaling.studies.rows import pretraining_row
from scaling.studies.sweeps import execute
from scaling.studies.sweeps.plan import PlannedRun, ProbeConfig, planned_runs

NO_PROBE = ProbeConfig()


@pytest.fixture
def plan():
    file = find_config("sweeps/width.py")
    values = runpy.run_path(str(file))["get_config"]()
    return planned_runs(file, values)[1]


def job(workdir, run, probe=NO_PROBE, change=()):
    return execute.TrainingJob(workdir, run, probe, change)


def state_of(workdir, run, probe=NO_PROBE, change=()):
    return execute.RunFolders(workdir).state(job(workdir, run, probe, change))


def execute_one(workdir, run, probe=NO_PROBE, change=()):
    """The outcome of one run; the exit code if a signal ended it."""
    try:
        return Grid([job(workdir, run, probe, change)], execute.RunFolders(workdir)).run()
    except StoppedError as e:
        return e.code


def finish(workdir, run, **fields):
    """Simulates a trained run of which only the rows are left."""
    row = dataclasses.replace(run.row, metric="eval_loss", value=0.5, **fields)
    write_rows(execute.folder_of(workdir, run) / "rows.jsonl", [row])
    return row


def test_the_file_of_a_sweep_has_every_finished_run_of_the_folder(tmp_path, plan):
    workdir = epath.Path(tmp_path)
    rows = [finish(workdir, run) for run in reversed(plan)]
    assert execute.merge(workdir) == rows[::-1] == read_rows(workdir / "rows.jsonl")  # the cheapest first
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["rows.jsonl"]


def test_tasks_that_finish_together_lose_nothing(tmp_path, plan):
    workdir, failures = epath.Path(tmp_path), []

    def task(part):
        try:
            for run in part:
                finish(workdir, run)
                execute.merge(workdir)
        except Exception as e:
            failures.append(e)

    threads = [threading.Thread(target=task, args=(plan[i::3],)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert [row.model for row in read_rows(workdir / "rows.jsonl")] == [run.name for run in plan]


@pytest.mark.parametrize(
    "error",
    [TrainingError("loss is nan"), UserError("no such file"), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED\n…")],
)
def test_a_run_that_cannot_go_on_is_kept_as_failed(tmp_path, plan, monkeypatch, error):
    def fail(config, folder, change):
        raise error

    monkeypatch.setattr(execute, "train", fail)
    workdir = epath.Path(tmp_path)
    assert execute_one(workdir, plan[0]).failed == {plan[0].name: str(error).splitlines()[0]}
    assert state_of(workdir, plan[0]) == FAILED
    assert execute.RunFolders(workdir).failure(job(workdir, plan[0])) == str(error).splitlines()[0]


def test_a_run_that_another_process_trains_is_left_to_it(tmp_path, plan, monkeypatch):
    def claimed(config, folder, change):
        with Claim(folder):
            return 0

    monkeypatch.setattr(execute, "train", claimed)
    monkeypatch.setattr(execute, "measure", lambda folder, run, probe: [dataclasses.replace(run.row, value=0.5)])
    workdir, (first, second) = epath.Path(tmp_path), plan[:2]
    with Claim(execute.folder_of(workdir, first)):
        jobs = [job(workdir, run) for run in (first, second)]
        assert Grid(jobs, execute.RunFolders(workdir)).run() == Outcome({}, [first.name])
    assert (state_of(workdir, first), state_of(workdir, second)) == (STARTED, DONE)
    assert Grid(jobs, execute.RunFolders(workdir)).run() == Outcome()
    assert [row.model for row in read_rows(workdir / "rows.jsonl")] == [first.name, second.name]


def test_a_run_without_the_probe_that_is_asked_for_is_not_done(tmp_path, plan, monkeypatch):
    workdir, run, asked = epath.Path(tmp_path), plan[0], []
    monkeypatch.setattr(execute, "train", lambda config, folder, change: 0)
    monkeypatch.setattr(execute, "measure", lambda folder, run, probe: asked.append(probe) or [finished])
    probe = ProbeConfig(source="scenes?size=16")
    finished = dataclasses.replace(run.row, metric="eval_loss", value=0.5)
    execute_one(workdir, run, NO_PROBE)
    assert state_of(workdir, run, NO_PROBE) == DONE
    assert state_of(workdir, run, probe) == STARTED
    finished = dataclasses.replace(finished, metric="accuracy", probe="knn", dataset=probe.source)
    execute_one(workdir, run, probe)
    assert state_of(workdir, run, probe) == DONE
    assert asked == [NO_PROBE, probe]


def test_what_cannot_be_read_is_said_before_anything_is_trained(plan):
    def with_split(split):
        c = plan[0].config
        return dataclasses.replace(
            plan[0], config=dataclasses.replace(c, data=dataclasses.replace(c.data, split=split))
        )

    execute.check(plan, ProbeConfig(source="scenes?size=16"))
    for split, message in (("train[:0]", "is empty"), ("train[:99999999]", "train has only")):
        with pytest.raises(UserError, match=f"run {plan[0].name}: .*{message}"):
            execute.check([with_split(split)], NO_PROBE)
    with pytest.raises(UserError, match="no such folder"):
        execute.check(plan, ProbeConfig(source="folder:/nowhere"))


def test_a_run_of_another_configuration_is_refused_by_field(tmp_path, plan, monkeypatch):
    workdir, run, given = epath.Path(tmp_path), plan[0], []
    monkeypatch.setattr(execute, "train", lambda config, folder, change: given.append(change) or 143)
    execute_one(workdir, run, NO_PROBE)

    def changed(**fields):
        c = dataclasses.replace(run.config, **fields)
        return PlannedRun(run.name, c, pretraining_row("width", run.name, c))

    rate = dataclasses.replace(run.config.optimizer, base_lr=7.0)
    for other, message in (
        (changed(optimizer=rate), r"optimizer.base_lr=.* \(now 7.0\); .*--change=optimizer.base_lr$"),
        (changed(steps=7), r"steps=.* \(now 7\)"),
    ):
        with pytest.raises(UserError, match=f"{run.name} was started with another configuration: {message}"):
            state_of(workdir, other, NO_PROBE)
    other = changed(optimizer=rate, seed=run.config.seed)
    assert state_of(workdir, other, NO_PROBE, ["optimizer"]) == STARTED
    execute_one(workdir, other, NO_PROBE, ["optimizer"])
    assert given == [(), ["optimizer"]]


def test_a_sweep_goes_on_on_another_machine(tmp_path, plan, monkeypatch):
    workdir, run = epath.Path(tmp_path), plan[0]
    monkeypatch.setattr(execute, "train", lambda config, folder, change: 143)
    execute_one(workdir, run, NO_PROBE)
    c = dataclasses.replace(
        run.config, mesh=MeshConfig(tensor=2), data=dataclasses.replace(run.config.data, threads=3), checkpoint_every=7
    )
    moved = PlannedRun(run.name, c, pretraining_row("width", run.name, c))
    assert moved.row.config_hash != run.row.config_hash
    assert state_of(workdir, moved, NO_PROBE) == STARTED


@pytest.mark.parametrize("code", [130, 143])
def test_a_run_that_was_stopped_is_measured_when_it_is_started_again(tmp_path, plan, monkeypatch, code):
    workdir, run = epath.Path(tmp_path), plan[0]
    monkeypatch.setattr(execute, "train", lambda config, folder, change: code)
    assert execute_one(workdir, run, NO_PROBE) == code
    assert state_of(workdir, run, NO_PROBE) == STARTED


def test_a_run_whose_last_held_out_loss_is_not_finite_has_diverged(tmp_path, plan):
    rows = [{"step": 1, "loss": 2.0, "eval_loss": 1.5}, {"step": 2, "loss": 1.0, "eval_loss": "nan"}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(TrainingError, match=r"metrics.jsonl: the run diverged, its last held-out loss is nan"):
        execute.measure(epath.Path(tmp_path), plan[0], NO_PROBE)
