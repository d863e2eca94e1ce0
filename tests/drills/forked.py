"""Tests that fork: `test_drills.py` runs them in a process of their own."""

import itertools
import os

import numpy as np
import pytest

from scaling.core.errors import UserError
from tests.drills import workers
from tests.drills.cases import DEFECT, FINE, REFUSED
from tests.drills.parts import PARTS


@pytest.mark.parametrize("name", ["jpeg", "dota_text"])
def test_a_few_files_of_some_formats(name):
    outcomes = list(next(part for part in PARTS if part.name == f"hostile:{name}").run(range(25)))
    assert {outcome.verdict for outcome in outcomes} <= {FINE, REFUSED}, outcomes


def test_libtiff_declines_a_size_beyond_the_file_without_taking_memory(tmp_path):
    def read(folder, case):
        raise UserError(("x.tif: Out of memory reading of Compression", "Unable to allocate 9 GiB")[case])

    found = list(workers.judged(read, lambda folder: None, range(2)))
    assert [outcome.verdict for outcome in found] == [REFUSED, DEFECT]


def test_the_workers_notice_what_must_not_happen(tmp_path):
    """A negative control: each kind of defect, and what is none."""
    acts = (
        lambda path: None,
        lambda path: (_ for _ in ()).throw(UserError("one line")),
        lambda path: (_ for _ in ()).throw(UserError("two\nlines")),
        lambda path: 1 / 0,
        lambda path: os.kill(os.getpid(), 11),
        lambda path: np.ones(3 << 30, np.uint8),
        lambda path: os.system("true"),
        lambda path: (tmp_path / "elsewhere.txt").write_text(""),
        lambda path: path.with_name("inside").write_text("") and None,
        lambda path: all(True for _ in itertools.count()),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "SECONDS", 1.0)
        found = list(workers.judged(lambda folder, case: acts[case](folder / "x"), lambda folder: None, range(10)))
    assert [x.verdict for x in found] == ["fine", "refused", *["defect"] * 6, "fine", "defect"]
    whats = ["", "one line", "2 lines", "ZeroDivision", "SIGSEGV", "allocate", "os.system", "elsewhere", "", "1 s"]
    for outcome, what in zip(found, whats, strict=True):
        assert what in outcome.what
