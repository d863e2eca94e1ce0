"""Scores, intervals and retention agree with scikit-learn, scipy and numbers worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import dummy, metrics, neighbors

from scaling.core.errors import TrainingError, UserError
from scaling.evaluation.scores import (
    MULTI_LABEL,
    SINGLE_LABEL,
    Predictions,
    percentile_interval,
    retention,
    seed_interval,
)
from tests.evaluation.examples import real_features, several_labels


@pytest.fixture(scope="module")
def single():
    """Predictions of a k-NN classifier on real images, and the truth."""
    (x, y), (x_test, y_test) = real_features()
    return Predictions(neighbors.KNeighborsClassifier(5).fit(x, y).predict(x_test), y_test)


@pytest.fixture(scope="module")
def several():
    """Scores of a k-NN classifier for each of eight labels, with the many ties that shares of five neighbours have."""
    (x, y), (x_test, y_test) = real_features()
    model = neighbors.KNeighborsClassifier(5).fit(x, several_labels(y, x))
    scores = np.stack([share[:, 1] for share in model.predict_proba(x_test)], axis=1)
    return Predictions(scores, several_labels(y_test, x_test))


def test_accuracies_are_those_of_scikit_learn(single):
    assert single.scores() == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(single.truth, single.predicted),
            "macro_accuracy": metrics.balanced_accuracy_score(single.truth, single.predicted),
        },
        abs=1e-12,
    )
    assert 0.3 < single.scores()["accuracy"] < 0.95  # neither chance nor trivial


def test_average_precision_is_that_of_scikit_learn(several):
    expected = metrics.average_precision_score(several.truth, several.predicted, average="macro")
    assert several.scores() == pytest.approx({"macro_map": expected}, abs=1e-12)
    assert 0.3 < expected < 0.95


def test_weights_count_rows_as_often_as_they_say(single, several):
    weights = np.random.default_rng(0).integers(0, 4, (3, len(single.truth)))
    reference = {
        "accuracy": lambda p, t, w: metrics.accuracy_score(t, p, sample_weight=w),
        "macro_accuracy": lambda p, t, w: metrics.balanced_accuracy_score(t, p, sample_weight=w),
        "macro_map": lambda p, t, w: metrics.average_precision_score(t, p, average="macro", sample_weight=w),
    }
    for name, score in (SINGLE_LABEL | MULTI_LABEL).items():
        outcome = several if name == "macro_map" else single
        expected = [reference[name](outcome.predicted, outcome.truth, row) for row in weights]
        ours = score(outcome.predicted, outcome.truth, weights.astype(np.float32))
        np.testing.assert_allclose(ours, expected, atol=1e-12)


def test_macro_accuracy_weighs_the_classes_present_equally():
    # Three of class 0, all right; one of class 1, wrong; class 2 is predicted once and never there.
    assert Predictions(np.array([0, 0, 0, 2]), np.array([0, 0, 0, 1])).scores() == {
        "accuracy": 0.75,
        "macro_accuracy": 0.5,
    }


def test_labels_without_a_positive_row_are_left_out_and_named():
    truth = np.array([[1, 0, 0], [0, 0, 1], [1, 0, 0]])
    scores = np.array([[0.9, 0.1, 0.5], [0.8, 0.9, 0.6], [0.1, 0.3, 0.7]])
    outcome = Predictions(scores, truth)
    assert outcome.absent_labels() == [1]
    assert outcome.scores()["macro_map"] == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2) / 2)
    assert outcome.chance()["macro_map"] == pytest.approx((2 / 3 + 1 / 3) / 2)


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(2, 30), labels=st.integers(1, 4))
def test_scores_do_not_depend_on_the_order_of_rows_or_on_the_scale_of_scores(seed, rows, labels):
    rng = np.random.default_rng(seed)
    truth, scores = rng.integers(0, 2, (rows, labels)), rng.integers(0, 5, (rows, labels))
    truth[0] = 1
    order = rng.permutation(rows)
    plain = Predictions(scores, truth).scores()
    assert Predictions(scores[order], truth[order]).scores() == pytest.approx(plain, abs=1e-12)
    assert Predictions(np.exp(scores / 2), truth).scores() == pytest.approx(plain, abs=1e-12)


def test_chance_is_what_the_best_constant_answer_scores(single, several):
    features = np.zeros((len(single.truth), 1))
    constant = dummy.DummyClassifier(strategy="most_frequent").fit(features, single.truth).predict(features)
    assert single.chance() == pytest.approx(Predictions(constant, single.truth).scores(), abs=1e-12)
    equal = np.zeros(several.truth.shape)
    expected = metrics.average_precision_score(several.truth, equal, average="macro")
    assert several.chance() == pytest.approx({"macro_map": expected}, abs=1e-12)


@pytest.mark.parametrize("kind", ["single", "several"])
def test_bootstrap_intervals_are_those_of_scipy(kind, request):
    outcome = request.getfixturevalue(kind)
    for name, score in outcome.metrics.items():

        def statistic(index, axis, score=score):
            weights = np.apply_along_axis(np.bincount, axis, index, minlength=len(outcome.truth))
            return score(outcome.predicted, outcome.truth, np.atleast_2d(weights).astype(np.float32))

        theirs = stats.bootstrap(
            (np.arange(len(outcome.truth)),),
            statistic,
            method="percentile",
            n_resamples=2000,
            rng=np.random.default_rng(1),
            vectorized=True,
        )
        width = theirs.confidence_interval.high - theirs.confidence_interval.low
        ours = outcome.intervals(draws=2000)[name]
        np.testing.assert_allclose(ours, theirs.confidence_interval, atol=0.1 * width)
        assert outcome.replicates(draws=2000)[name].std() == pytest.approx(theirs.standard_error, rel=0.1)


def test_replicates_repeat_with_the_seed_are_paired_and_do_not_depend_on_the_blocks(single, monkeypatch):
    first = single.replicates(draws=50)["accuracy"]
    np.testing.assert_array_equal(single.replicates(draws=50)["accuracy"], first)
    assert (single.replicates(draws=50, seed=1)["accuracy"] != first).any()
    mirrored = Predictions(np.where(single.predicted == single.truth, -1, single.truth), single.truth)
    np.testing.assert_allclose(mirrored.replicates(draws=50)["accuracy"], 1 - first, atol=1e-7)
    monkeypatch.setattr("scaling.evaluation.scores._BLOCK_ELEMENTS", 7 * len(single.truth))
    np.testing.assert_array_equal(single.replicates(draws=50)["accuracy"], first)


def test_a_percentile_interval_holds_its_share():
    assert percentile_interval(np.arange(101), level=0.9) == pytest.approx((5, 95))


def test_an_interval_is_unbounded_where_too_many_replicates_are_not_defined():
    values = np.arange(1000.0)
    few, many = values.copy(), values.copy()
    few[::50], many[::30] = np.nan, np.inf  # 2 and 3.4 %
    low, high = percentile_interval(few)
    assert low <= percentile_interval(values)[0] <= percentile_interval(values)[1] <= high
    assert percentile_interval(many) == percentile_interval([np.nan] * 5) == percentile_interval([]) == (None, None)


def test_the_interval_over_seeds_is_students():
    values = [0.71, 0.74, 0.69, 0.75, 0.72]
    expected = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert seed_interval(values) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(UserError, match="at least two of them, not 1"):
        seed_interval([0.7])


def test_retention_raw_above_chance_and_of_the_best():
    kept = retention([0.6, 0.9, 0.8], full=0.8, chance=0.5)
    np.testing.assert_allclose(kept["retention"], [0.75, 1.125, 1])
    np.testing.assert_allclose(kept["retention_above_chance"], [1 / 3, 4 / 3, 1])
    np.testing.assert_allclose(kept["retention_of_best"], [2 / 3, 1, 8 / 9])


def test_retention_above_chance_is_undefined_for_a_model_at_chance_and_replicates_stay_apart():
    kept = retention([[0.5, 0.6], [0.5, 0.9]], full=[0.5, 0.9], chance=0.5)["retention_above_chance"]
    np.testing.assert_allclose(kept, [[np.nan, 0.25], [np.nan, 1]])
    assert np.isnan(retention([0.2, 0.0], full=0.0)["retention"]).all()


@pytest.mark.parametrize(
    ("predicted", "truth", "message"),
    [
        (np.zeros(0), np.zeros(0), "at least one test row"),
        (np.zeros(3), np.zeros(4), r"there are \[4\] labels for \[3\] predictions"),
        (np.zeros((3, 2)), np.zeros((3, 2)), "no test row has any of the labels"),
    ],
)
def test_what_cannot_be_scored_is_refused(predicted, truth, message):
    with pytest.raises(UserError, match=message):
        Predictions(predicted, truth)


def test_logits_that_are_not_finite_are_no_class():
    logits = np.array([[0.0, 1.0], [np.nan, np.nan], [np.inf, 0.0]])
    for truth in (np.array([1, 0, 0]), np.eye(3, 2, dtype=int)):
        with pytest.raises(TrainingError, match="NaN or infinity for 2 of 3 test images"):
            Predictions.of_logits(logits, truth)
    assert Predictions.of_logits(logits[:1], np.array([1])).predicted.tolist() == [1]
    assert Predictions.of_logits(logits[:1], np.array([[0, 1]])).predicted.tolist() == [[0.0, 1.0]]
