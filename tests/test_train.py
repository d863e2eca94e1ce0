"""Training through the real command line: interrupted, on other devices, in several processes, and with wrong input."""

import json
import math
import os
import random
import re
import shutil
import signal
import subprocess

import numpy as np
import pytest
from PIL import Image

from scaling.core.config import from_config_dict
from scaling.parallel.claim import Claim
from scaling.parallel.hosts import LOST, STOPPED
from scaling.training.config import TrainConfig
from tests.commands import (
    ROOT,
    TINY,
    call,
    command,
    environment,
    error_of,
    finish,
    free_port,
    interrupt,
    interrupt_together,
    optimised_programs,
    rows_of,
    run,
    start,
    train,
    train_command,
    train_together,
)
from tests.data.examples import class_folders, truncate

STEPS = TINY["steps"]
MESHES = {
    "fsdp 8": {},
    "fsdp 4, tensor 2": {"mesh.fsdp": 4, "mesh.tensor": 2},
    "replica 2, fsdp 4": {"mesh.replica": 2, "mesh.fsdp": 4},
}


@pytest.fixture(autouse=True, scope="module")
def as_a_user_compiles():
    with optimised_programs():
        yield


def computed(workdir):
    """The results of a run: every step once, in order, without rates and times."""
    rows = rows_of(workdir)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    names = ("loss", "lr", "grad_norm", "param_norm", "eval_loss")
    return [{name: row[name] for name in names if name in row} for row in rows]


def assert_same_losses(workdir, expected):
    for name in ("loss", "eval_loss"):
        got, want = ([row[name] for row in computed(w) if name in row] for w in (workdir, expected))
        np.testing.assert_allclose(got, want, rtol=1e-5)


def steps_saved(workdir):
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())


def rewound(workdir, to, step):
    """A copy of a finished run as it was when the checkpoint of a step was its newest."""
    shutil.copytree(workdir, to)
    for later in steps_saved(to):
        if later > step:
            shutil.rmtree(to / "checkpoints" / str(later))
    return to


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.long)


class TestResume:
    @pytest.mark.parametrize(
        ("how", "code"), [(signal.SIGKILL, -9), slow(signal.SIGTERM, 143), slow(signal.SIGINT, 130)]
    )
    def test_an_interrupted_run_goes_on_to_the_last_bit(self, uninterrupted_run, tmp_path, how, code):
        rows = random.randint(11, 33)  # by row 11 the checkpoint of step 5 is complete
        stopped = interrupt(tmp_path, rows, how)
        assert stopped.returncode == code, stopped.stderr
        newest = max(steps_saved(tmp_path))
        assert 5 <= newest < STEPS
        if how != signal.SIGKILL:
            assert rows_of(tmp_path)[-1]["step"] == newest  # nothing is computed twice
            by = "SIGTERM" if how == signal.SIGTERM else "Ctrl-C"
            assert f"stopped by {by} after saving; the same command resumes" in stopped.stderr
            assert "Traceback" not in stopped.stderr
        resumed = train(tmp_path)
        assert f"steps   {newest:,} to {STEPS} " in resumed.stdout
        assert computed(tmp_path) == computed(uninterrupted_run[0]), f"interrupted after {rows} rows"

    def test_a_finished_run_is_left_as_it_is(self, uninterrupted_run, tmp_path):
        workdir = rewound(uninterrupted_run[0], tmp_path / "again", STEPS)
        assert call(train_command(workdir)).returncode == 0
        assert rows_of(workdir) == rows_of(uninterrupted_run[0])


