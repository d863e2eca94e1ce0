"""Rows are those that are asked for, each measurement once, or the best of each field."""

import dataclasses

import pytest

from scaling.analysis.laws.filtering import best, choose, distinct, wanted
from scaling.analysis.laws.pooling import mixed
from scaling.core.errors import UserError
from tests.analysis.laws.rows import RATES, ROWS


def test_rows_are_chosen_by_their_fields_and_metric():
    assert choose(ROWS, {"params": ["10"], "seed": ["0"]}, "loss") == ROWS[:1]
    assert choose(ROWS, {"compute": ["1"]}, "loss") == ROWS  # a number however it is written


def test_a_field_wanted_twice_may_have_either_value():
    where = wanted(["params=10", "seed=0", "params=40"])
    assert where == {"params": ["10", "40"], "seed": ["0"]}
    assert choose(ROWS, where, "loss") == [ROWS[0], ROWS[3]]
    with pytest.raises(UserError, match="--where=params: must be a field and a value"):
        wanted(["params"])


@pytest.mark.parametrize(
    ("where", "metric", "message"),
    [
        ({}, "accuracy", "no row has --y=accuracy; the metrics are loss"),
        ({"dataset": ["none"]}, "loss", "--where=dataset=none: no row has it; dataset is one of: 'scenes'$"),
        ({"params": ["10", "11"]}, "loss", "--where=params=11: no row has it; params is one of: 10, 20, 40$"),
        ({"low": ["0.1"]}, "loss", "--where=low=0.1: no row has it; low is one of: None$"),
        ({"params": ["40"], "seed": ["1"]}, "loss", "no row has all of --where=params=40 --where=seed=1"),
        ({"parms": ["1"]}, "loss", r"parms is not a field of the rows; did you mean params\?"),
    ],
)
def test_no_such_row(where, metric, message):
    with pytest.raises(UserError, match=message):
        choose(ROWS, where, metric)


def test_a_number_that_is_there_twice_counts_once():
    elsewhere = dataclasses.replace(ROWS[0], device="8 x TPU v5p")
    for rows in ([*ROWS, *ROWS, elsewhere], [elsewhere, *ROWS[::-1], *ROWS]):
        assert distinct(rows) == (
            ROWS,
            ["5 duplicate rows are ignored, equal in value too; a repetition needs its own seed"],
        )


def test_other_numbers_of_the_same_are_repetitions_in_whatever_order_they_come():
    again = [dataclasses.replace(ROWS[0], value=v) for v in (0.91, None, float("nan"))]
    for rows in ([*ROWS, *again, *again], [*again, *again, *ROWS[::-1]]):
        kept, said = distinct(rows)
        assert kept == [ROWS[0], again[0], *ROWS[1:]]
        assert said == [
            "5 duplicate rows are ignored, equal in value too; a repetition needs its own seed",
            "2 rows measure what others do and differ in value, and are kept as repetitions: "
            "'width' of params=10, samples_seen=0, seed=0 is 0.9 and 0.91",
        ]
    assert distinct(again[1:])[0] == again[1:2]  # none has a number


def test_the_best_of_a_field_is_that_of_the_mean_over_seeds():
    assert [(row.params, row.base_lr, row.seed) for row in best(RATES, "base_lr", error=False)] == [
        (10, 0.1, 0), (10, 0.1, 1), (20, 0.2, 0), (20, 0.2, 1),
    ]  # fmt: skip
    scores = [row for row in RATES if row.params == 10]
    assert [row.base_lr for row in best(scores, "base_lr", error=True)] == [0.2, 0.2]
    with pytest.raises(UserError, match="base_rl is not a field of the rows; did you mean base_lr"):
        best(RATES, "base_rl", error=False)


def test_the_best_step_is_that_of_each_run():
    rows = [
        dataclasses.replace(ROWS[0], step=s, samples_seen=8 * s, train_flops=99 * s, value=v, config_hash=run, mlp=mlp)
        for run, mlp in (("a", 1), ("b", 2))
        for s, v in ((1, 0.9), (2, 0.5), (3, 0.6))
    ]
    assert [(row.mlp, row.step) for row in best(rows, "step", error=False)] == [(1, 2), (2, 2)]
    assert mixed(rows, ["params"]) == [
        "one law for rows of different step of the same config_hash (1, 2, 3): --best=step takes the best, "
        "--where=step=… keeps one"
    ]
