"""Rows become numbers, or the reason why not."""

import dataclasses

import numpy as np
import pytest

from scaling.analysis.laws.columns import colours, number, rising, table
from scaling.core.errors import UserError
from tests.analysis.laws.rows import ROWS
from tests.rows import ROW


def test_values_that_no_law_can_have_are_left_out_and_counted():
    found = table(ROWS, ["params", "compute"], "params", error=False)
    np.testing.assert_array_equal(found.inputs, [[10, 1], [10, 1], [20, 1]])
    np.testing.assert_array_equal(found.values, [0.9, 0.8, 0.5])
    assert list(found.groups) == ["10", "10", "20"]
    which = "'width' of params=40, samples_seen=0, seed=0"
    assert found.warnings == (f"1 rows are left out: loss is negative in 1 of 4 rows ({which})",)
    assert list(found.kept) == [0, 1, 2]
    np.testing.assert_allclose(table(ROWS, ["params"], "", error=True).values, [0.1, 0.2, 0.5, 1.1])


def test_whatever_is_wrong_with_a_row_is_counted_by_its_reason():
    odd = [dataclasses.replace(ROWS[0], value=v) for v in (None, float("nan"), float("inf"), float("-inf"), 0.0, -1.0)]
    odd += [dataclasses.replace(ROWS[0], compute=x) for x in (0.0, -1.0, float("nan"), float("inf"))]
    found = table([*ROWS[:3], *odd, *odd], ["params", "compute"], "", error=False)
    assert list(found.kept) == [0, 1, 2]
    one = "'width' of params=10, samples_seen=0, seed=0"
    each = [f"loss is {word}" for word in ("empty", "nan", "inf", "-inf", "0", "negative")]
    each += [f"compute is {word}" for word in ("0", "negative", "nan", "inf")]
    assert found.warnings == (
        "20 rows are left out: " + "; ".join(f"{why} in 2 of 23 rows ({one}; {one})" for why in each),
    )
    with pytest.raises(UserError, match=r"^4 rows are left out: samples_seen is 0 in 4 of 4 rows \("):
        table(ROWS, ["params", "samples_seen"], "", error=False)


def test_percent_are_no_shares():
    percent = [dataclasses.replace(row, value=71.0 - i) for i, row in enumerate(ROWS)]
    why = "loss goes up to 71, and --error wants a share: if these are percent, divide by 100"
    with pytest.raises(UserError, match=r"1 - loss is negative in 4 of 4 rows \(.*\); " + why):
        table(percent, ["params"], "", error=True)
    assert why in table([*percent, *ROWS], ["params"], "", error=True).warnings
    assert table(percent, ["params"], "", error=False).warnings == ()


def test_scores_are_told_by_growing():
    scores = [dataclasses.replace(ROW, params=n, metric="acc", value=n / 100) for n in (10, 20, 40)]
    said = ["acc grows with params: a score is fitted with --error, as 1 - acc"]
    assert rising(table(scores, ["params"], "", error=False), ["params"], "acc") == said
    assert rising(table(ROWS[:3], ["params"], "", error=False), ["params"], "loss") == []


def test_core_days_follow_from_operations():
    assert number(ROWS[0], "core_days") == pytest.approx(1e15 / (0.4 * 61.5e12 * 86400))


def test_a_word_is_no_number():
    with pytest.raises(UserError, match="--x=objective is not a number: mae"):
        number(ROWS[0], "objective")
    with pytest.raises(UserError, match="--x=low is not a number: it is empty in some rows"):
        number(ROWS[0], "low")


def test_points_are_coloured_by_numbers_or_by_words():
    assert list(colours(ROWS, "seed")) == [0, 1, 0, 0]
    assert list(colours(ROWS, "objective")) == ["mae"] * 4
    with pytest.raises(UserError, match="--colour=low is empty in some rows"):
        colours(ROWS, "low")
