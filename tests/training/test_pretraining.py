"""A whole run in this process: its pictures, its stops, and its resumption."""

import dataclasses
import json
import logging
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
from etils import epath

from scaling.core.errors import UserError
from scaling.data.config import DataConfig
from scaling.objectives import mae
from scaling.parallel.mesh import MeshConfig
from scaling.training.config import TrainConfig
from scaling.training.loop import Stopped, Trained
from scaling.training.optimizer import OptimizerConfig
from scaling.training.pretraining import pretrain, rehearse
from scaling.training.workdir import course
from tests.commands import call, rows_of, train_command
from tests.models.sizes import halves, small

HELD_OUT = 3
CONFIG = TrainConfig(
    **halves(small(depth=1)),
    steps=4,
    batch_size=16,
    checkpoint_every=2,
    log_every=1,
    eval_every=4,
    data=DataConfig(source="scenes?size=16&count=96", eval_examples=HELD_OUT, eval_share=0.1, threads=2),
    mesh=MeshConfig(min_shard_elements=0),
    optimizer=OptimizerConfig(base_lr=2e-2, warmup=2),
)


@pytest.fixture(autouse=True)
def everything_is_heard(caplog):
    caplog.set_level(logging.INFO, "scaling")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that received Ctrl-C while its last step was evaluated: its folder, outcome and pictures."""
    drawn, workdir = [], epath.Path(tmp_path_factory.mktemp("finished") / "run")
    before = signal.getsignal(signal.SIGINT)

    def draw(*where, rgb, **arrays):
        drawn.append(arrays)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mae, "reconstruction_panel", draw)
        outcome = pretrain(CONFIG, workdir)
    assert signal.getsignal(signal.SIGINT) is before
    return workdir, outcome, drawn


def losses(workdir):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"], row.get("eval_loss")) for row in rows]


def cut_short(workdir, step, part):
    """Truncates files as half a copy would: every file of the arrays exists, and none is whole."""
    files = list(Path(workdir, "checkpoints", str(step), part).rglob("d/*"))
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[:100])


def test_a_picture_shows_the_images_there_are_and_no_padding(finished):
    _, _, drawn = finished
    assert [{len(x) for x in arrays.values()} for arrays in drawn] == [{HELD_OUT}]


@pytest.mark.parametrize("part", [pytest.param("params", marks=pytest.mark.long), "optimizer"])
def test_a_finished_run_whose_newest_checkpoint_is_damaged_resumes_from_the_one_before(
    finished, tmp_path, part, caplog
):
    workdir = epath.Path(shutil.copytree(finished[0], tmp_path / "run"))
    cut_short(workdir, 4, part)
    resumed = pretrain(CONFIG, workdir)
    assert (resumed.start, int(resumed.state.step)) == (2, 4)
    assert "checkpoints/4 cannot be read" in caplog.text
    assert "there is nothing left to do" not in caplog.text
    assert losses(workdir) == losses(finished[0])


def test_a_finished_run_of_which_nothing_can_be_read_is_not_finished(finished, tmp_path):
    workdir = epath.Path(shutil.copytree(finished[0], tmp_path / "run"))
    for step in (2, 4):
        cut_short(workdir, step, "params")
    with pytest.raises(UserError, match="none of the checkpoints 2, 4 can be read"):
        pretrain(CONFIG, workdir)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], []),
        ([{"step": 20, "loss": 0.5}], ["loss     0.5000 at step 20, the only row: it says no course", "not measured"]),
        (
            [{"step": 20, "loss": 0.5, "eval_loss": 0.25}],
            ["loss     0.5000 at step 20, the only row: it says no course", "0.2500"],
        ),
        (
            [{"step": 1, "loss": 1.0, "eval_loss": 2.0}, {"step": 1_000, "loss": 0.5, "eval_loss": 0.25}],
            ["loss     1.0000 at step 1 to 0.5000 at step 1,000", "2.0000 to 0.2500"],
        ),
    ],
)
def test_the_course_of_a_run_is_told_where_there_is_one(finished, tmp_path, rows, said):
    workdir = epath.Path(shutil.copytree(finished[0], tmp_path / "run"))
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert isinstance(pretrain(CONFIG, workdir), Trained)
    lines = [line for line in course(workdir).splitlines() if line.startswith(("loss ", "held out "))]
    assert [re.sub("held out (.*); all rows in .*", r"\1", line) for line in lines] == said


@pytest.mark.parametrize(
    "fields",
    [
        {"source": "folder:none"},
        {"source": "scenes:ms?size=16&count=96"},
        {"source": "scenes?size=16&count=96", "mean": "(0.5,)", "std": "(1.0,)"},
    ],
)
def test_a_start_that_fails_leaves_no_folder(tmp_path, fields):
    changes = {f"data.{name}": value for name, value in fields.items()}
    assert call(train_command(tmp_path / "new" / "run", changes)).returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_a_run_prints_nothing_and_returns_the_metrics_of_its_last_row(tmp_path, capsys):
    trained = pretrain(CONFIG, tmp_path / "run")
    assert capsys.readouterr().out == ""
    assert (trained.start, int(trained.state.step)) == (0, 4)
    row = rows_of(tmp_path / "run")[-1]
    assert {"step": 4, **trained.metrics} == row
    assert row["eval_loss"] > 0


def test_a_run_that_is_all_warm_up_says_so_at_its_start(tmp_path, caplog):
    optimizer = dataclasses.replace(CONFIG.optimizer, warmup=35)
    rehearse(dataclasses.replace(CONFIG, optimizer=optimizer), tmp_path / "run")
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [line for line in warned if "optimizer.warmup=35 is not shorter than steps=4" in line]


def test_a_signal_in_the_last_step_is_told_to_whoever_would_go_on(finished, tmp_path, caplog):
    assert finished[1] == Stopped(signal.SIGINT, 4)
    assert finished[1].exit_code == 130
    workdir = epath.Path(shutil.copytree(finished[0], tmp_path / "run"))
    again = pretrain(CONFIG, workdir)
    assert (again.start, int(again.state.step)) == (4, 4)
    assert "was trained for 4 steps; there is nothing left to do" in caplog.text
