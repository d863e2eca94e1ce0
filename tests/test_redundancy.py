"""The tests that were fixed beforehand, on rows that were made up to have an answer."""

import dataclasses
import itertools
import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from scaling.evaluation.outcomes import labels_row, outcomes_of
from scaling.evaluation.scores import Predictions
from tests.rows import ROW

SETS = ("eurosat", "hurricane", "tinyimagenet")


@pytest.fixture(scope="module")
def study():
    return runpy.run_path(str(Path(__file__).parents[1] / "results" / "redundancy" / "decide.py"))


def test_sets_are_handed_out_in_every_way_once(study):
    labels = [name for name in SETS for _ in range(3)]
    found = list(study["arrangements"](labels))
    assert len(found) == len(set(found)) == 1680
    assert set(study["arrangements"](list("aab"))) == set(itertools.permutations("aab"))


def test_the_permutation_test_is_exact(study):
    labels = list("aabbcc")
    values = np.array([0.1, 0.12, 0.3, 0.31, 0.7, 0.66])
    everything = list(itertools.permutations(labels))  # with repetitions, each arrangement as often

    def f(order):
        return stats.f_oneway(*(values[[x == name for x in order]] for name in "abc")).statistic

    expected = np.mean(
        [f(order) >= f(labels) - 1e-9 for order in everything]
    )  # F rises with the sum of squares between
    assert study["of_pretraining"](values, labels) == pytest.approx(expected)
    apart = np.repeat([0.1, 0.5, 0.9], 3) + np.arange(9) * 1e-3
    assert study["of_pretraining"](apart, [n for n in SETS for _ in range(3)]) == pytest.approx(6 / 1680)


def test_the_sign_test_leaves_ties_out(study):
    assert study["of_domain"](np.array([0.1] * 9)) == pytest.approx(2 / 2**9)
    assert study["of_domain"](np.array([0.1] * 8 + [0.0])) == pytest.approx(2 / 2**8)
    assert study["of_domain"](np.zeros(9)) == 1


def rows_of(kept_by):
    """Rows of nine encoders; `kept_by(set, dataset)` is the share of what is above depth 0 that the cut keeps."""
    count, rows = 1000, []
    truth = np.random.default_rng(0).integers(5, size=count)
    ease = np.random.default_rng(1).permutation(count)
    for dataset, probe in itertools.product(("rssccn7", "caltech101"), ("knn", "linear")):
        for seed, name in itertools.product(range(3), SETS):
            cell = dataclasses.replace(
                ROW,
                model=f"seed{seed}_{name}",
                mode="inner",
                ordering="first",
                recovery="none",
                dataset=dataset,
                probe=probe,
            )
            if probe == "knn":
                rows += labels_row(cell, truth)
            share = {"full": 0.8, "depth_0": 0.5, "cut": 0.5 + 0.3 * (kept_by(name, dataset) + 0.01 * seed)}
            for what, x in share.items():
                right = ease < x * count
                answer = Predictions(np.where(right, truth, (truth + 1) % 5), truth)
                more = {"depth_0": {"mode": "control", "ordering": "depth_0"}, "cut": {"width_ratio": 0.1}}.get(
                    what, {}
                )
                score = answer.scores()["macro_accuracy"]
                rows.append(
                    dataclasses.replace(
                        cell, metric="macro_accuracy", value=score, outcomes=outcomes_of(answer), **more
                    )
                )
    return rows


def found(study, kept_by):
    return {name: (p, adjusted) for name, p, adjusted, _ in study["decide"](rows_of(kept_by))}


def test_what_is_the_pretrainings_is_told_from_what_is_the_probes(study):
    data = found(study, lambda name, dataset: 0.2 + 0.3 * SETS.index(name))
    assert data["knn (a) pretraining"] == pytest.approx((6 / 1680, 4 * 6 / 1680))
    assert data["knn (b) domain"][1] > 0.05
    probe = found(study, lambda name, dataset: 0.8 if dataset == "rssccn7" else 0.4)
    assert probe["linear (b) domain"][0] == pytest.approx(2 / 2**9)
    assert probe["linear (b) domain"][1] < 0.05
    assert probe["knn (a) pretraining"][1] > 0.05
