"""Rows become numbers, or the reason why not."""

import dataclasses

import numpy as np
import pytest

from scaling.analysis.laws.columns import best, choose, colours, distinct, mixed, number, rising, table, wanted
from scaling.core.errors import UserError
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
    with pytest.raises(UserError, match="--where=params: must be a field and a value"):
        wanted(["params"])


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


RATES = [
    dataclasses.replace(ROW, metric="loss", params=n, seed=s, base_lr=lr, value=v, model=f"w{n}_lr{lr:g}_seed{s}")
    for n, lr, s, v in (
        (10, 0.1, 0, 0.5), (10, 0.1, 1, 0.7), (10, 0.2, 0, 0.4), (10, 0.2, 1, 0.9), (20, 0.1, 0, 0.4),
        (20, 0.2, 0, 0.3), (20, 0.2, 1, 0.3), (20, 0.4, 0, float("nan")), (20, 0.8, 0, None),
    )
]  # fmt: skip


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


def test_learning_rates_are_pooled_where_the_inputs_are_the_same():
    assert mixed(RATES, ["params"]) == [
        "one law for rows of different base_lr at the same inputs (0.1, 0.2): --best=base_lr takes the best, "
        "--where=base_lr=… keeps one"
    ]
    assert [line for line in mixed(RATES, ["base_lr"]) if "base_lr" in line] == []
    assert mixed([row for row in RATES if row.params == 10], ["base_lr"]) == []
    assert mixed([RATES[0], RATES[5]], ["params"]) == []  # a rate for each size
    assert mixed(best(RATES, "base_lr", error=False), ["params"]) == []


def test_rows_of_different_quantities_are_said_to_be_mixed():
    assert mixed(ROWS) == []
    others = [dataclasses.replace(ROWS[0], parametrization=name, probe="knn") for name in "abcd"]
    assert mixed([*ROWS, *others]) == [
        "one law for rows of different parametrization ('', 'a', 'b', …): --where=parametrization=… keeps one",
        "one law for rows of different probe ('', 'knn'): --where=probe=… keeps one",
    ]


def _with(**changes):
    return dataclasses.replace(ROWS[0], **changes)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([_with(), _with(study="depth", params=20)], "study ('depth', 'width'): --where=study=… keeps one"),
        (
            [_with(), _with(samples_seen=9)],
            "samples_seen at the same inputs (0, 9): make it an --x too, or --where=samples_seen=… keeps one",
        ),
        (
            [_with(images=5), _with(images=7)],
            "images at the same inputs (5, 7): make it an --x too, or --where=images=… keeps one",
        ),
        (
            [_with(compute=0.5, mode="inner"), _with(compute=0.3, mode="token", params=5)],
            "mode ('inner', 'token'): --where=mode=… keeps one",
        ),
        (
            [_with(compute=0.5, model="a"), _with(compute=0.5, model="b", params=5)],
            "model ('a', 'b'): --where=model=… keeps one",
        ),
    ],
)
def test_rows_of_different_experiments_lengths_data_and_cuts_are_said_to_be_mixed(rows, said):
    assert mixed(rows, ["params"]) == [f"one law for rows of different {said}"]


def test_sizes_that_grow_with_the_inputs_and_the_whole_encoder_are_not_mixed():
    grown = [_with(params=n, samples_seen=20 * n, images=n) for n in (10, 20)]
    assert mixed(grown, ["params"]) == mixed([_with(), _with(samples_seen=9)], ["params", "samples_seen"]) == []
    cuts = [_with(), *(_with(compute=c, mode="inner", ordering="svd", recovery="ridge") for c in (0.1, 0.5))]
    assert mixed(cuts, ["compute"]) == []
    lengths = mixed([_with(params=n, samples_seen=9) for n in (10, 20)], ["samples_seen"])
    assert lengths == [
        "one law for rows of different params at the same inputs (10, 20): make it an --x too, or --where=params=… "
        "keeps one"
    ]


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
