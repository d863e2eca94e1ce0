"""The best checkpoint by a held-out metric, beside the newest ones."""

import contextlib
import dataclasses
import json
import math
import shutil

import jax
import numpy as np
import pytest
from etils import epath

from scaling.core.errors import UserError
from scaling.core.paths import run_name
from scaling.encoders.loading import load_encoder
from scaling.training.best import check_history
from scaling.training.checkpoints import CheckpointConfig
from scaling.training.loop import Trainer
from scaling.training.pretraining import pretrain, rehearse
from scaling.training.workdir import course
from tests.commands import rows_of
from tests.training.test_pretraining import CONFIG

KEPT = dataclasses.replace(
    CONFIG, steps=6, eval_every=1, checkpoint_every=3, checkpoint=CheckpointConfig(keep_last=1, best="eval_loss")
)
PLANNED = (0.9, 0.5, 0.7, 0.4, 0.6, 0.45)  # of the steps 1 to 6


@pytest.fixture
def planned(monkeypatch):
    """Held-out losses that fall and rise, and the parameters of every step."""
    seen = {}

    def evaluate(self, state, step):
        seen[step] = jax.device_get(state.params["encoder"])
        return {"eval_loss": PLANNED[step - 1]}

    monkeypatch.setattr(Trainer, "evaluate", evaluate)
    return seen


def kernel(encoder):
    return np.asarray(encoder["patch"]["kernel"])


def test_the_best_step_is_kept_and_read_and_a_resumed_run_knows_it(planned, tmp_path):
    whole, half = KEPT, dataclasses.replace(KEPT, steps=3)
    workdir = epath.Path(tmp_path / "run")
    pretrain(half, workdir)
    encoder = load_encoder(workdir / "best")
    assert encoder.step == 2
    np.testing.assert_array_equal(kernel(encoder.params), kernel(planned[2]))
    assert f"best     eval_loss 0.5000 at step 2, kept in {workdir / 'best'}" in course(workdir).splitlines()
    pretrain(whole, workdir)
    encoder = load_encoder(workdir / "best")
    assert (encoder.step, load_encoder(workdir).step) == (4, 6)
    np.testing.assert_array_equal(kernel(encoder.params), kernel(planned[4]))
    assert [row["step"] for row in rows_of(workdir)] == [1, 2, 3, 4, 5, 6]
    written = json.loads((workdir / "best" / "values.json").read_text())
    evaluated = {str(step): loss for step, loss in enumerate(PLANNED, 1)}
    assert written == {"metric": "eval_loss", "values": {"1": 0.9, "2": 0.5, "4": 0.4}, "evaluated": evaluated}
    assert run_name(workdir / "best") == "run best"
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(UserError, match=r"--workdir=.*best was started with seed=0 \(now 7\)"):
        pretrain(dataclasses.replace(whole, seed=7), workdir)


def test_a_metric_that_is_not_measured_is_refused_before_anything_is_trained(tmp_path):
    wrong = dataclasses.replace(KEPT, checkpoint=CheckpointConfig(best="eval_accuracy"), ema_decay=0.9)
    message = r"checkpoint\.best=eval_accuracy: must be a metric of .*; choose one of eval_loss, eval_loss_average"
    with pytest.raises(UserError, match=message):
        rehearse(wrong, tmp_path / "run")


def test_a_run_ends_where_it_gets_no_better_and_stays_ended(planned, tmp_path, caplog):
    c = dataclasses.replace(KEPT, steps=6, early_stopping=1, checkpoint_every=100)
    workdir = epath.Path(tmp_path / "run")
    said = "none of the 1 evaluation since step 2 has been better than its eval_loss of 0.5000"
    with caplog.at_level("INFO", logger="scaling"):
        trained = pretrain(c, workdir)
    assert (int(trained.state.step), load_encoder(workdir).step, load_encoder(workdir / "best").step) == (3, 3, 2)
    assert f"ended early after step 3 of 6: {said}" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO", logger="scaling"):
        assert pretrain(c, workdir).start == 3
        rehearse(c, workdir)
    assert (
        caplog.text.count(f"it was trained for 3 steps, where it ended early: {said}; there is nothing left to do") == 2
    )
    patient = dataclasses.replace(c, early_stopping=2)  # at step 6 the 0.4 of step 4 is two evaluations old
    ended = pretrain(patient, workdir)
    assert (int(ended.state.step), load_encoder(workdir / "best").step) == (6, 4)
    assert [row["step"] for row in rows_of(workdir)] == [1, 2, 3, 4, 5, 6]


