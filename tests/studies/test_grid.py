"""A study is a list of jobs: each is done once, whatever ends a process, and by one process."""

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from scaling.core.errors import TemporaryError, TrainingError, UserError
from scaling.core.rows import Row, read_rows
from scaling.studies.grid import DONE, FAILED, WAITING, Grid, StoppedError, part
from scaling.studies.journal import Journal
from tests.commands import ROOT, environment

ROW = Row("toy", "m", "none", 1, 1, 1.0, 1.0, 1.0, 1.0, "", "", "", "d", "test", "", "accuracy", 0.5)


@dataclasses.dataclass
class Images:
    """A point of a curve of data efficiency: how much an encoder is worth with so many labelled images."""

    images: int
    does: list = dataclasses.field(default_factory=list)  # one action for each time that it is run

    @property
    def name(self):
        return f"images{self.images}"

    @property
    def cost(self):
        return float(self.images)

    def run(self):
        if self.does and (action := self.does.pop(0)):
            action()
        return [dataclasses.replace(ROW, images=self.images, metric=name) for name in ("accuracy", "f1")]


def raising(error):
    def act():
        raise error

    return act


def run(jobs, folder, **options):
    with Journal(folder).open() as journal:
        return Grid(jobs, journal, **options).run()


def images_of(folder):
    return [row.images for row in read_rows(folder / "rows.jsonl")]


def test_three_jobs_of_which_one_fails_once_one_is_killed_and_one_is_claimed(tmp_path):
    """The first is run by another process when it is killed, in a folder of a task; this one continues meanwhile."""
    code = f"""
        import sys
        from scaling.studies.grid import Grid
        from scaling.studies.journal import Journal
        from tests.studies.test_grid import Images
        def wait():
            print("claimed", flush=True)
            sys.stdin.read()
        with Journal({str(tmp_path)!r}, 0, 2).open() as journal:
            Grid([Images(5), Images(10, [wait])], journal).run()
    """
    line, pipe = [sys.executable, "-c", textwrap.dedent(code)], subprocess.PIPE
    other = subprocess.Popen(line, cwd=ROOT, env=environment(), stdin=pipe, stdout=pipe, text=True)
    try:
        assert other.stdout.readline() == "claimed\n"
        jobs = [Images(5), Images(10), Images(20, [raising(UserError("too few images\nof a class"))])]
        first = run(jobs, tmp_path, retry=False)
        assert first.busy == ["images10"]
        assert first.failed == {"images20": "too few images"}
        other.send_signal(signal.SIGKILL)
    finally:
        other.kill()
        other.communicate()
    assert Grid(jobs, Journal(tmp_path)).states() == {"images5": DONE, "images10": WAITING, "images20": FAILED}
    assert not run(jobs, tmp_path, retry=False).failed  # what failed is left alone
    assert Grid(jobs, Journal(tmp_path)).states() == {"images5": DONE, "images10": DONE, "images20": FAILED}
    last = run(jobs, tmp_path)
    assert (last.failed, last.busy) == ({}, [])
    assert sorted(images_of(tmp_path)) == [5, 5, 10, 10, 20, 20]  # the five were of the process that was killed
    assert not any(file.name == ".claims" for file in tmp_path.iterdir())


FULL = TrainingError("runs/a/checkpoints: No space left on device; make room, and start again")


@pytest.mark.parametrize(
    "error", [TemporaryError("the bucket is silent"), StoppedError(143), KeyboardInterrupt(), FULL]
)
def test_what_ends_a_process_is_not_a_failure_of_the_job(tmp_path, error):
    jobs = [Images(1), Images(2, [raising(error)]), Images(3)]
    with pytest.raises(type(error)):
        run(jobs, tmp_path)
    assert [job.name for job in Grid(jobs, Journal(tmp_path), retry=False).todo()] == ["images2", "images3"]
    run(jobs, tmp_path, retry=False)
    assert images_of(tmp_path) == [1, 1, 2, 2, 3, 3]


