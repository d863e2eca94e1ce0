import numpy as np
import pytest

from scaling.core.errors import UserError
from scaling.evaluation.detection import (
    MEAN,
    RULES,
    ClassMatches,
    Detections,
    DetectionTotals,
    Rules,
    Truths,
    average_precision,
    best_truths,
)


def square(x: float, y: float = 0.0, w: float = 10.0, h: float = 10.0) -> np.ndarray:
    return np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)])


def worked() -> tuple[Detections, Truths]:
    """Image 0 has one truth and a difficult one, image 1 a third."""
    there = Truths.of([0, 0, 1], [False, True, False], [square(0), square(100), square(0)])
    half = square(0, h=5)
    found = Detections.of([0, 0, 0, 1, 1], [0.9, 0.8, 0.7, 0.6, 0.5], [*map(square, (0, 0, 100)), half, square(0)])
    return found, there


@pytest.mark.parametrize(
    ("rules", "eleven", "area"),
    [
        (Rules(), 0.772727, 0.75),
        (Rules(difficult=True), 0.763636, 0.755556),
        (Rules(inclusive=True), 0.848485, 0.833333),
    ],
)
def test_example_by_hand(rules, eleven, area):
    matches = ClassMatches.of(*worked())
    assert matches.average_precision(rules) == pytest.approx(eleven, abs=5e-7)
    assert matches.average_precision(Rules(False, rules.inclusive, rules.difficult)) == pytest.approx(area, abs=5e-7)


def test_outcomes_by_hand():
    found, there = worked()
    right, wrong = ClassMatches.of(found, there).outcomes(RULES["dota"])
    np.testing.assert_array_equal(right, [True, False, False, False, True])
    np.testing.assert_array_equal(wrong, [False, True, False, True, False])


@pytest.mark.parametrize(("count", "reached"), [(3, 3), (6, 6), (7, 7), (4, 5), (10, 11)])
def test_grid_of_the_devkit(count, reached):
    """Three right of ten: a recall of 0.3 does not reach the 0.3 of the grid, which is a rounding step larger."""
    right = np.ones((1, count))
    assert average_precision(right, 0 * right, np.array([10]), True)[0] == pytest.approx(reached / 11)


def devkit(found: Detections, there: Truths, overlap: np.ndarray) -> tuple[float, float]:
    """dota_evaluation_task1.py's loop, from its description, with overlaps given [n, m]."""
    taken, right, wrong = set(), [], []
    for i in np.argsort(-found.scores, kind="stable"):
        here = np.flatnonzero(there.images == found.images[i])
        most = here[overlap[i, here].argmax()] if here.size else -1
        hit = here.size and overlap[i, most] > 0.5
        right.append(bool(hit and not there.difficult[most] and most not in taken))
        wrong.append(bool(not hit or (not there.difficult[most] and most in taken)))
        if hit:
            taken.add(most)
    tp, fp = np.cumsum(right), np.cumsum(wrong)
    recall, precision = tp / (~there.difficult).sum(), tp / np.maximum(tp + fp, np.finfo(float).eps)
    eleven = np.mean([max(precision[recall >= t], default=0) for t in np.arange(0, 1.1, 0.1)])
    area, last = 0.0, 0.0
    for at in np.unique(recall):
        area += (at - last) * precision[recall >= at].max()
        last = at
    return float(eleven), float(area)


def scattered(images: int, truths: int, detections: int, seed: int = 0, size: float = 1000):
    """Truths, and detections near some of them."""
    rng = np.random.default_rng(seed)
    at = rng.integers(images, size=truths)
    corners = square(0, w=30, h=14) + rng.uniform(0, size, (truths, 1, 2))
    corners += rng.normal(0, 3, corners.shape)
    near = rng.integers(truths, size=detections)
    moved = corners[near] + rng.normal(0, 4, (detections, 1, 2)) + rng.normal(0, 1, (detections, 4, 2))
    scores = np.round(rng.random(detections), 2)  # many are equal
    return Detections.of(at[near], scores, moved), Truths.of(at, rng.random(truths) < 0.2, corners)


