"""Goodput of a run, computed by hand: two starts, with steps lost in between."""

import pytest
from etils import epath

from scaling.training import goodput as module
from scaling.training.goodput import STARTS, goodput, note_start, read_starts


def row(step, elapsed, rate=10.0):
    return {"step": step, "elapsed": float(elapsed), "images_per_second": rate, "loss": 1.0}


def test_by_hand(tmp_path, monkeypatch):
    workdir, now = epath.Path(tmp_path), [1000.0]
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    note_start(workdir, [], 0)
    # 100 s of compiling, then steps of 1 s (10 images at 10 a second); saved at 51, taken away after 71
    first = [row(51, 150), row(71, 170)]
    now[0] = 1300.0  # 130 s later
    note_start(workdir, first, 51)
    rows = [row(51, 150), row(91, 240)]  # 200 s of compiling and evaluating, 40 steps
    starts = read_starts((workdir / STARTS).read_text())
    assert starts[1] == {"began": 1300.0, "step": 51, "ended": 1170.0, "lost": 20.0}
    found = goodput(starts, rows, batch_size=10)
    assert found.steps == pytest.approx(50 + 39)  # of each start the first step was compiled
    assert (found.lost, found.between, found.starts) == (20, 130, 2)
    assert found.steps + found.lost + found.between + found.rest == pytest.approx(540)
    assert str(found) == (
        "goodput 16.5% over 2 starts (3.7% steps that were lost, 24.1% between starts, "
        "55.7% compiling, evaluating, saving)"
    )


def test_a_start_that_has_not_logged_yet_changes_nothing():
    starts = [{"began": 1000.0, "step": 0}, {"began": 9000.0, "step": 51, "ended": 1170.0, "lost": 20.0}]
    found = goodput(starts, [row(51, 150)], batch_size=10)
    assert found == goodput(starts[:1], [row(51, 150)], batch_size=10)
    assert (found.starts, found.share) == (1, pytest.approx(50 / 150))


def test_runs_of_before_it_was_noted_tell_nothing():
    assert goodput([], [row(5, 5)], 10) is None
    assert goodput([{"began": 0.0, "step": 0}], [{"step": 5, "loss": 1.0}], 10) is None
