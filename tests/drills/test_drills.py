"""The harness of the drills: resumable, reproducible, and a page that says what its rows say."""

import collections
import importlib
import mmap
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.drills import record
from tests.drills.__main__ import RESULTS
from tests.drills.cases import DEFECT, FINE, REFUSED, Outcome, Part
from tests.drills.elastic import differences, images_of, lag, told
from tests.drills.finite import altered, written_wrong
from tests.drills.hostile import FORMATS
from tests.drills.parts import PARTS
from tests.drills.phases import PHASES, Interval, Moment, note
from tests.drills.soak import ended, own_memory


def test_the_page_says_what_the_rows_say():
    assert (RESULTS / record.PAGE).read_text() == record.page(RESULTS, PARTS)


def test_every_drill_is_run():
    folder = Path(record.__file__).parent
    modules = [file.stem for file in folder.glob("*.py") if "\nPARTS = " in file.read_text() and file.stem != "parts"]
    for module in [*modules, "hostile"]:
        assert set(importlib.import_module(f"tests.drills.{module}").PARTS) <= set(PARTS), module
    assert len(modules) > 5


def test_a_second_run_does_what_is_missing_and_what_failed(tmp_path):
    asked, broken = [], {5}

    def run(cases):
        for case in cases:
            asked.append(case)
            yield Outcome(case, DEFECT if case in broken else REFUSED if case % 2 else FINE, "why")

    part = Part("some:part", "about", run, count=10, short=4, block=4)
    rows = record.run_missing(tmp_path, [part])
    assert asked == [*range(10)]
    assert [row.defects for row in rows] == [(), ("5: why",), ()]
    broken.clear()
    record.run_missing(tmp_path, [part])
    assert asked[10:] == [4, 5, 6, 7]
    assert "| some:part | about | 10 | 10 | 5 | 5 | 0 | 0 | 0-9 | 0.0 |" in record.page(tmp_path, [part])


def test_every_drill_is_tried_before_a_second_part_of_one(tmp_path, capsys):
    def part(name, count):
        return Part(name, "about", lambda cases: (Outcome(case, FINE) for case in cases), count, short=2, block=2)

    parts = [part("a:1", 4), part("a:2", 2), part("b:1", 4), part("c:1", 2)]
    assert [(each.name, cases[0]) for each, cases in record.blocks(parts)] == [
        ("a:1", 0), ("b:1", 0), ("c:1", 0), ("a:2", 0), ("b:1", 2), ("a:1", 2),
    ]  # fmt: skip
    for _ in range(2):  # also what has run before
        assert [row.part for row in record.run_short(parts)] == ["a:1", "b:1", "c:1", "a:2"]
    record.run_short(parts[1:], deadline=0.0)
    assert "no time for a:2, b:1, c:1" in capsys.readouterr().out
    kept = [record.Row(name, 0, 2, 2, 0, (), 600.0, "") for name in ("a:2", "c:1")]
    record.run_short(parts[1:], deadline=time.monotonic() + 60, kept=kept)
    assert "no time for a:2, c:1" in capsys.readouterr().out


def test_names_are_unique_and_counts_are_those_of_the_issue():
    assert len({part.name for part in PARTS}) == len(PARTS)
    assert all(part.count == 20_000 for part in PARTS if part.drill == "hostile")


@pytest.mark.parametrize("name", ["jpeg", "dota_text", "safetensors"])
def test_a_case_is_the_same_file_every_time(name):
    one = next(x for x in FORMATS if x.name == name)
    again = type(one)(**{field: getattr(one, field) for field in one.__dataclass_fields__})
    assert [one.content(case) for case in range(30, 60)] == [again.content(case) for case in range(30, 60)]


