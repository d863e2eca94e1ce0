"""Retention above a floor, recomputed from the bits in the rows."""

import base64
import dataclasses

import numpy as np
import pytest

from scaling.evaluation.outcomes import labels_row, outcomes_of
from scaling.evaluation.scores import Predictions
from scaling.studies.floors import above_floors, floor_tables
from tests.rows import ROW

COUNT, CLASSES = 600, 5
TRUTH = np.random.default_rng(7).integers(CLASSES, size=COUNT)
CELL = dataclasses.replace(
    ROW,
    study="slim",
    model="tiny",
    mode="inner",
    ordering="first",
    recovery="none",
    probe="knn",
    metric="macro_accuracy",
)
DIFFICULTY = np.random.default_rng(8).random(COUNT)  # shared by all: what makes their errors go together


def row(share, draw, **fields):
    noise = np.random.default_rng(draw).random(COUNT)
    right = 0.7 * DIFFICULTY + 0.3 * noise < np.quantile(0.7 * DIFFICULTY + 0.3 * noise, share)
    predictions = Predictions(np.where(right, TRUTH, (TRUTH + 1) % CLASSES), TRUTH)
    return dataclasses.replace(
        CELL, value=predictions.scores()["macro_accuracy"], outcomes=outcomes_of(predictions), **fields
    )


ROWS = [
    *labels_row(CELL, TRUTH),
    row(0.80, 0, width_ratio=1.0),
    row(0.70, 1, width_ratio=0.1),
    row(0.78, 2, width_ratio=0.1, ordering="svd", recovery="ridge"),
    row(0.50, 3, mode="control", ordering="depth_0"),
    row(0.60, 4, mode="control", ordering="handmade"),
    *(row(0.55, 10 + s, model="random_weights", objective="none", seed=s) for s in range(3)),
]


def bits(row):
    return np.unpackbits(np.frombuffer(base64.b64decode(row.outcomes.partition(":")[2]), np.uint8))[:COUNT]


def macro(right):
    return np.mean([right[c == TRUTH].mean() for c in range(CLASSES)])


def test_shares_and_intervals_are_those_of_the_delta_method_by_hand():
    best, depth_0 = above_floors(ROWS, draws=4000)
    assert (best.floor, depth_0.floor, best.where) == ("handmade", "depth_0", ("scenes", "knn"))
    full, floor = bits(ROWS[1]), bits(ROWS[5])
    for cut, share, interval in best.kept:
        mine = bits(cut)
        a, b = macro(mine) - macro(floor), macro(full) - macro(floor)
        assert share == pytest.approx(a / b)
        # the covariance of two macro averages of paired differences, class by class, without any bootstrap
        differences = np.stack([mine.astype(float) - floor, full.astype(float) - floor])
        parts = [np.cov(differences[:, c == TRUTH], bias=True) / (c == TRUTH).sum() for c in range(CLASSES)]
        covariance = np.sum(parts, axis=0) / CLASSES**2
        for end in interval:  # by Fieller the difference a - end b is as far from zero as 1.96 of its deviation
            weights = np.array([1, -end])
            assert abs(a - end * b) == pytest.approx(1.96 * np.sqrt(weights @ covariance @ weights), rel=0.1, abs=2e-3)
    assert "### scenes, knn: kept above handmade" in floor_tables(ROWS, 200)


def test_random_weights_of_several_seeds_are_one_floor():
    without = [r for r in ROWS if r.ordering not in ("handmade", "depth_0")]
    (found,) = above_floors(without, draws=100)
    assert found.floor == "random_weights"
    assert found.score == pytest.approx(np.mean([r.value for r in ROWS if r.model == "random_weights"]))


def test_an_encoder_that_is_not_above_the_floor_keeps_no_share_of_anything():
    stronger = [*ROWS, row(0.81, 5, mode="control", ordering="gradient_histogram")]
    best, _ = above_floors(stronger, draws=500)
    assert best.floor == "gradient_histogram"
    assert {interval for *_, interval in best.kept} == {(None, None)}
    text = floor_tables(stronger, 500)
    assert "The full encoder is not above it for sure: no share of the difference is defined." in text
    assert text.index("kept above gradient_histogram") < text.index("kept above depth_0")


def test_old_rows_without_outcomes_have_no_such_tables():
    assert floor_tables([dataclasses.replace(r, outcomes="") for r in ROWS]) == ""
