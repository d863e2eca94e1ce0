"""The command: its plan, its training, the runs it skips, and the failures it survives."""

import functools
import json
import random
import shlex
import signal
import time

import pytest

from tests.commands import TINY, call, command, error_of, finish, run, start

BASE = {name: value for name, value in TINY.items() if name not in ("model.heads",)}
TWO = {"vary.width": "(32,)", "vary.steps": "(40,)", "vary.seed": "(0,1)"}  # of one shape
SHORT = {
    "vary.steps": "(10,)",
    "base.steps": 10,
    "base.eval_every": 10,
    "probe.source": "scenes?size=16&count=512",
    "probe.limit": 100,
}


def sweep_command(workdir, fields=None, config="sweeps/width.py", **flags):
    chosen = {f"config.base.{name}": value for name, value in BASE.items()}
    chosen |= {"config.base.model.heads": 2, "config.base.data.eval_split": ""}
    chosen |= {f"config.{name}": value for name, value in {**TWO, **(fields or {})}.items()}
    return command("sweep", config=config, workdir=workdir, **chosen, **flags)


def rows_of(workdir):
    """The rows of a sweep without fields that may differ between two runs of it."""
    rows = [json.loads(line) for line in (workdir / "rows.jsonl").read_text().splitlines()]
    return [{**row, "value": None if row["metric"] == "train_seconds" else row["value"]} for row in rows]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Directory and output of a sweep of two runs that were left alone."""
    workdir = tmp_path_factory.mktemp("sweep") / "runs of it"
    done = call(sweep_command(workdir, SHORT))
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


def test_every_run_ends_in_rows_of_what_it_cost_and_reached(finished):
    workdir, printed = finished
    rows = rows_of(workdir)
    assert "2 of 2 runs are finished" in printed
    assert {row["model"] for row in rows} == {"mup_seed0_steps10_width32", "mup_seed1_steps10_width32"}
    metrics = [row["metric"] for row in rows if row["seed"] == 1]
    assert metrics[:3] == ["eval_loss", "best_eval_loss", "loss"]
    assert {"train_flops/decoder", "train_flops/attention", "train_seconds", "accuracy", "macro_accuracy"} <= {*metrics}
    first = rows[0]
    assert (first["embed"], first["layers"], first["step"], first["samples_seen"]) == (32, 2, 10, 160)
    assert first["images"] == 502  # ten of 512 are held out
    parts = sum(row["value"] for row in rows if row["seed"] == 0 and row["metric"].startswith("train_flops/"))
    assert parts == first["train_flops"]
    log = (workdir / "runs" / "mup_seed0_steps10_width32" / "metrics.jsonl").read_text().splitlines()
    assert first["value"] == json.loads(log[-1])["eval_loss"]
    assert rows[0]["value"] != next(row["value"] for row in rows if row["seed"] == 1)


def test_what_is_finished_is_not_trained_again(finished):
    workdir, _ = finished
    before = (workdir / "rows.jsonl").read_text()
    done = call(sweep_command(workdir, SHORT))
    assert done.returncode == 0, done.stderr
    assert "2 runs, 0 to train" in done.stdout
    assert "as fast as the 2 finished runs" in done.stdout
    assert (workdir / "rows.jsonl").read_text() == before
    other = error_of(call(sweep_command(workdir, {**SHORT, "base.optimizer.base_lr": 1e-3})), 2)
    assert "was started with another configuration" in other


def test_a_plan_trains_nothing_and_commands_do_one_run_each(tmp_path):
    done = call(sweep_command(tmp_path / "w", {"vary.width": "(32,64)"}, plan=True))
    assert "4 runs, 4 to train" in done.stdout
    assert not (tmp_path / "w").exists()
    lines = call(sweep_command(tmp_path / "w", commands=True)).stdout.splitlines()
    assert [line.rpartition("--only=")[2] for line in lines] == [
        "mup_seed0_steps40_width32",
        "mup_seed1_steps40_width32",
    ]
    assert all(line.startswith("python -m scaling.sweep --config=") and "--commands" not in line for line in lines)
    part = call(sweep_command(tmp_path / "w", commands=True, task=1, tasks=2)).stdout.splitlines()
    assert part == lines[1:]


def test_commands_keep_every_flag_but_those_that_choose_runs():
    kept = ["--workdir", "tasks/rev", "--config.base.batch_size", "16"]  # values may begin as those flags do
    chosen = ["--task", "0", "--tasks", "2", "-only", "mup_seed0_steps40_width32", "--commands"]
    first, second = kept[:2], kept[2:]
    line = [*sweep_command("w"), *chosen[:4], *first, *chosen[4:], *second]
    assert [shlex.split(line) for line in call(line).stdout.splitlines()] == [
        ["python", "-m", "scaling.sweep", *sweep_command("w")[3:], *kept, "--only=mup_seed0_steps40_width32"]
    ]


@pytest.mark.long
def test_a_run_that_fails_is_reported_and_tried_again_on_demand(tmp_path):
    workdir = tmp_path / "w"
    rates = {"vary.lr": "(1e30,1e-3)", "vary.seed": "(0,)"}  # the first fails, the second is trained all the same
    fields = {**rates, "vary.parametrization": "('mup',)"}
    sweep = functools.partial(sweep_command, workdir, fields, "sweeps/lr_transfer.py")
    first = run(sweep())
    assert "1 runs failed; --retry trains them again" in error_of(first, 3)
    assert "1 of 2 runs are finished" in first.stdout
    again = run(sweep())
    assert again.returncode == 3
    assert "2 runs, 0 to train" in again.stdout
    assert "failed   lr1e+30_mup_seed0_steps40_width32: " in again.stdout
    assert "run 1 of 1" in run(sweep(retry=True)).stdout


def test_wrong_input_is_one_line(tmp_path):
    wrong = {
        "--only=width7: there is no such run; they are mup_seed0_steps40_width32": {"only": "width7"},
        "unknown config field vary.widht; did you mean vary.width": {"config.vary.widht": "(3,)"},
        "--config.base.steps: the sweep sets this field in every run; set --config.vary instead": {
            "fields": {"vary.steps": "(50,)"}
        },
        "probe.source=scenes?size=16: split='nowhere': must be one of train, test": {
            "config.probe.source": "scenes?size=16",
            "config.probe.test_split": "nowhere",
        },
    }
    for message, flags in wrong.items():
        assert message in error_of(call(sweep_command(tmp_path / "w", **flags)), 2)
    assert "plan: is not a flag" in error_of(call([*sweep_command(tmp_path / "w"), "plan"]), 2)


@pytest.mark.long
def test_a_sweep_that_is_killed_three_times_ends_with_the_rows_of_one_that_was_not(tmp_path):
    fields = {"vary.seed": "(0,1,2)"}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(sweep_command(whole, fields)).returncode == 0
    rng, log = random.Random(0), killed / "runs"
    for kill in range(3):
        process = start(sweep_command(killed, fields))
        seed, rows = (log / f"mup_seed{kill}_steps40_width32" / "metrics.jsonl"), rng.randrange(1, 39)
        while process.poll() is None and (not seed.exists() or seed.read_text().count("\n") < rows):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert finish(process).returncode == -signal.SIGKILL
    assert run(sweep_command(killed, fields)).returncode == 0
    assert rows_of(killed) == rows_of(whole)
