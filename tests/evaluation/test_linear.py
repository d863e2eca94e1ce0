"""The linear probe is scikit-learn's logistic regression, with its strength chosen where it should be."""

import tracemalloc

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from scaling.core.errors import UserError
from scaling.evaluation.linear import Logistic, linear_probe, regularisation_path
from scaling.evaluation.probes import PROBES
from scaling.evaluation.scores import Predictions
from tests.evaluation.examples import real_features, several_labels


def reference(x, y, strength):
    """scikit-learn's model of standardised features, in float64 and solved to the end."""
    scaler = StandardScaler().fit(x.astype(np.float64))
    model = LogisticRegression(C=strength, tol=1e-9, max_iter=5000)
    model.fit(scaler.transform(x.astype(np.float64)), y)
    return lambda rows: model.predict_proba(scaler.transform(rows.astype(np.float64)))


def few_columns():
    """Real rows with 12 columns, for tests of the selected model."""
    return tuple((x[:, ::8], y) for x, y in real_features())


def fit(x, y, strength) -> Logistic:
    return regularisation_path(x, y, [strength])[0]


@pytest.mark.parametrize("strength", [1e-3, 0.1])
def test_probabilities_of_real_images_are_those_of_scikit_learn(strength):
    (x, y), (x_test, _) = real_features()
    expected = reference(x, y, strength)(x_test)
    model = fit(x, y, strength)
    np.testing.assert_allclose(softmax(model.logits(x_test), axis=1), expected, atol=2e-5)
    np.testing.assert_array_equal(model.predict(x_test), expected.argmax(1))


def test_several_labels_are_as_many_binary_models():
    (x, y), (x_test, _) = real_features()
    labels = several_labels(y, x)
    expected = [reference(x, label, 0.01)(x_test)[:, 1] for label in labels.T]
    np.testing.assert_allclose(expit(fit(x, labels, 0.01).predict(x_test)), np.stack(expected, axis=1), atol=2e-5)


def test_two_classes_are_the_binary_model_at_twice_the_strength():
    (x, y), (x_test, _) = real_features()
    expected = reference(x, y < 3, 0.02)(x_test)
    np.testing.assert_allclose(softmax(fit(x, (y < 3).astype(int), 0.01).logits(x_test), 1), expected, atol=2e-5)


def test_more_columns_than_rows_and_columns_that_say_nothing():
    (x, y), (x_test, _) = real_features()
    few = slice(None, None, 7)
    x, y = np.pad(x[few], ((0, 0), (0, 3)), constant_values=4.0), y[few]
    x_test = np.pad(x_test, ((0, 0), (0, 3)), constant_values=5.0)
    assert x.shape[0] < x.shape[1]
    np.testing.assert_allclose(softmax(fit(x, y, 0.01).logits(x_test), 1), reference(x, y, 0.01)(x_test), atol=2e-5)


@pytest.mark.parametrize("rows", [60, 61])
def test_more_columns_than_rows_and_rows_that_are_there_twice(rows):
    rng = np.random.default_rng(0)
    y = np.arange(rows) % 3
    x = rng.normal(size=(3, 400))[y] * 0.2 + rng.normal(size=(rows, 400))
    x[-5:], y[-5:] = x[:5], y[:5]
    x = np.column_stack([x, np.ones(rows), x[:, :50]]).astype(np.float32)
    test = rng.normal(size=(50, 451)).astype(np.float32)
    path = regularisation_path(x, y, [1e-4, 1e-2, 0.1])
    for model in path:
        np.testing.assert_allclose(softmax(model.logits(test), 1), reference(x, y, model.strength)(test), atol=1e-4)
    again = regularisation_path(x, y, [0.1], start=path[1])[0]
    np.testing.assert_allclose(again.weights, path[2].weights, atol=1e-5)


def test_wide_features_that_say_nothing_leave_the_shares():
    y = np.array([0, 0, 0, 1])
    model = fit(np.ones((4, 9), np.float32), y, 1.0)
    np.testing.assert_allclose(softmax(model.logits(np.ones((1, 9), np.float32)), 1), [[0.75, 0.25]], atol=1e-5)