class TestResumeOfSomethingElse:
    """A working directory knows which run it belongs to."""

    def test_what_changes_the_result_is_refused_by_name(self, uninterrupted_run, tmp_path):
        workdir = rewound(uninterrupted_run[0], tmp_path / "run", 10)
        before = (workdir / "config.json").read_text()
        fields = {"seed": 7, "batch_size": 32, "optimizer.base_lr": 0.1, "data.flips": "none", "steps": 12}
        message = error_of(call(train_command(workdir, fields)), 2)
        assert f"--workdir={workdir} was started with seed=0 (now 7), batch_size=16 (now 32), " in message
        assert "data.flips='dihedral' (now 'none'), optimizer.base_lr=0.02 (now 0.1); set that as it was" in message
        assert (workdir / "config.json").read_text() == before
        assert steps_saved(workdir) == [5, 10]

    @pytest.mark.long
    def test_where_and_how_long_may_change_and_is_said(self, uninterrupted_run, tmp_path):
        workdir = rewound(uninterrupted_run[0], tmp_path / "run", 10)
        done = run(train_command(workdir, {"steps": 12, "data.threads": 3}))
        assert done.returncode == 0, done.stderr
        assert "steps: 40 -> 12 from step 10" in done.stderr
        assert json.loads((workdir / "config.json").read_text())["steps"] == 12

    def test_a_finished_run_trains_nothing_and_its_record_stays(self, uninterrupted_run, tmp_path):
        workdir = rewound(uninterrupted_run[0], tmp_path / "run", 40)
        before = (workdir / "config.json").read_text()
        done = call(train_command(workdir, {"steps": 30}))
        assert done.returncode == 0
        assert "was trained for 40 steps; there is nothing left to do" in done.stderr
        (workdir / "metrics.jsonl").unlink()  # only the checkpoints were copied
        assert "the course of the loss is not known" in call(train_command(workdir)).stdout
        assert (workdir / "config.json").read_text() == before

    def test_a_second_process_is_refused_while_the_first_trains(self, tmp_path):
        with Claim(tmp_path / "run"):
            message = error_of(run(train_command(tmp_path / "run")), 2)
        assert "run is being written to by another process" in message
        assert f'"process": {os.getpid()}' in message

    @pytest.mark.parametrize("path", ["lr[1e-3]", "a*b", "what?"])
    def test_a_path_that_would_be_a_pattern_is_refused_first(self, tmp_path, path):
        message = error_of(call(train_command(tmp_path / path)), 2)
        assert "checkpoints cannot be kept in a path with" in message
        assert not (tmp_path / path).exists()


DAMAGE = {
    "empty": slow(lambda step: [shutil.rmtree(step), step.mkdir()]),
    "a part is gone": slow(lambda step: shutil.rmtree(step / "config")),
    "no manifest": slow(lambda step: (step / "params" / "manifest.ocdbt").unlink()),
    "arrays cut short": slow(lambda step: [os.truncate(file, 100) for file in step.glob("params/**/d/*")]),
    "arrays gone": slow(lambda step: [file.unlink() for file in step.glob("params/**/d/*")]),
}


class TestDamagedCheckpoints:
    @pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
    def test_the_newest_whole_one_is_taken_and_the_damaged_one_named(self, uninterrupted_run, tmp_path, damage):
        workdir = rewound(uninterrupted_run[0], tmp_path / "run", 15)
        damage(workdir / "checkpoints" / "15")
        done = run(train_command(workdir))
        assert done.returncode == 0, done.stderr
        assert_same_losses(workdir, uninterrupted_run[0])
        assert len(done.stderr.splitlines()) < 6
        assert "checkpoints/15" in done.stderr
        assert 15 in steps_saved(workdir)


class TestDevices:
    @pytest.mark.long
    def test_two_processes_go_on_from_a_checkpoint_of_one_device(self, uninterrupted_run, tmp_path):
        workdir = rewound(uninterrupted_run[0], tmp_path / "run", 30)
        train_together(workdir)
        assert_same_losses(workdir, uninterrupted_run[0])

    @pytest.mark.long
    @pytest.mark.parametrize("mesh", MESHES.values(), ids=MESHES)
    def test_eight_devices_compute_what_one_computes(self, uninterrupted_run, tmp_path, mesh):
        train(tmp_path, mesh, devices=8)
        assert_same_losses(tmp_path, uninterrupted_run[0])

    @pytest.mark.long
    def test_two_processes_of_four_devices_compute_what_one_device_computes(self, uninterrupted_run, tmp_path):
        train_together(tmp_path)
        assert_same_losses(tmp_path, uninterrupted_run[0])

    @pytest.mark.long
    def test_two_processes_that_share_every_image_compute_what_one_device_computes(self, uninterrupted_run, tmp_path):
        train_together(tmp_path, {"mesh.tensor": 2}, devices=1)
        assert_same_losses(tmp_path, uninterrupted_run[0])

    @pytest.mark.long
    def test_a_run_moves_from_one_device_to_many_to_two_processes_and_back(self, uninterrupted_run, tmp_path):
        places = [lambda workdir, mesh=mesh: train(workdir, mesh, devices=8) for mesh in MESHES.values()]
        workdir = uninterrupted_run[0]
        for step, go_on in zip((10, 15, 20, 25, 30), [*places, train_together, train], strict=True):
            workdir = rewound(workdir, tmp_path / str(step), step)
            go_on(workdir)
            assert_same_losses(workdir, uninterrupted_run[0])


