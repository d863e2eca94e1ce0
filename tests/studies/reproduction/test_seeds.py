"""Means over seeds, of the newest rows, beside a bootstrap written a second time."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from scaling.evaluation.outcomes import labels_row, outcomes_of
from scaling.evaluation.scores import Predictions
from scaling.studies.reproduction.seeds import means, newest
from tests.rows import ROW

COUNT, DRAWS, SEEDS = 200, 1000, 3
TRUTH = np.random.default_rng(9).integers(4, size=COUNT)
FIELDS = {"study": "s", "model": "a", "mode": "inner", "ordering": "first", "recovery": "none", "dataset": "d"}
CELL = dataclasses.replace(ROW, **FIELDS, probe="linear", metric="accuracy")


def answers(seed):
    right = np.random.default_rng(seed).random(COUNT) < 0.6 + 0.1 * seed
    return Predictions(np.where(right, TRUTH, (TRUTH + 1) % 4), TRUTH)


def rows_of(**more):
    found = labels_row(dataclasses.replace(CELL, **more), TRUTH)
    for seed in range(SEEDS):
        predictions = answers(seed)
        value, (low, high) = predictions.scores()["accuracy"], predictions.intervals()["accuracy"]
        bits = outcomes_of(predictions)
        found.append(dataclasses.replace(CELL, value=value, low=low, high=high, seed=seed, outcomes=bits, **more))
    return found


def test_the_interval_of_a_mean_draws_seeds_and_images():
    ((row,), kinds) = means([*rows_of(), *rows_of(width_ratio=0.3)], [CELL])
    right = np.array([answers(seed).predicted == TRUTH for seed in range(SEEDS)])
    assert row.value == pytest.approx(right.mean())
    rng = np.random.default_rng(0)
    drawn = [right[rng.integers(SEEDS, size=SEEDS)][:, rng.integers(COUNT, size=COUNT)].mean() for _ in range(5000)]
    assert (row.low, row.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.01)
    assert "3 seeds, 95 % intervals of seeds and test images" in kinds["d", "linear"]


def test_a_score_without_answers_has_students_interval_and_an_undefined_one_none():
    rows = [dataclasses.replace(r, outcomes="", metric="macro_map") for r in rows_of()[1:]]
    published = [dataclasses.replace(CELL, metric="macro_map")]
    ((row,), kinds) = means(rows, published)
    values = [r.value for r in rows]
    expected = stats.t.interval(0.95, SEEDS - 1, np.mean(values), stats.sem(values))
    assert (row.low, row.high) == pytest.approx(expected)
    assert "of the seeds alone" in kinds["d", "linear"]
    ((row,), _) = means([*rows[:2], dataclasses.replace(rows[2], value=None)], published)
    assert (row.value, row.low, row.high) == (None, None, None)


def test_rows_measured_again_of_other_data_are_not_averaged_with_the_old():
    rows = [*rows_of(config_hash="first"), *(dataclasses.replace(r, value=0.5) for r in rows_of(config_hash="second"))]
    assert {r.config_hash for r in newest(rows)} == {"second"}
    other = dataclasses.replace(rows[1], model="b")
    assert newest([other, *rows])[0] == other
