"""Scores of segmentation agree with scikit-learn and with numbers worked out by hand."""

import numpy as np
import pytest
from sklearn import metrics

from scaling.core.errors import UserError
from scaling.evaluation.segmentation import METRICS, SegmentationTotals, confusion_matrix

VOID = 255


def totals(pairs, classes: int, ignore: int = VOID) -> SegmentationTotals:
    made = SegmentationTotals([f"class {i}" for i in range(classes)], ignore)
    for predicted, truth in pairs:
        made.add(np.asarray(predicted), np.asarray(truth))
    return made


def random_maps(count: int = 6, classes: int = 5, seed: int = 0, void: float = 0.1):
    """(predicted, truth) of differing sizes, right more often than not, with pixels that do not count."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        shape = rng.integers(5, 30, 2)
        truth = rng.integers(classes, size=shape)
        predicted = np.where(rng.random(shape) < 0.6, truth, rng.integers(classes, size=shape))
        yield predicted.astype(np.uint8), np.where(rng.random(shape) < void, VOID, truth).astype(np.uint8)


def flat(pairs) -> tuple[np.ndarray, np.ndarray]:
    """All pixels that count."""
    predicted, truth = (np.concatenate([image.ravel() for image in side]) for side in zip(*pairs, strict=True))
    return predicted[truth != VOID], truth[truth != VOID]


def test_the_worked_example():
    made = totals([([0, 0, 1, 1, 1, 2, 2, 0, 1, 3], [0, 0, 0, 1, 1, 1, 2, 2, VOID, VOID])], classes=4)
    scores = made.scores()
    np.testing.assert_allclose(scores.iou, [0.5, 0.5, 1 / 3, np.nan])
    assert (scores.miou, scores.oa) == pytest.approx((4 / 9, 0.625))
    assert (scores.macc, scores.mf1) == pytest.approx((11 / 18, 11 / 18))
    assert made.absent() == ("class 3",)


@pytest.mark.parametrize("classes", [2, 5])
def test_scores_are_those_of_scikit_learn(classes):
    pairs = list(random_maps(classes=classes))
    predicted, truth = flat(pairs)
    made = totals(pairs, classes)
    scores = made.scores()
    np.testing.assert_array_equal(made.matrix[:, :-1], metrics.confusion_matrix(truth, predicted))
    np.testing.assert_allclose(scores.iou, metrics.jaccard_score(truth, predicted, average=None), rtol=1e-12)
    np.testing.assert_allclose(scores.f1, metrics.f1_score(truth, predicted, average=None), rtol=1e-12)
    np.testing.assert_allclose(scores.accuracy, metrics.recall_score(truth, predicted, average=None), rtol=1e-12)
    assert scores.miou == pytest.approx(metrics.jaccard_score(truth, predicted, average="macro"), abs=1e-12)
    assert scores.oa == pytest.approx(metrics.accuracy_score(truth, predicted), abs=1e-12)
    assert scores.mf1 == pytest.approx(metrics.f1_score(truth, predicted, average="macro"), abs=1e-12)
    assert scores.macc == pytest.approx(metrics.balanced_accuracy_score(truth, predicted), abs=1e-12)


def test_one_matrix_of_all_images_is_not_the_mean_over_images():
    pairs = list(random_maps(seed=1))
    each = [totals([pair], 5).scores().miou for pair in pairs]
    assert abs(np.mean(each) - totals(pairs, 5).scores().miou) > 1e-3


def test_order_batches_and_windows_do_not_matter():
    pairs = list(random_maps())
    expected, joined = totals(pairs, 5), totals([flat(pairs)], 5)
    parts = SegmentationTotals(expected.classes)
    for predicted, truth in pairs[::-1]:  # in two halves each
        half = len(truth) // 2
        parts.add_matrix(sum(confusion_matrix(predicted[s], truth[s], 5) for s in (np.s_[:half], np.s_[half:])))
    for other in (totals(pairs[::-1], 5), joined, parts):
        np.testing.assert_array_equal(other.matrix, expected.matrix)
        assert {name: getattr(other.scores(), name) for name in METRICS} == {
            name: getattr(expected.scores(), name) for name in METRICS
        }


def test_a_class_that_is_only_predicted_counts_in_iou_and_f1_and_one_never_predicted_counts_as_zero():
    scores = totals([([0, 0, 2, 0], [0, 0, 0, 1])], classes=4).scores()
    np.testing.assert_allclose(scores.iou, [2 / 4, 0, 0, np.nan])
    np.testing.assert_allclose(scores.f1, [4 / 6, 0, 0, np.nan])
    np.testing.assert_allclose(scores.accuracy, [2 / 3, 0, np.nan, np.nan])
    assert (scores.miou, scores.mf1, scores.macc) == pytest.approx((1 / 6, 2 / 9, 1 / 3))


@pytest.mark.parametrize("ignore", [0, 5])
def test_an_ignored_class_is_left_out_wherever_it_stands(ignore):
    """Clutter of Potsdam, no data of LoveDA: the scores are those of the other classes alone."""
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(6, size=(2, 40, 40))
    made = totals([(predicted, truth)], 6, ignore)
    others = [c for c in range(6) if c != ignore]
    counted = truth != ignore
    reference = {"labels": others, "average": None}
    expected = metrics.jaccard_score(truth[counted], predicted[counted], **reference)
    np.testing.assert_allclose(made.scores().iou[others], expected)
    assert np.isnan(made.scores().iou[ignore])
    assert made.scores().miou == pytest.approx(expected.mean())
    assert made.scores().oa == pytest.approx(metrics.accuracy_score(truth[counted], predicted[counted]))
    assert made.absent() == (f"class {ignore}",)
    assert made.matrix[:, -1].sum() == (predicted[counted] == ignore).sum()


def test_a_prediction_of_the_ignored_value_is_wrong_where_the_pixel_counts():
    scores = totals([([0, VOID, 1, VOID], [0, 0, 1, VOID])], classes=2).scores()
    np.testing.assert_allclose(scores.iou, [0.5, 1])
    assert scores.oa == pytest.approx(2 / 3)


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(UserError, match="prediction has 4 x 5 pixels and its truth 4 x 4"):
        totals([(np.zeros((4, 5), int), np.zeros((4, 4), int))], 2)
    with pytest.raises(UserError, match=r"truth has labels .*\(0 to 1\).*: 2 \(1 pixels\), 7 \(2 pixels\)"):
        totals([(np.zeros(5, int), np.array([0, 1, 2, 7, 7]))], 2)
    with pytest.raises(UserError, match=r"prediction has labels .*: 3 \(1 pixels\)"):
        totals([(np.array([0, 3, 3]), np.array([0, 0, VOID]))], 2)
    with pytest.raises(UserError, match="no pixel of 1 images counts"):
        totals([(np.zeros(3, int), np.full(3, VOID))], 2).scores()


def test_intervals_are_over_images_and_hold_their_level():
    """Images of which each is all right or all wrong: the OA of n draws is a binomial share, whatever their size."""
    right = np.arange(40) < 30
    one = totals([(np.full((50, 50), int(not ok)), np.zeros((50, 50), int)) for ok in right], 2)
    low, high = one.intervals(draws=4000)["oa"]
    assert (low, high) == pytest.approx((0.6125, 0.875), abs=0.03)  # binomial(40, 0.75) / 40
    assert one.intervals(draws=50) == one.intervals(draws=50)
    replicates = one.replicates(draws=200, seed=1)
    drawn = np.random.default_rng(1).integers(40, size=(200, 40))
    np.testing.assert_allclose(replicates["oa"], right[drawn].mean(1))


def test_replicates_are_the_scores_of_the_drawn_images():
    pairs = list(random_maps(7))
    replicates = totals(pairs, 5).replicates(draws=5, seed=3)
    for row, drawn in enumerate(np.random.default_rng(3).integers(7, size=(5, 7))):
        scores = totals([pairs[i] for i in drawn], 5).scores()
        for name in METRICS:
            assert replicates[name][row] == pytest.approx(getattr(scores, name), abs=1e-12)


def test_one_image_has_no_interval():
    assert totals(list(random_maps(1)), 5).intervals() == dict.fromkeys(METRICS, (None, None))
