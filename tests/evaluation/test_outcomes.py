"""Outcomes beside scores: short, readable by anyone, and enough for every score and interval."""

import base64
import dataclasses

import numpy as np
import pytest

from scaling.core.errors import UserError
from scaling.evaluation.outcomes import labels_row, outcomes_of, predictions_of, unpacked
from scaling.evaluation.scores import Predictions
from tests.rows import ROW


def predictions(count, classes=7, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=count) * 3 + 5  # labels need not be counted from 0
    return Predictions(np.where(rng.random(count) < 0.6, truth, truth[::-1]), truth)


@pytest.mark.parametrize(("count", "classes"), [(1, 2), (8, 2), (9, 3), (1400, 7), (700, 300)])
def test_scores_intervals_and_chance_come_back_to_the_last_digit(count, classes):
    mine = predictions(count, classes)
    (labels,) = labels_row(ROW, mine.truth)
    again = predictions_of(outcomes_of(mine), labels.outcomes)
    assert again.scores() == mine.scores()
    assert again.chance() == mine.chance()
    for name, values in mine.replicates(50).items():
        np.testing.assert_array_equal(again.replicates(50)[name], values)


def test_the_text_is_bits_as_anyone_reads_them():
    mine = predictions(1400)
    text = outcomes_of(mine)
    assert len(text) == len("1400:") + 236
    bits = "".join(f"{byte:08b}" for byte in base64.b64decode(text.partition(":")[2]))[:1400]
    assert [bit == "1" for bit in bits] == (mine.predicted == mine.truth).tolist()
    (labels,) = labels_row(ROW, mine.truth)
    codes = list(base64.b64decode(labels.outcomes.removeprefix("1400u1:")))
    assert codes == [sorted(set(mine.truth.tolist())).index(x) for x in mine.truth]
    assert (labels.probe, labels.metric, labels.value, labels.dataset) == ("labels", "classes", 7.0, ROW.dataset)


def test_what_is_not_right_or_wrong_has_no_outcomes():
    several = Predictions(np.array([[0.1, 0.9]]), np.array([[0, 1]]))
    assert outcomes_of(several) == ""
    assert labels_row(ROW, several.truth) == []
    assert outcomes_of(object()) == ""


@pytest.mark.parametrize("text", ["", "5", "9:AA==", "3:????", "2u1:AA==", "2u3:AAAA", "-1:", "8:AA=="[:-1]])
def test_text_that_is_something_else_is_refused(text):
    with pytest.raises(UserError, match=r"^outcomes=.*: must be COUNT:BASE64"):
        unpacked(text)


def test_outcomes_of_other_images_are_refused():
    (labels,) = labels_row(ROW, predictions(9).truth)
    with pytest.raises(UserError, match="outcomes of 8 images and labels of 9"):
        predictions_of(outcomes_of(predictions(8)), labels.outcomes)


def test_labels_are_of_the_images_not_of_a_cut():
    truth = predictions(30).truth
    cut = dataclasses.replace(ROW, width_ratio=0.1, ordering="svd", seed=3, probe="linear")
    assert labels_row(cut, truth)[0].identity == labels_row(ROW, truth)[0].identity