@pytest.fixture(scope="module", params=[(2, 2), (4, 1)], ids=["2 processes", "4 processes"])
def several(request, tmp_path_factory):
    """Numbers of processes and of devices each, and a run on them without interruption."""
    processes, devices = request.param
    workdir = tmp_path_factory.mktemp("several") / "run"
    train_together(workdir, None, processes, devices)
    return processes, devices, workdir


@pytest.mark.long
class TestSeveralProcesses:
    def test_one_is_killed_the_others_end_and_all_go_on_to_the_last_bit(self, several, tmp_path):
        processes, devices, whole = several
        killed = random.randrange(processes)
        ends = interrupt_together(
            tmp_path, random.randint(11, 33), signal.SIGKILL, killed, processes, devices, timeout=60
        )
        assert ends.pop(killed).returncode == -signal.SIGKILL
        for done in ends:
            assert re.match(rf"process \d of {processes} lost the others: one of them ended", error_of(done, LOST))
            assert "stack trace" not in done.stderr
        newest = max(steps_saved(tmp_path))
        assert 5 <= newest < STEPS
        train_together(tmp_path, None, processes, devices)
        assert computed(tmp_path) == computed(whole), f"process {killed} was killed"

    def test_one_is_asked_to_stop_and_all_save_the_same_step(self, several, tmp_path):
        processes, devices, whole = several
        asked = random.randrange(processes)
        rows = random.randint(6, 33)
        for done in interrupt_together(tmp_path, rows, signal.SIGTERM, asked, processes, devices):
            assert done.returncode == STOPPED, done.stderr
            assert "stopped by SIGTERM after saving" in done.stderr
        newest = max(steps_saved(tmp_path))
        assert rows_of(tmp_path)[-1]["step"] == newest < STEPS
        train_together(tmp_path, None, processes, devices)
        assert computed(tmp_path) == computed(whole), f"process {asked} was asked after {rows} rows"


# A process of a run that is killed when it would save, or has begun to save, the checkpoint of step 10.
DIES = """
import os, signal
from scaling import cli, train
from scaling.training.checkpoints import Checkpoints
save = Checkpoints.save
def dies(self, step, *rest):
    if step == 10 and {late}:
        save(self, step, *rest)
    if step == 10:
        os.kill(os.getpid(), signal.SIGKILL)
    save(self, step, *rest)
Checkpoints.save = dies
cli.run(train.main)
"""


@pytest.mark.long
@pytest.mark.parametrize("killed", [0, 1])
@pytest.mark.parametrize("late", [False, True], ids=["before saving", "while saving"])
def test_a_process_lost_while_all_save_is_no_checkpoint_that_cannot_be_written(tmp_path, killed, late):
    where, running = f"localhost:{free_port()}", []
    for k in range(2):
        python, _, _, *flags = train_command(tmp_path, coordinator=where, processes=2, process=k, timeout=30)
        program = ["-c", DIES.format(late=late)] if k == killed else ["-m", "scaling.train"]
        running.append(start([python, *program, *flags]))
    ends = [finish(process) for process in running]
    assert ends.pop(killed).returncode == -signal.SIGKILL
    assert re.match(r"process \d of 2 lost the others: one of them ended", error_of(ends[0], LOST))
    assert max(steps_saved(tmp_path)) in (5, 10)
    train_together(tmp_path)
    assert len(computed(tmp_path)) == STEPS


class TestOutput:
    def test_the_loss_falls_and_the_summary_says_from_where_to_where(self, uninterrupted_run):
        workdir, out = uninterrupted_run
        rows = computed(workdir)
        assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]
        assert f"loss     {rows[0]['loss']:.4f} at step 1 to {rows[-1]['loss']:.4f} at step {STEPS}" in out
        assert f"held out {rows[-1]['eval_loss']:.4f}" in out

    def test_the_picture_it_names_is_there(self, uninterrupted_run):
        path = uninterrupted_run[1].split("picture")[-1].split("\n")[0].strip()
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert len(np.unique(np.asarray(picture.convert("L")))) > 50

    def test_what_is_about_to_happen_is_said_once(self, uninterrupted_run):
        out = uninterrupted_run[1]
        for what in (
            "18,752 encoder",
            "mesh    replica 1, fsdp 1, tensor 1",
            "scenes?size=16&count=512 (rendered, built in; data.source=folder:DIR is for your own), 502 images and 10",
        ):
            assert out.count(what) == 1

    def test_every_row_has_the_rates(self, uninterrupted_run):
        for row in rows_of(uninterrupted_run[0]):
            assert {"images_per_second", "images_per_second_per_device", "data_wait", "goodput", "memory_gib"} <= set(
                row
            )
            assert 0 <= row["data_wait"] <= 1
            assert 0 <= row["goodput"] <= 1

    def test_config_json_holds_the_whole_configuration(self, uninterrupted_run):
        written = json.loads((uninterrupted_run[0] / "config.json").read_text())
        config = from_config_dict(TrainConfig, written)
        assert config.model.width == TINY["model.width"]
        assert config.optimizer.base_lr == TINY["optimizer.base_lr"]
        assert len(config.data.mean) == len(config.data.std) == 3
        config.check()

    def test_tensorboard_has_events(self, uninterrupted_run):
        assert list((uninterrupted_run[0] / "tensorboard").glob("events.*"))


