"""What finished runs leave behind, however many processes write it."""

import dataclasses
import runpy
import threading

import jax
import pytest
from etils import epath

from scaling.config import find_config
from scaling.errors import TrainingError, UserError
from scaling.results import read_rows, write_rows
from scaling.sweeps import execute
from scaling.sweeps.plan import ProbeConfig, make_plan

NO_PROBE = ProbeConfig()


@pytest.fixture
def plan():
    file = find_config("sweeps/width.py")
    values = runpy.run_path(str(file))["get_config"]()
    return make_plan(file, values)[1]


def finish(workdir, run, **fields):
    """As a run that was trained, of which nothing is left but its rows."""
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
    def fail(config, folder):
        raise error

    monkeypatch.setattr(execute, "train", fail)
    workdir = epath.Path(tmp_path)
    assert execute.execute(workdir, plan[0], NO_PROBE) == 3
    assert execute.state_of(workdir, plan[0], NO_PROBE) == execute.FAILED
    assert execute.failure(workdir, plan[0]) == str(error).splitlines()[0]


def test_a_run_without_the_probe_that_is_asked_for_is_not_done(tmp_path, plan, monkeypatch):
    workdir, run, asked = epath.Path(tmp_path), plan[0], []
    monkeypatch.setattr(execute, "train", lambda config, folder: 0)
    monkeypatch.setattr(execute, "measure", lambda folder, run, probe: asked.append(probe) or [finished])
    probe = ProbeConfig(source="scenes?size=16")
    finished = dataclasses.replace(run.row, metric="eval_loss", value=0.5)
    execute.execute(workdir, run, NO_PROBE)
    assert execute.state_of(workdir, run, NO_PROBE) == execute.DONE
    assert execute.state_of(workdir, run, probe) == execute.STARTED
    finished = dataclasses.replace(finished, metric="accuracy", probe="knn", dataset=probe.source)
    execute.execute(workdir, run, probe)
    assert execute.state_of(workdir, run, probe) == execute.DONE
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