def test_beside_the_devkits_loop():
    from scaling.boxes.polygons import polygon_iou

    found, there = scattered(images=4, truths=40, detections=150, size=150)
    pairs = np.repeat(found.corners, 40, 0), np.tile(there.corners, (150, 1, 1))
    overlap = polygon_iou(*pairs).reshape(150, 40)
    eleven, area = devkit(found, there, overlap)
    matches = ClassMatches.of(found, there)
    assert 0.2 < eleven < 0.9
    assert matches.average_precision(Rules(stable=True)) == pytest.approx(eleven, abs=1e-12)
    assert matches.average_precision(Rules(eleven=False, stable=True)) == pytest.approx(area, abs=1e-12)
    best, truth = best_truths(found, there)
    overlap[found.images[:, None] != there.images] = 0
    np.testing.assert_allclose(best, overlap.max(1))
    np.testing.assert_array_equal(truth[best > 0], overlap.argmax(1)[best > 0])


def test_the_first_of_equal_truths_is_meant():
    there = Truths.of([0, 0, 0], [False, False, True], [square(5, w=10), square(0), square(0)])
    overlap, truth = best_truths(Detections.of([0, 0], [1, 1], [square(0), square(500)]), there)
    np.testing.assert_allclose(overlap, [1, 0])
    np.testing.assert_array_equal(truth, [1, -1])


def test_order_of_equal_scores_is_that_of_the_file():
    there = Truths.of([0], [False], [square(0)])
    for x, expected in ((0, 1.0), (80, 0.5)):
        found = Detections.of([0, 0], [0.5, 0.5], [square(x), square(80 - x)])
        assert ClassMatches.of(found, there).average_precision(Rules(eleven=False)) == pytest.approx(expected)


def test_what_the_devkit_crashes_on():
    _, there = worked()
    nothing = Detections.of([], [], [])
    totals = DetectionTotals(
        {"ship": nothing, "plane": Detections.of([0], [1], [square(0)])},
        {"ship": there, "harbor": there, "bridge": Truths.of([0], [True], [square(0)])},
        images=2,
    )
    scores = totals.scores()
    assert scores.ap["ship"] == scores.ap["harbor"] == scores.ap_area["ship"] == 0
    assert np.isnan([scores.ap["plane"], scores.ap["bridge"]]).all()
    assert totals.absent() == ("bridge", "plane")
    assert totals.truths("ship") == 2
    assert scores.ap_difficult["bridge"] == 0
    with pytest.raises(UserError, match="no object of 2 images counts"):
        DetectionTotals({"plane": nothing}, {}, images=2).scores()
    with pytest.raises(UserError, match="must be numbers"):
        ClassMatches.of(Detections.of([0], [np.nan], [square(0)]), there)


def test_ranges_of_overlaps_and_rules_of_dior():
    there = Truths.of([0, 0], [True, False], [square(0), square(50)])
    found = Detections.of([0, 0], [0.9, 0.8], [square(0, h=5), square(50, h=7.2)])
    dota, dior = (DetectionTotals({"x": found}, {"x": there}, 1, RULES[name]) for name in ("dota", "dior"))
    assert dior.scores().ap["x"] == pytest.approx(1)
    assert dior.truths("x") == 2
    assert dota.scores().ap["x"] == pytest.approx(0.5)
    assert dota.scores().ap_range["x"] == pytest.approx(0.5 * 0.5)  # 0.72 is above 5 of 10 thresholds


def _again(part, which, number):
    """A copy of one image's detections or truths as another image."""
    images, *others = part
    return np.concatenate((images, np.full(which.sum(), number))), *(np.concatenate((o, o[which])) for o in others)


def test_scores_depend_on_the_images_only():
    found, there = scattered(images=30, truths=200, detections=500, size=600)
    totals = DetectionTotals({"x": found}, {"x": there}, 30)
    intervals = totals.intervals(draws=300)
    low, high = intervals[MEAN]
    assert intervals["x"] == (low, high)
    assert low < totals.scores().ap["x"] < high
    assert 0.02 < high - low < 0.4
    drawn = totals.matches("x").replicates(np.ones((2, 30), np.float32), totals.rules)
    np.testing.assert_allclose(drawn, totals.scores().ap["x"])
    # An image drawn twice counts as two images like it.
    weights = np.ones((1, 30), np.float32)
    weights[0, 7] = 2
    more, other = (type(part)(*_again(part, part.images == 7, 30)) for part in (found, there))
    expected = ClassMatches.of(more, other).average_precision(Rules(eleven=False))
    drawn = totals.matches("x").replicates(weights, Rules(eleven=False))[0]
    assert drawn == pytest.approx(expected, abs=0.01)
    assert DetectionTotals({"x": found}, {"x": there}, 1).intervals() == {"x": (None, None), MEAN: (None, None)}