def test_a_value_that_is_not_finite_is_no_improvement(tmp_path, monkeypatch, caplog):
    values = iter((math.nan, 0.5, math.inf, math.nan))
    monkeypatch.setattr(Trainer, "evaluate", lambda self, state, step: {"eval_loss": next(values)})
    c = dataclasses.replace(KEPT, early_stopping=2, checkpoint_every=100)
    with caplog.at_level("INFO", logger="scaling"):
        assert int(pretrain(c, tmp_path / "run").state.step) == 4
    assert "none of the 2 evaluations since step 2 has been better than its eval_loss of 0.5000" in caplog.text
    written = json.loads((tmp_path / "run" / "best" / "values.json").read_text(), parse_constant=pytest.fail)
    assert written["evaluated"] == {"1": None, "2": 0.5, "3": None, "4": None}


@pytest.mark.parametrize(
    ("metric", "evaluated", "patience", "message"),
    [
        ("eval_loss", {1: 0.9, 2: 0.5, 3: 0.7}, 1, ""),  # ended here
        ("eval_loss", {1: 0.9, 2: 0.5, 3: 0.7, 4: 0.4, 5: 0.6}, 2, ""),
        (
            "eval_loss",
            {1: 0.9, 2: 0.5, 3: 0.7, 4: 0.4},
            1,
            r"^early_stopping=1: .* would have ended at step 3 but was tr",
        ),
        (
            "eval_loss",
            {1: None, 2: None, 3: None},
            2,
            r"^early_stopping=2: .* would have ended at step 2 but was trained",
        ),
        (
            "eval_loss",
            {3: 0.7, 4: 0.4},
            1,
            r"^early_stopping=1: .* has no record of eval_loss from the first evaluation",
        ),
        ("eval_loss", {}, 1, r"^early_stopping=1: .* has no record of eval_loss from the first evaluation"),
        (
            "eval_mse",
            {1: 0.9},
            1,
            r"^checkpoint\.best=eval_loss: the best step in .*best was chosen by eval_mse; set that, set",
        ),
    ],
)
def test_a_run_that_was_not_ended_as_asked_has_no_best_step(tmp_path, metric, evaluated, patience, message):
    written = {"metric": metric, "values": {}, "evaluated": {str(at): x for at, x in evaluated.items()}}
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "values.json").write_text(json.dumps(written))
    c = dataclasses.replace(KEPT, early_stopping=patience)
    with pytest.raises(UserError, match=message) if message else contextlib.nullcontext():
        check_history(epath.Path(tmp_path), c, max(evaluated, default=6))


@pytest.mark.long
def test_a_killed_run_counts_from_where_it_resumes(planned, tmp_path):
    """Evaluations after the checkpoint, and the best of them, belong to the killed process."""
    workdir = epath.Path(tmp_path / "run")
    c = dataclasses.replace(KEPT, steps=6, checkpoint_every=2)
    pretrain(dataclasses.replace(c, steps=4), workdir)
    shutil.rmtree(workdir / "checkpoints" / "4")  # killed before it was written
    pretrain(dataclasses.replace(c, steps=2), tmp_path / "two")
    shutil.copytree(tmp_path / "two" / "checkpoints" / "2", workdir / "checkpoints" / "2")
    ended = pretrain(dataclasses.replace(c, early_stopping=2), workdir)
    assert (int(ended.state.step), load_encoder(workdir / "best").step) == (6, 4)
    whole = pretrain(dataclasses.replace(KEPT, checkpoint_every=100), tmp_path / "whole")
    for one, other in zip(jax.tree.leaves(ended.state), jax.tree.leaves(whole.state), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"early_stopping": -1}, r"^early_stopping=-1: must not be negative; 0 for never$"),
        (
            {"early_stopping": 2, "checkpoint": CheckpointConfig()},
            r"^early_stopping=2: needs a metric that must improve; set checkpoint\.best, such as eval_loss$",
        ),
    ],
)
def test_an_end_by_nothing_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(KEPT, **fields).check()
