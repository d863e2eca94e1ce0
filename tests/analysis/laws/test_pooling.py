"""One law for rows of different experiments is warned of."""

import dataclasses

import pytest

from scaling.analysis.laws.filtering import best
from scaling.analysis.laws.pooling import mixed
from tests.analysis.laws.rows import RATES, ROWS


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
