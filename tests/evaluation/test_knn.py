"""k-nearest-neighbour classification agrees with hand-computed votes and with scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics, neighbors

from scaling.core.errors import UserError
from scaling.evaluation import knn
from scaling.evaluation.knn import METRICS, knn_predict, knn_probe
from tests.evaluation.examples import real_features, several_labels


def clusters(rows: int, width: int = 6, classes: int = 4, seed: int = 0, offset: float = 0.0):
    """Overlapping Gaussian clusters: features [rows, width] and labels [rows]."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, width))
    labels = rng.integers(0, classes, rows)
    return (centres[labels] + rng.normal(size=(rows, width)) + offset).astype(np.float32), labels


LINE = np.array([[0.0], [1.0], [2.0], [10.0]]), np.array([5, 5, 3, 3])


def test_one_neighbour_is_the_nearest_row():
    np.testing.assert_array_equal(knn_predict(*LINE, [[0.4], [7.0], [-3.0]], k=1, metric="euclidean"), [5, 3, 5])


def test_the_majority_of_k_wins():
    assert knn_predict(*LINE, [[2.1]], k=1, metric="euclidean") == [3]
    assert knn_predict(*LINE, [[2.1]], k=3, metric="euclidean") == [5]


def test_a_tied_vote_goes_to_the_lowest_class():
    assert knn_predict(*LINE, [[1.4]], k=2, metric="euclidean") == [3]
    assert knn_predict(*LINE, [[100.0]], k=4, metric="euclidean") == [3]


def test_cosine_looks_at_direction_and_euclidean_at_distance():
    train, labels = [[10.0, 0.0], [0.5, 1.0]], [0, 1]
    assert knn_predict(train, labels, [[1.0, 0.1]], k=1, metric="cosine") == [0]
    assert knn_predict(train, labels, [[1.0, 0.1]], k=1, metric="euclidean") == [1]


def test_a_row_of_zeros_is_less_similar_than_an_acute_angle_and_more_than_an_obtuse_one():
    assert knn_predict([[0.0, 0.0], [1.0, 1.5]], [0, 1], [[1.0, 0.0]], k=1) == [1]
    assert knn_predict([[0.0, 0.0], [-1.0, 1.5]], [0, 1], [[1.0, 0.0]], k=1) == [0]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", [1, 5, 20])
def test_agrees_with_scikit_learn(metric, k):
    (train, labels), (test, _) = clusters(400), clusters(150, seed=1)
    reference = neighbors.KNeighborsClassifier(k, metric=metric).fit(train, labels)
    np.testing.assert_array_equal(knn_predict(train, labels, test, k=k, metric=metric), reference.predict(test))


def brute_force(train, labels, test, k, metric):
    """Votes in float64, one test row at a time."""
    train, test = train.astype(np.float64), test.astype(np.float64)
    if metric == "cosine":
        train, test = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train, test))
    nearest = [np.argsort(((train - row) ** 2).sum(1), kind="stable")[:k] for row in test]
    return np.array([np.bincount(labels[rows]).argmax() for rows in nearest])


@pytest.mark.parametrize("metric", METRICS)
def test_blocks_do_not_change_the_result(metric, monkeypatch):
    (train, labels), (test, _) = clusters(120), clusters(47, seed=1)
    expected = brute_force(train, labels, test, 5, metric)
    np.testing.assert_array_equal(knn_predict(train, labels, test, metric=metric), expected)
    monkeypatch.setattr(knn, "_BLOCK_ELEMENTS", 10 * len(train))
    np.testing.assert_array_equal(knn_predict(train, labels, test, metric=metric), expected)


def test_a_large_common_offset_does_not_blur_euclidean_distances():
    (train, labels), (test, _) = clusters(200, offset=3000), clusters(60, seed=1, offset=3000)
    expected = brute_force(train, labels, test, 5, "euclidean")
    np.testing.assert_array_equal(knn_predict(train, labels, test, metric="euclidean"), expected)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), metric=st.sampled_from(METRICS))
def test_the_order_of_samples_does_not_matter(seed, metric):
    (train, labels), (test, _) = clusters(80), clusters(30, seed=1)
    rng = np.random.default_rng(seed)
    some, others = rng.permutation(len(train)), rng.permutation(len(test))
    shuffled = knn_predict(train[some], labels[some], test[others], metric=metric)
    np.testing.assert_array_equal(shuffled, knn_predict(train, labels, test, metric=metric)[others])