WRONG = {
    "an unknown field": ({"model.widht": 3}, r"unknown config field model\.widht; did you mean model\.width"),
    "a field far from any": (
        {"nonsense": 3},
        r"unknown config field nonsense; the fields are .*--print_config lists all",
    ),
    "a wrong type": ({"steps": "many"}, r"steps"),
    "a missing folder": ({"data.source": "folder:nowhere/at/all"}, r"folder:nowhere/at/all: no such folder"),
    "an unknown source": ({"data.source": "pictures"}, r"unknown source 'pictures'.*scenes"),
    "too many bands": (
        {"data.source": "scenes:ms?size=16&count=64"},
        r"has \d+ bands, but the model takes 3: .*model\.bands=",
    ),
    "a patch that does not divide": ({"model.image_size": 18}, r"image_size=18 is not divisible by model.patch_size=4"),
    "a mesh that does not fit": ({"mesh.fsdp": 3}, r"mesh\.fsdp=3.*must multiply to the 1 devices"),
    "a batch that does not divide": ({"accumulate": 3}, r"batch_size=16 is not divisible by .* 1 x 1 x 3"),
}
WRONG_IN_TIME = ("an unknown field", "a missing folder", "too many bands", "a patch that does not divide")


class TestWrongInput:
    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            pytest.param(*w, id=name, marks=[] if name in WRONG_IN_TIME else pytest.mark.long)
            for name, w in WRONG.items()
        ],
    )
    def test_ends_with_one_line_and_code_2(self, tmp_path, overrides, message):
        of_one_device = {"mesh.fsdp", "accumulate"} & {*overrides}
        done = (run if of_one_device else call)(train_command(tmp_path, overrides))
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert re.search(message, error_of(done, 2))

    def test_a_dry_run_says_and_checks_what_the_start_does_and_leaves_nothing(
        self, uninterrupted_run, tmp_path, monkeypatch
    ):
        monkeypatch.setattr("scaling.training.step.MeshFunction.__call__", lambda *_: pytest.fail("it was computed"))
        done = call(train_command(tmp_path / "new" / "run", dry_run=True))
        assert done.returncode == 0, done.stderr
        assert [line.split()[0] for line in done.stdout.splitlines()] == [
            *("model", "compute", "mesh", "data", "memory", "steps")
        ]
        assert not (tmp_path / "new").exists()
        workdir = rewound(uninterrupted_run[0], tmp_path / "run", 5)
        before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file() and path.name != ".claim"}
        assert "steps   5 to 40 of 16 images" in call(train_command(workdir, dry_run=True)).stdout
        message = error_of(call(train_command(workdir, {"seed": 7}, dry_run=True)), 2)
        assert f"--workdir={workdir} was started with seed=0 (now 7)" in message
        bands = {"data.source": "scenes:ms?size=16&count=64"}
        assert "but the model takes 3" in error_of(call(train_command(tmp_path / "new", bands, dry_run=True)), 2)
        after = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file() and path.name != ".claim"}
        assert after == before
        assert "there is nothing left to do" in call(train_command(uninterrupted_run[0], dry_run=True)).stderr

    def test_a_missing_config_file_names_those_there_are(self, tmp_path):
        done = call(command("train", config="vit_hh.py", workdir=tmp_path))
        assert error_of(done, 2) == "no config file 'vit_hh.py'; did you mean vit_h.py?"

    def test_flags_that_are_missing_are_named(self):
        said = error_of(call(command("train", config="quickstart.py")), 2)
        assert said == "--workdir: is missing; give --config=FILE and --workdir=DIR"

    def test_a_workdir_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").write_text("")
        message = error_of(call(train_command(tmp_path / "file" / "run")), 2)
        assert message.startswith(f"--workdir={tmp_path}/file/run cannot be written to (")
        assert "choose another" in message

    def test_a_checkpoint_of_another_architecture(self, uninterrupted_run, tmp_path):
        workdir = rewound(uninterrupted_run[0], tmp_path / "run", 5)
        before = (workdir / "config.json").read_text(), (workdir / "metrics.jsonl").read_text()
        message = error_of(call(train_command(workdir, {"model.width": 48})), 2)
        assert f"--workdir={workdir} was started with model.width=32 (now 48)" in message
        named = error_of(call(train_command(workdir, {"model.width": 48}, change="model.width")), 2)
        assert "is of another architecture: axis embed of" in named
        assert "is 32 in it, 48 in the model" in named
        assert before == ((workdir / "config.json").read_text(), (workdir / "metrics.jsonl").read_text())

    @pytest.mark.parametrize("process", [0, 1])
    def test_processes_that_do_not_meet_end_in_time(self, tmp_path, process):
        """Process 0 waits for a second one that never comes; process 1 looks for a missing coordinator."""
        where = f"localhost:{free_port()}"
        done = run(train_command(tmp_path, coordinator=where, processes=2, process=process, timeout=3))
        message = error_of(done, LOST)
        assert message.startswith(f"process {process} of 2 did not meet the others at {where} within 3 s")


