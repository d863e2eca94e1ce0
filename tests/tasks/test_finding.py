"""Objects of large images through tiles: each is found once, in its place, for any tiling."""

import numpy as np
import pytest

from scaling.boxes.convert import corners
from scaling.boxes.polygons import polygon_iou
from scaling.data.tiling import FILL, Tiling
from scaling.evaluation.box_pictures import FoundBoxes
from scaling.evaluation.windows import reader
from scaling.tasks.finding import found_in_images, merged_boxes

ROOM = 40


class Place:
    """An image [height, width, 3] uint16 whose pixels say which object and which place they are."""

    def __init__(self, seed, height, width, count):
        rng = np.random.default_rng(seed)
        rows, columns = (np.arange(15, length - 12, 34) for length in (height, width))
        grid = rng.permutation([(x, y) for x in columns for y in rows])[:count]
        self.boxes = np.column_stack(
            [
                grid + rng.uniform(-3, 3, grid.shape),
                rng.uniform(14, 24, len(grid)),
                rng.uniform(6, 12, len(grid)),
                rng.uniform(-1.57, 1.57, len(grid)),
            ]
        )
        self.classes = rng.integers(0, 3, len(grid))
        y, x = np.mgrid[:height, :width]
        self.image = np.stack([np.full_like(x, 1000 * (seed + 1)), x, y], -1).astype(np.uint16)
        for i, (cx, cy, w, h, t) in enumerate(self.boxes):
            dx, dy = x + 0.5 - cx, y + 0.5 - cy
            along, across = dx * np.cos(t) + dy * np.sin(t), dy * np.cos(t) - dx * np.sin(t)
            self.image[..., 0][(np.abs(along) < w / 2) & (np.abs(across) < h / 2)] += i + 1

    def found(self, tile, rng):
        """The objects of which a tile shows more than half, each a little off."""
        numbers, whole = tile[..., 0] % 1000, self.image[..., 0] % 1000
        for i in np.unique(numbers[numbers > 0]) - 1:
            if (numbers == i + 1).sum() > 0.5 * (whole == i + 1).sum():
                box = self.boxes[i] - [*tile[0, 0, 1:].astype(float), 0, 0, 0]
                yield box + rng.normal(0, [0.3, 0.3, 0.3, 0.3, 0.01]), self.classes[i]


def teller(places, batch, size):
    """A detector that reads the objects of a tile from the image itself."""
    rng = np.random.default_rng(1)

    def tell(pixels):
        assert pixels.shape[:3] == (batch, size, size)
        told = {
            "boxes": np.full((batch, ROOM, 5), np.nan, np.float32),
            "scores": np.full((batch, ROOM), 9, np.float32),
            "labels": np.zeros((batch, ROOM), np.int32),
            "valid": np.zeros((batch, ROOM), bool),
        }
        for row, tile in enumerate(pixels):
            place = int(tile[0, 0, 0]) // 1000 - 1  # an empty tile of the last batch is of none
            for n, (box, kind) in enumerate(places[place].found(tile, rng) if place >= 0 else ()):
                told["boxes"][row, n], told["labels"][row, n], told["valid"][row, n] = box, kind, True
                told["scores"][row, n] = rng.uniform(0.2, 0.9)
        return told

    return tell


@pytest.mark.parametrize("batch", [1, 5])
def test_every_object_is_found_once_after_merging(batch):
    places = [Place(0, 200, 310, 30), Place(1, 90, 40, 3), Place(2, 64, 64, 2), Place(3, 150, 70, 8)]
    images = [(reader(place.image), *place.image.shape[:2]) for place in places]
    found = list(found_in_images(images, Tiling(64, 30), batch, teller(places, batch, 64)))
    assert [number for number, _ in found] == [0, 1, 2, 3]
    assert sum(len(tiles.scores) for _, tiles in found) > 1.5 * sum(len(place.boxes) for place in places)
    for (_, tiles), place in zip(found, places, strict=True):
        merged = merged_boxes(tiles)
        assert len(merged.scores) == len(place.boxes)
        assert (np.diff(merged.scores) <= 0).all()
        there = corners(place.boxes)
        for outline, kind in zip(merged.corners, merged.classes, strict=True):
            overlap = polygon_iou(np.broadcast_to(outline, there.shape), there)
            assert overlap.max() > 0.7
            assert kind == place.classes[overlap.argmax()]


def test_of_what_overlaps_the_best_of_its_class_is_kept():
    square = np.array([[(0.0, 0.0), (10, 0), (10, 10), (0, 10)]])
    found = FoundBoxes(
        np.concatenate([square, square + 1, square + 1, square + 30]),
        np.array([0.5, 0.9, 0.6, 0.1]),
        np.array([0, 0, 1, 0]),
    )
    merged = merged_boxes(found)
    assert merged.scores.tolist() == [0.9, 0.6, 0.1]
    assert merged.classes.tolist() == [0, 1, 0]
    assert not len(merged_boxes(found.taken(slice(0, 0))).scores)


def square_finder(pixels):
    """One box around all that is bright."""
    told = {"boxes": [], "scores": [], "labels": np.zeros((len(pixels), 1), np.int32), "valid": []}
    for tile in pixels:
        y, x = np.nonzero(tile[..., 0] > 128)
        there = len(y) > 0
        box = (0, 0, 0, 0) if not there else (x.min(), y.min(), x.max() + 1, y.max() + 1)
        left, upper, right, lower = box
        told["boxes"].append([[(left + right) / 2, (upper + lower) / 2, right - left, lower - upper, 0]])
        told["scores"].append([0.1 if there and right - left < 20 else 0.8])
        told["valid"].append([there])
    return {name: np.asarray(values) for name, values in told.items()}


@pytest.mark.parametrize("rate", [0.5, 1.0, 2.0])
def test_boxes_of_resized_tiles_lie_where_the_object_is(rate):
    image = np.zeros((100, 120, 3), np.uint8)
    image[30:36, 60:70] = 255
    ((_, tiles),) = found_in_images([(reader(image), 100, 120)], Tiling(40, 20, (rate,)), 3, square_finder)
    best = tiles.corners[np.ptp(tiles.corners, axis=1).min(1) > 5.5 - 0.4 / rate]
    assert len(best)
    np.testing.assert_allclose(best[:, 0], np.broadcast_to([60, 30], (len(best), 2)), atol=0.6 / rate)
    np.testing.assert_allclose(best[:, 2], np.broadcast_to([70, 36], (len(best), 2)), atol=0.6 / rate)


def test_low_scores_and_what_is_not_valid_are_left_out_and_tiles_are_filled_up():
    image, given = np.zeros((30, 50, 3), np.uint8), []
    image[10:20, 10:20] = 255

    def tell(pixels):
        given.append(pixels.copy())
        return square_finder(np.where(pixels == FILL, 0, pixels))

    how = [(reader(image), 30, 50)], Tiling(64, 10), 2, tell
    ((_, tiles),) = found_in_images(*how)
    assert tiles.scores.tolist() == [0.1]
    ((_, tiles),) = found_in_images(*how, least=0.5)
    assert tiles.corners.shape == (0, 4, 2)
    (first, _) = given
    np.testing.assert_array_equal(first[0, :30, :50], image)
    assert (first[0, 30:] == FILL).all()
    assert not first[1].any()
