import numpy as np
import pytest

from scaling.boxes.polygons import polygon_area, polygon_iou, polygon_nms

SQUARE = np.array([[0.0, 0], [10, 0], [10, 10], [0, 10]])
ARROW = np.array([[0.0, 0], [10, 0], [2, 2], [0, 10]])  # not convex


def beside(x: float) -> np.ndarray:
    return SQUARE + np.array((x, 0))


def iou(a, b) -> float:
    return float(polygon_iou(np.array([a]), np.array([b]))[0])


def by_pixels(a: np.ndarray, b: np.ndarray, count: int = 1500) -> float:
    """Overlap by counting grid points inside, by the even-odd rule."""
    low, high = np.concatenate((a, b)).min(0), np.concatenate((a, b)).max(0)
    x, y = (low[:, None] + (np.arange(count) + 0.5) / count * (high - low)[:, None])[:, :, None]
    x, y = x, y.T

    def inside(polygon):
        odd = np.zeros((count, count), bool)
        for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, 0), strict=True):
            with np.errstate(divide="ignore", invalid="ignore"):
                odd ^= ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
        return odd

    one, other = inside(a), inside(b)
    return (one & other).sum() / (one | other).sum()


def test_areas_are_positive_clockwise_on_the_screen():
    assert polygon_area(SQUARE) == 100
    assert polygon_area(SQUARE[::-1]) == -100
    assert polygon_area(ARROW + 5000) == 20


@pytest.mark.parametrize("seed", range(6))
def test_any_simple_quadrilateral_beside_counted_pixels(seed):
    rng = np.random.default_rng(seed)
    around = np.sort(rng.uniform(0, 2 * np.pi, (2, 4)))
    shape = rng.uniform(5, 50, (2, 4, 1)) * np.stack((np.cos(around), np.sin(around)), -1) + rng.uniform(
        0, 15, (2, 1, 2)
    )
    assert iou(*shape) == pytest.approx(by_pixels(*shape), abs=4e-3)


def test_neither_direction_nor_first_corner_nor_place_matters():
    other = np.array([[3.0, -2], [12, 4], [6, 13], [1, 5]])
    expected = iou(ARROW, other)
    assert 0.05 < expected < 0.9
    assert iou(other, ARROW) == pytest.approx(expected)
    for turned in (ARROW[::-1], np.roll(ARROW, 1, 0), np.roll(ARROW[::-1], 2, 0)):
        assert iou(turned, other) == pytest.approx(expected)
        assert iou(turned + 28_000, other + 28_000) == pytest.approx(expected)
    assert iou(ARROW, ARROW) == pytest.approx(1)


@pytest.mark.parametrize("side", [3, 7, 30, 99, 1001])
@pytest.mark.parametrize("place", [0, 17, 12_345])
def test_one_half_is_one_half(side, place):
    """An overlap of exactly the threshold does not suppress, and must not depend on rounding."""
    whole = SQUARE / 10 * (side, 2 * side) + place
    assert iou(whole, SQUARE / 10 * (side, side) + place) == 0.5
    assert iou(whole, SQUARE / 10 * (side, side) + place + (0, side)) == 0.5
    assert iou(np.roll(whole[::-1], 1, 0), SQUARE / 10 * (side, side) + place) == 0.5
    assert iou(whole, whole) == 1


def test_no_area_is_no_overlap():
    line = np.array([[0.0, 0], [10, 10], [10, 10], [0, 0]])
    assert iou(line, line) == iou(line, SQUARE) == iou(SQUARE, line) == 0
    assert iou(SQUARE, beside(10)) == 0
    assert polygon_iou(np.zeros((0, 4, 2)), np.zeros((0, 4, 2))).shape == (0,)


def test_blocks_of_pairs_say_the_same_as_pairs():
    rng = np.random.default_rng(0)
    a = rng.uniform(0, 100, (20_000, 4, 2))
    b = a + rng.normal(0, 5, a.shape)
    together = polygon_iou(a, b)
    for i in (0, 8191, 8192, 19_999):
        assert together[i] == iou(a[i], b[i])


def test_suppression_keeps_what_overlaps_no_better_one_by_more():
    boxes = np.stack([SQUARE, beside(1), beside(9), beside(18)])
    scores = np.array([0.5, 0.9, 0.9, 0.1])
    np.testing.assert_array_equal(polygon_nms(boxes, scores, 0.1), [1, 3])  # 2 shares 20 of 180 with 1, 0.111
    np.testing.assert_array_equal(polygon_nms(boxes, scores, 0.12), [1, 2, 3])  # of equal scores the first is first
    assert polygon_nms(np.zeros((0, 4, 2)), np.zeros(0)).shape == (0,)


def greedily(boxes, scores, threshold):
    """The rule as it is written, one box after the other."""
    left, kept = np.argsort(-scores, kind="stable"), []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        overlap = polygon_iou(np.broadcast_to(boxes[best], (len(left), 4, 2)), boxes[left])
        left = left[overlap <= threshold]
    return kept


@pytest.mark.parametrize("threshold", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("pairs", [None, 50])
def test_suppression_of_many_is_the_greedy_rule(monkeypatch, threshold, pairs):
    if pairs:
        monkeypatch.setattr("scaling.boxes.polygons._PAIRS", pairs)
    for seed, side in enumerate((60, 200, 600)):
        rng = np.random.default_rng(seed)
        shapes = rng.uniform(-12, 12, (150, 4, 2)) if seed else np.broadcast_to(SQUARE, (150, 4, 2))
        boxes = (rng.uniform(0, side, (150, 1, 2)) + shapes).round()  # with corners and edges in common
        scores = rng.random(150).round(1)
        np.testing.assert_array_equal(polygon_nms(boxes, scores, threshold), greedily(boxes, scores, threshold))