class TestUnreadableImages:
    def folder(self, root, bad):
        class_folders(root, per_class=40)
        for i in range(bad):
            truncate(root / "river" / f"{3 * i:03d}.jpg")
        return {"data.source": f"folder:{root}", "data.max_bad_share": 0.1}

    @pytest.mark.long
    def test_a_few_are_skipped_and_named(self, tmp_path):
        done = train(tmp_path / "run", self.folder(tmp_path / "images", bad=2))
        skipped = [line for line in done.stderr.splitlines() if "skipped an unreadable image" in line]
        assert len(skipped) == 2
        assert any("river/000.jpg" in line for line in skipped)
        assert math.isfinite(rows_of(tmp_path / "run")[-1]["loss"])

    def test_too_many_stop_the_run_and_keep_what_was_saved(self, tmp_path):
        done = call(train_command(tmp_path / "run", self.folder(tmp_path / "images", bad=13)))
        message = error_of(done, 3)
        assert "images are unreadable, more than data.max_bad_share=0.1" in message
        assert "river/0" in message


# case: checkpoint to go on from, overrides, step that is named, checkpoints that are left
DIVERGES = {
    "in the first step": slow(0, {"optimizer.warmup": 0, "checkpoint_every": 1}, 1, []),
    "right after a checkpoint": slow(0, {"optimizer.warmup": 20, "checkpoint_every": 1}, 2, [1]),
    "between two checkpoints": (5, {}, 6, [5]),
}


class TestRunsThatCannotGoOn:
    @pytest.mark.parametrize(("start", "overrides", "named", "left"), DIVERGES.values(), ids=DIVERGES)
    def test_divergence_stops_names_the_step_and_saves_nothing_bad(
        self, uninterrupted_run, tmp_path, start, overrides, named, left
    ):
        workdir = rewound(uninterrupted_run[0], tmp_path / "run", start)
        fields = {"log_every": 1000, "optimizer.base_lr": 1e30, **overrides}
        done = run(train_command(workdir, fields, change="optimizer.base_lr,optimizer.warmup"))
        kept = f"the checkpoint of step {left[-1]} is kept" if left else "nothing was saved yet"
        assert re.match(rf"(loss|grad_norm|param_norm) is (nan|inf) at step {named}; {kept}\. ", error_of(done, 3))
        assert steps_saved(workdir) == left

    @pytest.mark.long
    def test_a_full_disk_ends_the_run_at_the_next_save(self, uninterrupted_run, tmp_path):
        """Files are limited to a size that rows and pictures keep to and checkpoints do not."""
        limited = ["bash", "-c", 'ulimit -f 48; exec "$@"', "bash", *train_command(tmp_path / "run")]
        process = subprocess.Popen(
            limited, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        done = finish(process)
        assert done.returncode == 3
        # among the tracebacks of the threads that failed to write, which may be in the middle of a line
        assert f"error: a checkpoint could not be written to {tmp_path}/run/checkpoints: " in done.stderr
        assert rows_of(tmp_path / "run")[-1]["step"] >= 5