def test_pixels_are_fitted_without_holding_them_again():
    x = np.random.default_rng(0).standard_normal((50, 300_000), np.float32)
    y = np.arange(50) % 2
    tracemalloc.start()
    try:
        (model,) = regularisation_path(x, y, [1e-4])
        assert (model.predict(x) == y).all()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (
        peak < 3 * x.nbytes
    )  # of which blocks in float64 are two at a time, 64 MiB; singular vectors of x take more than 4


def test_a_warm_start_changes_the_way_and_not_the_place():
    (x, y), (x_test, _) = few_columns()
    *_, warm = regularisation_path(x, y, [1e-4, 1e-2, 1])
    np.testing.assert_allclose(softmax(warm.logits(x_test), 1), softmax(fit(x, y, 1).logits(x_test), 1), atol=1e-4)


def test_the_strength_is_chosen_on_the_validation_rows_and_both_splits_are_fitted_then():
    (x, y), test = few_columns()
    train, validation = (x[::2], y[::2]), (x[1::2], y[1::2])
    strengths = [1e-5, 1e-3, 1e-1, 10]
    scores = [
        Predictions(reference(*train, c)(validation[0]).argmax(1), validation[1]).scores()["macro_accuracy"]
        for c in strengths
    ]
    outcome = linear_probe(train, test, validation, strengths=strengths[::-1])
    assert outcome.details == {"C": strengths[int(np.argmax(scores))], "validation": pytest.approx(max(scores))}
    both = tuple(np.concatenate(parts) for parts in zip(train, validation, strict=True))
    np.testing.assert_array_equal(outcome.predicted, fit(*both, outcome.details["C"]).predict(test[0]))
    np.testing.assert_array_equal(outcome.truth, test[1])


def test_of_equal_strengths_the_strongest_regularisation_is_kept():
    x, y = np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.array([0, 0, 1, 1])
    assert linear_probe((x, y), (x, y), (x, y), strengths=[1, 0.1, 10]).details["C"] == 0.1


def test_without_validation_rows_a_fifth_of_the_training_rows_chooses():
    train, test = few_columns()
    one, again, other = (linear_probe(train, test, strengths=[1e-3, 0.1], seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.predicted, again.predicted)
    assert one.details == again.details
    assert one.details["validation"] != other.details["validation"]
    assert one.scores()["accuracy"] > 0.4


def test_a_label_that_no_training_row_has_and_a_class_that_only_the_test_has():
    (x, y), (x_test, y_test) = few_columns()
    labels, truth = several_labels(y, x), several_labels(y_test, x_test)
    labels[:, 2] = 0
    assert np.isfinite(linear_probe((x, labels), (x_test, truth), strengths=[0.01]).predicted).all()
    seen = y != 2
    outcome = linear_probe((x[seen], y[seen]), (x_test, y_test), strengths=[0.01])
    assert 2 not in outcome.predicted


def test_every_probe_takes_the_same_arguments():
    train, test = few_columns()
    several = [(x, several_labels(y, x)) for x, y in (train, test)]
    for probe in PROBES.values():
        assert set(probe(train, test, None).scores()) == {"accuracy", "macro_accuracy"}
        assert set(probe(several[0], several[1], several[0]).scores()) == {"macro_map"}


X, Y = np.eye(6), np.array([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize(
    ("splits", "options", "message"),
    [
        (((X, Y), (X[:, :4], Y)), {}, "features differ in width: training 6, test 4"),
        (((X, Y), (X, Y), (X[:, :4], Y)), {}, "features differ in width: training 6, validation 4"),
        (((X, Y), (X, np.eye(6, dtype=int))), {}, "labels differ in kind"),
        (((X, Y[:5]), (X, Y)), {}, r"training labels of shape \(5,\) do not match 6 rows"),
        (((X * np.nan, Y), (X, Y)), {}, "training features must be finite; row 0"),
        (
            ((X, 2 * np.eye(6, dtype=int)), (X, np.eye(6, dtype=int))),
            {},
            "must hold 1 for each label of a row, and 0 elsewhere",
        ),
        (((X, Y), (X, Y)), {"strengths": [0.0]}, "values of C above 0"),
        (
            ((X, Y), (X, Y)),
            {"metric": "macro_map"},
            "C cannot be chosen by 'macro_map'; for these labels choose accuracy",
        ),
        (((X[:2], Y[:2]), (X, Y)), {}, "2 training rows are too few"),
    ],
)
def test_wrong_input_is_named(splits, options, message):
    with pytest.raises(UserError, match=message):
        linear_probe(*splits, **options)
