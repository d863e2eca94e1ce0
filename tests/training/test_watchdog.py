"""A run without progress is ended, with the stacks of all threads; a run in a pause is not."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from scaling.training.watchdog import Watchdog
from tests.commands import ROOT, environment, finish, start_together

PROGRAM = """
import sys, time
from scaling.training.watchdog import Watchdog
watchdog = Watchdog(least=1.0)
def stands_still():
    time.sleep(60)
time.sleep(1.5)  # what precedes the first step is compiling
for _ in range(3):
    watchdog.step()
with watchdog.rests():
    time.sleep(1.5)  # a checkpoint that takes long
print("rested", flush=True)
stands_still()
"""


def test_a_run_without_steps_ends_with_75_and_its_stacks():
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 75, done.stderr
    assert done.stdout == "rested\n"
    assert "error: no step was finished for" in done.stderr
    assert "in stands_still" in done.stderr


def test_slow_steps_have_more_time():
    watchdog = Watchdog(least=0.1)
    watchdog._steps.extend([2.0, 3.0, 50.0])
    watchdog.close()
    assert watchdog.limit == 60.0


@pytest.mark.long
def test_a_process_that_is_stopped_in_a_collective_ends_all_the_others_with_their_stacks(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALING_WATCHDOG_SECONDS", "5")
    running = start_together(tmp_path, {"steps": 100_000, "checkpoint_every": 100_000, "batch_size": 15}, 3, 1)
    log = tmp_path / "metrics.jsonl"
    try:
        while all(p.poll() is None for p in running) and (not log.exists() or log.read_text().count("\n") < 12):
            time.sleep(0.01)
        os.kill(running[2].pid, signal.SIGSTOP)
        ends = [finish(process, 120) for process in running[:2]]
    finally:
        for process in running:
            process.kill()
    for done in ends:
        assert done.returncode == 75, done.stderr
        assert "error: no step was finished for" in done.stderr
        assert "scaling/training/loop.py" in done.stderr
