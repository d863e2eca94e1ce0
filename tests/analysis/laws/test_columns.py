"""Rows become numbers, or the reason why not."""

import dataclasses

import numpy as np
import pytest

from scaling.analysis.laws.columns import choose, colours, distinct, mixed, number, table, wanted
from scaling.errors import UserError
from tests.rows import ROW

ROWS = [
    dataclasses.replace(ROW, metric="loss", params=n, seed=s, value=v, train_flops=10**15)
    for n, s, v in ((10, 0, 0.9), (10, 1, 0.8), (20, 0, 0.5), (40, 0, -0.1))
]


def test_rows_are_chosen_by_their_fields_and_metric():
    assert choose(ROWS, {"params": ["10"], "seed": ["0"]}, "loss") == ROWS[:1]
    assert choose(ROWS, {"compute": ["1"]}, "loss") == ROWS  # a number however it is written


def test_a_field_wanted_twice_may_have_either_value():
    where = wanted(["params=10", "seed=0", "params=40"])
    assert where == {"params": ["10", "40"], "seed": ["0"]}
    assert choose(ROWS, where, "loss") == [ROWS[0], ROWS[3]]
    with pytest.raises(UserError, match="--where=params: a field and its value"):
        wanted(["params"])


def test_a_number_that_is_there_twice_counts_once():
    elsewhere = dataclasses.replace(ROWS[0], device="8 x TPU v5p", value=0.91)
    assert distinct([*ROWS, *ROWS, elsewhere]) == (ROWS, 5)


def test_rows_of_different_quantities_are_said_to_be_mixed():
    assert mixed(ROWS) == []
    others = [dataclasses.replace(ROWS[0], parametrization=name, probe="knn") for name in "abcd"]
    assert mixed([*ROWS, *others]) == [
        "one law for rows of different parametrization ('', 'a', 'b', …): --where=parametrization=… keeps one",
        "one law for rows of different probe ('', 'knn'): --where=probe=… keeps one",
    ]


def test_values_that_no_law_can_have_are_left_out_and_counted():
    found = table(ROWS, ["params", "seed"], "params", error=False)
    np.testing.assert_array_equal(found.inputs, [[10, 0], [10, 1], [20, 0]])
    np.testing.assert_array_equal(found.values, [0.9, 0.8, 0.5])
    assert list(found.groups) == ["10", "10", "20"]
    assert (found.left_out, found.rows) == (1, ROWS[:3])
    np.testing.assert_allclose(table(ROWS, ["params"], "", error=True).values, [0.1, 0.2, 0.5, 1.1])


def test_core_days_follow_from_operations():
    assert number(ROWS[0], "core_days") == pytest.approx(1e15 / (0.4 * 61.5e12 * 86400))


@pytest.mark.parametrize(
    ("where", "metric", "message"),
    [
        ({}, "accuracy", "no row has --y=accuracy; the metrics are loss"),
        ({"dataset": ["none"]}, "loss", "--where=dataset=none: no row has it; dataset is one of: 'scenes'$"),
        ({"params": ["10", "11"]}, "loss", "--where=params=11: no row has it; params is one of: 10, 20, 40$"),
        ({"low": ["0.1"]}, "loss", "--where=low=0.1: no row has it; low is one of: None$"),
        ({"params": ["40"], "seed": ["1"]}, "loss", "no row has all of --where=params=40 --where=seed=1"),
        ({"parms": ["1"]}, "loss", r"parms is no field of the rows; did you mean params\?"),
    ],
)
def test_no_such_row(where, metric, message):
    with pytest.raises(UserError, match=message):
        choose(ROWS, where, metric)


def test_a_word_is_no_number():
    with pytest.raises(UserError, match="--x=objective is no number: mae"):
        number(ROWS[0], "objective")
    with pytest.raises(UserError, match="--x=low is no number: it is empty in some rows"):
        number(ROWS[0], "low")


def test_points_are_coloured_by_numbers_or_by_words():
    assert list(colours(ROWS, "seed")) == [0, 1, 0, 0]
    assert list(colours(ROWS, "objective")) == ["mae"] * 4
    with pytest.raises(UserError, match="--colour=low is empty in some rows"):
        colours(ROWS, "low")
