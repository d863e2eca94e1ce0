"""The harness of the drills: resumable, reproducible, and a page that says what its rows say."""

import pytest

from tests.drills import record
from tests.drills.__main__ import RESULTS
from tests.drills.cases import DEFECT, FINE, REFUSED, Outcome, Part
from tests.drills.hostile import FORMATS
from tests.drills.parts import PARTS


def test_the_page_says_what_the_rows_say():
    assert (RESULTS / record.PAGE).read_text() == record.page(RESULTS, PARTS)


def test_a_second_run_does_what_is_missing_and_what_failed(tmp_path):
    asked, broken = [], {5}

    def run(cases):
        for case in cases:
            asked.append(case)
            yield Outcome(case, DEFECT if case in broken else REFUSED if case % 2 else FINE, "why")

    part = Part("some:part", "about", run, count=10, short=4, block=4)
    record.run_missing(tmp_path, [part], short=True)
    assert asked == [0, 1, 2, 3]
    rows = record.run_missing(tmp_path, [part], short=False)
    assert asked[4:] == [4, 5, 6, 7, 8, 9]
    assert [row.defects for row in rows] == [("5: why",), ()]
    broken.clear()
    record.run_missing(tmp_path, [part], short=False)
    assert asked[10:] == [4, 5, 6, 7]
    assert "| some:part | about | 10 | 10 | 5 | 5 | 0 | 0-9 | 0.0 |" in record.page(tmp_path, [part])


def test_names_are_unique_and_counts_are_those_of_the_issue():
    assert len({part.name for part in PARTS}) == len(PARTS)
    assert all(part.count == 20_000 for part in PARTS if part.drill == "hostile")


@pytest.mark.parametrize("name", ["jpeg", "dota_text", "safetensors"])
def test_a_case_is_the_same_file_every_time(name):
    one = next(x for x in FORMATS if x.name == name)
    again = type(one)(**{field: getattr(one, field) for field in one.__dataclass_fields__})
    assert [one.content(case) for case in range(30, 60)] == [again.content(case) for case in range(30, 60)]


@pytest.mark.parametrize("name", ["jpeg", "dota_text"])
def test_a_few_files_of_some_formats(name):
    outcomes = list(next(part for part in PARTS if part.name == f"hostile:{name}").run(range(25)))
    assert {outcome.verdict for outcome in outcomes} <= {FINE, REFUSED}, outcomes


@pytest.mark.parametrize("name", ["zip", "arrayrecord"])
def test_a_few_cases_of_rot(name):
    outcomes = list(next(part for part in PARTS if part.name == f"rot:{name}").run(range(12)))
    assert {outcome.verdict for outcome in outcomes} <= {FINE, REFUSED}, outcomes