def test_what_forks():
    """In a process of its own, which has neither threads nor the memory of other tests."""
    command = [sys.executable, "-m", "pytest", "-q", "--numprocesses=0", "tests/drills/forked.py"]
    done = subprocess.run(command, cwd=RESULTS.parents[1], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("names", [["zip", "rows"], pytest.param(["arrayrecord"], marks=pytest.mark.long)])
def test_a_few_cases_of_rot(names):
    """In a process of its own: a fork of one in which another test has read an ArrayRecord ends with SIGSEGV."""
    command = [sys.executable, "-m", "tests.drills", *(f"rot:{name}" for name in names), "--count=6"]
    done = subprocess.run(command, cwd=RESULTS.parents[1], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 6 * len(names)


def test_the_page_lists_open_defects_and_parts_without_cases_apart(tmp_path):
    def run(cases):
        return (Outcome(case, DEFECT if case == 1 else FINE, "why") for case in cases)

    parts = [Part(f"some:{name}", "about", run, count=2, short=2, block=2) for name in ("part", "other")]
    record.run_missing(tmp_path, parts[:1])
    page = record.page(tmp_path, parts)
    assert "## Open defects\n\n- some:part --seed=1: why\n" in page
    assert "Not yet run: some:other.\n" in page
    assert "| some:other" not in page


def test_kills_are_spread_over_all_phases_and_counted_where_they_fell(tmp_path):
    whole = [Interval(name, 0.0, seconds) for name, seconds in zip(PHASES, (9.0, 1.0, 2.0, 0.5), strict=True)]
    whole.append(Interval("compiling", 0.0, 6.0))
    moments = [Moment.drawn(random.Random(case), whole) for case in range(400)]
    assert {80 < count < 120 for count in collections.Counter(x.name for x in moments).values()} == {True}
    of_two = collections.Counter(x.nth for x in moments if x.name == "compiling")
    assert of_two[1] > 2 * of_two[0]  # by their lengths
    assert {Moment.drawn(random.Random(case), whole, "checks").name for case in range(9)} == {"checks"}
    (tmp_path / "phases").touch()
    assert not Moment("compiling", 0, 0.0).is_past(tmp_path / "phases")
    note(tmp_path / "phases", "compiling")
    assert Moment("compiling", 0, 0.0).is_past(tmp_path / "phases")
    assert not any(Moment(*x).is_past(tmp_path / "phases") for x in [("compiling", 0, 60.0), ("compiling", 1, 0.0)])

    said = "SIGKILL imports (start) at 1.00 s, SIGTERM saving (file) at 2.00 s, SIGKILL imports (start) at 0.10 s"
    said += ", SIGTERM computing (any) at 9.00 s, too late"
    part = Part("kills:x", "about", lambda cases: (Outcome(case, FINE, said) for case in cases), 1, 1, kept=True)
    record.run_missing(tmp_path, [part])
    page = record.page(tmp_path, [part])
    assert "| kills:x | 2 | 0 | 0 | 0 | 1 | 2 | 1 |\n| all | 2 | 0 | 0 | 0 | 1 | 2 | 1 |\n" in page


def test_another_loss_a_missing_step_and_another_image_are_noticed(tmp_path):
    rows = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5, "eval_loss": 0.7}]
    assert differences(rows, [{"step": 1, "loss": 1.0 + 2e-6}, {**rows[1], "images_per_second": 3.0}]) == ""
    assert differences(rows, [rows[0], {**rows[1], "eval_loss": 0.70003}]) == "eval_loss 0.70003 of step 2 is not 0.7"
    assert differences(rows, [rows[0], {"step": 2, "loss": 0.5}]) == "eval_loss None of step 2 is not 0.7"
    assert differences(rows, rows[:1]) == "rows of the steps [1]"
    (tmp_path / "1.jsonl").write_text('[1, {"0": "7 ab"}]\n[2, {"1": "8 cd"}]\n')
    assert images_of([tmp_path]) == ({"1/0": "7 ab", "2/1": "8 cd"}, "")
    assert [told(tmp_path, step) for step in (0, 2, 3)] == [False, True, False]
    assert not told(tmp_path / "none", 2)
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "1.jsonl").write_text("[4, {}, 10.0]\n[5, {}, 11.0]\n[6, {}, 12.5]\n")
    (tmp_path / "late" / "2.jsonl").write_text("[4, {}, 10.5]\n[5, {}, 11.5]\n[6, {}, 13.0]\n")
    assert [lag(tmp_path / "late", step) for step in (4, 6, 8)] == [(2, 3.0), (0, 0.5), (0, 0.0)]
    (tmp_path / "2.jsonl").write_text('[1, {"0": "7 ef"}]\n')
    assert "1/0 is 7 " in images_of([tmp_path])[1]


def test_a_soak_notices_what_grows_and_what_is_stuck():
    seconds, steps = np.arange(0.0, 200, 2), list(range(100))
    looks = np.stack([seconds, 500 + seconds % 7, *np.full((3, 100), 5.0)], axis=1)
    assert ended(0, "", looks, steps).verdict == FINE
    assert ended(0, "", looks, [min(step, 60) for step in steps]).what.startswith("stuck: 503")
    looks[:, 1] += seconds / 4
    assert ended(0, "", looks, steps).what.startswith("grows: ")


def test_a_soak_counts_memory_and_not_what_is_read_from_files(tmp_path):
    (tmp_path / "library").write_bytes(b"1" * 2**26)
    before = own_memory(os.getpid())
    mapped = np.memmap(tmp_path / "library", np.uint8, "r")
    assert mapped.max() == ord("1")
    assert own_memory(os.getpid()) < before + 16
    filled = np.frombuffer(mmap.mmap(-1, 2**26), np.uint8)  # pages of its own, not what was freed before
    filled[:] = 1
    assert own_memory(os.getpid()) > before + 48
    assert len(filled) == len(mapped)


def test_what_is_not_finite_is_noticed_in_files(tmp_path):
    tree, what = altered(
        {"a": np.ones((2, 3), np.float32), "b": np.ones(2, np.int32)}, random.Random(0), {"nan": np.nan}
    )
    assert what.startswith("nan in ")
    assert np.isnan(tree["a"]).any()
    (tmp_path / "rows.jsonl").write_text('{"value": 1.0, "text": "nan"}\n')
    assert written_wrong(tmp_path) == ""
    (tmp_path / "rows.jsonl").write_text('{"value": NaN}\n')
    assert written_wrong(tmp_path) == "rows.jsonl has NaN"
    (tmp_path / "rows.jsonl").unlink()
    np.save(tmp_path / "x.npy", tree["a"])
    assert written_wrong(tmp_path) == "x.npy is not finite"
