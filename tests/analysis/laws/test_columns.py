"""Rows become numbers, or the reason why not."""

import dataclasses

import numpy as np
import pytest

from scaling.analysis.laws.columns import choose, number, table
from scaling.errors import UserError
from tests.rows import ROW

ROWS = [
    dataclasses.replace(ROW, metric="loss", params=n, seed=s, value=v, train_flops=10**15)
    for n, s, v in ((10, 0, 0.9), (10, 1, 0.8), (20, 0, 0.5), (40, 0, -0.1))
]


def test_rows_are_chosen_by_their_fields_and_metric():
    assert choose(ROWS, {"params": "10", "seed": "0"}, "loss") == ROWS[:1]
    assert choose(ROWS, {"compute": "1"}, "loss") == ROWS  # a number however it is written


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
        ({"dataset": "none"}, "loss", "no row has --y=loss; the metrics are none"),
        ({"parms": "1"}, "loss", r"parms is no field of the rows; did you mean params\?"),
    ],
)
def test_no_such_row(where, metric, message):
    with pytest.raises(UserError, match=message):
        choose(ROWS, where, metric)


def test_a_word_is_no_number():
    with pytest.raises(UserError, match="--x=objective is no number: mae"):
        number(ROWS[0], "objective")
