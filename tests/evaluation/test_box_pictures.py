"""Pictures with boxes distinguish hits, misses and false alarms, and count each."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from scaling.data.legend import Legend
from scaling.data.targets import Quadrilaterals
from scaling.evaluation import box_pictures
from scaling.evaluation.box_pictures import (
    FALSE_ALARM,
    HIT,
    MISSED,
    NEITHER,
    SHOWN,
    THERE,
    BoxPicture,
    FoundBoxes,
    outcomes_of_image,
)
from scaling.evaluation.detection import RULES, ClassMatches, Detections, Truths

CLASSES = ("ship", "plane", "tank")


def square(x, y, side=20.0):
    return [(x, y), (x + side, y), (x + side, y + side), (x, y + side)]


def found_boxes(*boxes):
    """(corners, score, class) each."""
    corners, scores, classes = zip(*boxes, strict=True) if boxes else ((), (), ())
    outlines = np.array(corners, float).reshape(-1, 4, 2)
    return FoundBoxes(outlines, np.array(scores, float), np.array(classes, int))


TRUTH = Quadrilaterals.of([square(10, 10), square(60, 10), square(10, 60), square(60, 60)], [0, 0, 1, 1], [0, 0, 0, 1])


def test_outcomes_are_those_of_the_score():
    found = found_boxes(
        (square(12, 10), 0.5, 0),  # right
        (square(11, 10), 0.4, 0),  # the same again
        (square(60, 10), 0.9, 1),  # another class
        (square(60, 60), 0.8, 1),  # difficult
        (square(10, 61), 0.3, 1),  # right
        (square(90, 90), 0.2, 2),  # of a class that is not there
    )
    outcomes = outcomes_of_image(found, TRUTH)
    assert outcomes.hit.tolist() == [True, False, False, False, True, False]
    assert outcomes.false_alarm.tolist() == [False, True, True, False, False, True]
    assert outcomes.missed.tolist() == [False, True, False, False]
    counting = outcomes_of_image(found, TRUTH, RULES["dior"])
    assert counting.hit.tolist() == [True, False, False, True, True, False]
    assert outcomes_of_image(found_boxes(), TRUTH, RULES["dior"]).missed.all()
    nothing = outcomes_of_image(found, TRUTH.taken(slice(0, 0)))
    assert nothing.false_alarm.all()
    assert not len(nothing.missed)


def test_outcomes_of_many_boxes_count_as_the_score_does():
    rng = np.random.default_rng(0)
    there = Quadrilaterals.of(
        [square(*xy) for xy in rng.uniform(0, 200, (60, 2))], rng.integers(0, 3, 60), rng.random(60) < 0.3
    )
    near = there.corners[rng.integers(0, 60, 150)] + rng.normal(0, 4, (150, 1, 2))
    found = FoundBoxes(near, rng.random(150), rng.integers(0, 3, 150))
    outcomes = outcomes_of_image(found, there)
    for i in range(3):
        mine, theirs = found.classes == i, there.classes == i
        detections = Detections.of([0] * mine.sum(), found.scores[mine], found.corners[mine])
        truths = Truths.of([0] * theirs.sum(), there.difficult[theirs], there.corners[theirs])
        right, wrong = ClassMatches.of(detections, truths).outcomes(RULES["dota"])
        assert (outcomes.hit[mine].sum(), outcomes.false_alarm[mine].sum()) == (right.sum(), wrong.sum())
        assert outcomes.missed[theirs].sum() == (~there.difficult[theirs]).sum() - right.sum()


def drawn(tmp_path, found, truth=None, size=(100, 100), **how):
    picture = BoxPicture(size, CLASSES)
    for top in range(0, size[0], 30):
        picture.add(top, np.full((min(30, size[0] - top), size[1], 3), 40, np.uint8))
    picture.draw(tmp_path / "x", found, truth, "name", **how)
    return np.asarray(Image.open(tmp_path / "x.png").convert("RGB")).astype(int)


def shown(image, colour):
    """Position of a colour among unblended pixels: rows and columns."""
    wanted = np.array(to_rgb(colour)) * 255
    return np.nonzero(np.abs(image - wanted).max(-1) <= 3)


@pytest.mark.parametrize(
    ("found", "colours"),
    [
        ([(square(10, 10), 0.9, 0)], {HIT, THERE, MISSED, NEITHER}),
        ([(square(40, 40), 0.9, 0)], {FALSE_ALARM, MISSED, NEITHER}),
        ([(square(x, y), 0.9, c) for x, y, c in ((10, 10, 0), (60, 10, 0), (10, 60, 1))], {HIT, THERE, NEITHER}),
        ([(square(40, 40), 0.2, 0)], {MISSED, NEITHER}),  # not sure enough
    ],
)
def test_every_outcome_has_a_colour_and_none_is_claimed_that_did_not_occur(tmp_path, found, colours):
    image = drawn(tmp_path, found_boxes(*found), TRUTH)
    seen = {colour for colour in (HIT, FALSE_ALARM, MISSED, NEITHER, THERE) if len(shown(image, colour)[0]) > 5}
    assert seen == colours


def test_without_truth_the_colour_is_the_class(tmp_path):
    image = drawn(tmp_path, found_boxes((square(10, 10), 0.9, 0), (square(50, 50), 0.8, 2)))
    seen = [len(shown(image, colour / 255)[0]) > 5 for colour in Legend(CLASSES).colours]
    assert seen == [True, False, True]


@pytest.mark.parametrize("factor", [1, 3])
def test_boxes_lie_where_they_are_also_in_large_images(tmp_path, factor, monkeypatch):
    monkeypatch.setattr(box_pictures, "_SCORED", 0)
    side = SHOWN // 2 * factor
    image = drawn(tmp_path, found_boxes((square(0.25 * side, 0.5 * side, 0.25 * side), 0.9, 1)), None, (side, side))
    background = np.abs(image - 40).max(-1) <= 2
    grey, width = (np.nonzero(background.mean(axis) > 0.3)[0] for axis in (1, 0))
    top, height, left, across = grey[0], np.ptp(grey), width[0], np.ptp(width)
    rows, columns = shown(image, Legend(CLASSES).colours[1] / 255)
    inside = rows < top + height  # not the legend
    found = [(rows[inside].min() - top) / height, (rows[inside].max() - top) / height]
    assert found == pytest.approx([0.5, 0.75], abs=0.01)
    assert (columns[inside].min() - left) / across == pytest.approx(0.25, abs=0.01)


def test_an_image_without_anything_can_be_drawn(tmp_path):
    assert drawn(tmp_path, found_boxes(), Quadrilaterals.of([], [])).size
    assert drawn(tmp_path, found_boxes()).size