def test_labels_may_be_any_whole_numbers_and_keep_their_dtype():
    (train, labels), (test, _) = clusters(100), clusters(20, seed=1)
    names = np.array([-7, 3, 40, 1000], np.int16)
    predicted = knn_predict(train, names[labels], test)
    assert predicted.dtype == np.int16
    np.testing.assert_array_equal(predicted, names[knn_predict(train, labels, test)])


def test_macro_accuracy_weighs_the_classes_present_equally():
    # Three of class 0, all right; one of class 1, wrong; class 2 is absent from the test rows.
    train, labels = [[0.0], [10.0], [20.0]], [0, 1, 2]
    test, truth = [[0.1], [0.2], [-1.0], [2.0]], [0, 0, 0, 1]
    measured = knn_probe((train, labels), (test, truth), k=1, metric="euclidean").scores()
    assert measured == {"accuracy": 0.75, "macro_accuracy": 0.5}


@pytest.mark.parametrize("metric", METRICS)
def test_several_labels_are_scored_by_the_share_of_neighbours_as_in_scikit_learn(metric):
    (x, y), (x_test, y_test) = real_features()
    labels, truth = several_labels(y, x), several_labels(y_test, x_test)
    model = neighbors.KNeighborsClassifier(5, metric=metric).fit(x, labels)
    shares = np.stack([share[:, 1] for share in model.predict_proba(x_test)], axis=1)
    scores = knn_predict(x, labels, x_test, metric=metric)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, shares, atol=1e-6)
    expected = metrics.average_precision_score(truth, shares, average="macro")
    assert knn_probe((x, labels), (x_test, truth), metric=metric).scores() == pytest.approx({"macro_map": expected})


@pytest.mark.parametrize("metric", METRICS)
def test_accuracies_on_real_images_are_those_of_scikit_learn(metric):
    (x, y), (x_test, y_test) = real_features()
    predicted = neighbors.KNeighborsClassifier(5, metric=metric).fit(x, y).predict(x_test)
    assert knn_probe((x, y), (x_test, y_test), metric=metric).scores() == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(y_test, predicted),
            "macro_accuracy": metrics.balanced_accuracy_score(y_test, predicted),
        }
    )


def test_a_label_never_seen_in_training_counts_as_wrong():
    assert knn_probe(([[1.0], [2.0]], [0, 0]), ([[1.0], [1.0]], [0, 9]), k=1).scores()["accuracy"] == 0.5


X, Y = np.eye(4), np.arange(4)
HOLE = np.array([[1, 0, 0, 0], [0, np.nan, 0, 0]])


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((X, Y, HOLE), {}, "test features must be finite; row 1"),
        ((HOLE, Y[:2], X), {}, "training features must be finite; row 1"),
        ((X, Y[:3], X), {}, r"labels of shape \(3,\) do not match 4 rows"),
        ((X, Y, X[:, :3]), {}, "differ in width: training 4, test 3"),
        ((X, Y, X), {"k": 5}, "k=5: must be from 1 to the number of training rows, 4"),
        ((X, Y, X), {"k": 0}, "k=0"),
        ((X, Y, X), {"metric": "cosin"}, "metric='cosin': must be one of cosine, euclidean"),
        ((X * 1e25, Y, X), {}, "training features are too large: row 0 has values up to .*e\\+2., whose squares"),
        ((X, Y, X * 1e-20), {}, "test features are too small: row 0 has values up to"),
        ((X * 1e-19, Y, X * 1e-19), {"metric": "euclidean"}, "training features are too small: row 0 has values up to"),
        ((X[0], Y, X), {}, "must be \\[rows, width\\]"),
        ((X, Y / 2, X), {}, "whole numbers, not float64"),
        ((X, 2 * np.eye(4, dtype=int), X), {}, "must hold 1 for each label of a row, and 0 elsewhere"),
    ],
)
def test_wrong_input_is_named(arguments, options, message):
    with pytest.raises(UserError, match=message):
        knn_predict(*arguments, **{"k": 1, **options})


@pytest.mark.parametrize(("rows", "labels"), [(0, 0), (4, 3)])
def test_accuracy_needs_as_many_test_labels_as_rows_and_at_least_one(rows, labels):
    with pytest.raises(UserError, match="test"):
        knn_probe((X, Y), (X[:rows], Y[:labels]), k=1)