def test_a_job_whose_rows_are_torn_or_removed_is_run_again(tmp_path):
    jobs, file = [Images(1), Images(2)], tmp_path / "rows.jsonl"
    run(jobs, tmp_path)
    whole = file.read_bytes()
    for left in (whole[:-30], b"".join(whole.splitlines(keepends=True)[:2])):
        file.write_bytes(left)
        assert [job.name for job in Grid(jobs, Journal(tmp_path)).todo()] == ["images2"]
        run(jobs, tmp_path)
        assert file.read_bytes() == whole
    (tmp_path / "jobs.jsonl").write_text("of another program\n")
    with pytest.raises(UserError, match=r"jobs.jsonl, line 1, is not the outcome of a job"):
        Journal(tmp_path)


def test_tasks_divide_the_jobs_and_the_last_has_all_rows(tmp_path):
    jobs = [Images(n) for n in range(1, 8)]
    for task in (2, 0, 1):
        with Journal(tmp_path, task, 3).open() as journal:
            Grid(part(jobs, task, 3), journal).run()
    assert sorted(images_of(tmp_path)) == sorted([*range(1, 8)] * 2)
    assert [job.name for job in part(jobs, 1, 3)] == ["images2", "images5"]
    assert not Grid(jobs, Journal(tmp_path)).todo()
    for task, tasks in ((3, 3), (0, 0), (-1, 2)):
        with pytest.raises(UserError, match=rf"--task={task}: must be from 0 to {tasks - 1}, with --tasks={tasks}"):
            part(jobs, task, tasks)


def test_a_job_that_another_process_has_done_in_the_meantime_is_not_run(tmp_path):
    jobs = [Images(1, [lambda: run_as_task(tmp_path, [Images(2)])]), Images(2, [raising(AssertionError("again"))])]
    run(jobs, tmp_path)
    assert images_of(tmp_path) == [1, 1, 2, 2]


def run_as_task(folder, jobs):
    with Journal(folder, 0, 2).open() as journal:
        Grid(jobs, journal).run()


@pytest.mark.parametrize("tasks", [(0, 1), (1, 0)])
def test_a_job_that_one_task_failed_at_and_another_did_is_done(tmp_path, tasks):
    job = Images(1, [raising(UserError("too few images"))])
    for task, state in zip(tasks, (FAILED, DONE), strict=True):
        with Journal(tmp_path, task, 2).open() as journal:
            Grid([job], journal).run()
        assert Grid([job], Journal(tmp_path)).states() == {"images1": state}


def test_one_process_at_a_time_writes_the_rows_of_a_task(tmp_path):
    with Journal(tmp_path).open(), pytest.raises(UserError, match=rf"another process .*{os.getpid()}"):
        run([Images(1)], tmp_path)


def test_the_time_that_is_left_is_measured_by_cost(tmp_path):
    jobs = [Images(n) for n in (1, 2, 5)]
    assert Grid(jobs, Journal(tmp_path)).seconds(jobs) is None
    with Journal(tmp_path).open() as journal:
        grid = Grid(jobs, journal)
        journal.keep(jobs[0], [], 2.0)
        journal.keep(jobs[1], [], 4.0)
        assert grid.seconds(grid.todo()) == 10.0
        left, began = [], []
        grid.run(lambda job, number, of: began.append((job.name, number, of)), left.append)
        assert (began, left) == ([("images5", 0, 1)], [0.0])


def test_names_tell_jobs_apart(tmp_path):
    with pytest.raises(UserError, match="'images1' names two jobs"):
        Grid([Images(1), Images(1)], Journal(tmp_path))


def test_a_study_in_a_bucket(bucket):
    folder = "gs://bucket/curve"
    jobs = [Images(1), Images(2, [raising(UserError("no"))])]
    assert run(jobs, folder).failed == {"images2": "no"}
    assert run(jobs, folder).failed == {}
    assert [row.images for row in read_rows(f"{folder}/rows.jsonl")] == [1, 1, 2, 2]
