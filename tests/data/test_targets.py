"""Targets follow their image: through a geometry, into a batch of fixed shape, into a record and back."""

import dataclasses
import itertools
import pickle

import jax
import numpy as np
import pytest
from flax import serialization
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scaling.boxes.convert import corners
from scaling.boxes.polygons import polygon_area, polygon_shared
from scaling.core.errors import UserError
from scaling.data.config import DataConfig
from scaling.data.geometry import Geometry, whole
from scaling.data.images import CorruptImage
from scaling.data.pipeline import eval_batches, train_batches
from scaling.data.sources.base import Info
from scaling.data.targets import Boxes, Labels, Masks, Quadrilaterals, views_in, wanted

MASKS, BOXES = Masks(("land", "water", "roof"), ignore=7), Boxes(("ship", "plane"), most=3)
TURNS = list(itertools.product((False, True), repeat=3))
NOTHING = Quadrilaterals.of([], [])


def rectangle(left, upper, right, lower):
    """Corners of a rectangle, clockwise on the screen from the upper left one."""
    return [(left, upper), (right, upper), (right, lower), (left, lower)]


def area(corners):
    """Signed: above 0 for corners that go round clockwise on the screen. [n, 4, 2] -> [n]."""
    x, y = np.moveaxis(corners, -1, 0)
    return (x * np.roll(y, -1, 1) - np.roll(x, -1, 1) * y).sum(1) / 2


@given(st.sampled_from(TURNS), st.integers(-4, 9), st.integers(-4, 9), st.integers(1, 8), st.integers(1, 8))
def test_pixels_masks_and_points_move_together(turn, left, upper, width, height):
    marks = np.random.default_rng(0).permutation(99).reshape(9, 11).astype(np.uint8)
    marks[marks == 0] = 99  # 0 is what lies beyond
    size = (width, height) if turn[2] else (height, width)
    geometry = Geometry((left, upper, left + width, upper + height), size, turn)
    image, mask = np.empty((*size, 1), np.uint8), np.empty(size, np.uint8)
    geometry.image(marks[..., None], image)
    geometry.mask(marks, mask, 0)
    np.testing.assert_array_equal(image[..., 0], mask)
    where = np.stack(np.meshgrid(np.arange(11), np.arange(9)), -1) + 0.5  # the middle of every pixel
    moved = geometry.points(where)
    inside = ((moved >= 0) & (moved < size[::-1])).all(-1)
    assert inside.sum() == (mask > 0).sum()
    x, y = np.floor(moved[inside]).astype(int).T
    np.testing.assert_array_equal(mask[y, x], marks[inside])


ANGLES = st.floats(-7, 7).filter(lambda angle: abs(angle) > 1e-3)


@settings(max_examples=40)
@given(st.sampled_from(TURNS), ANGLES, st.integers(-20, 40), st.integers(-20, 40), st.integers(24, 80))
def test_what_is_rotated_moves_together(turn, angle, left, upper, width):
    """Pictures of their own coordinates, seen at the places that points are said to come to."""
    size = (40, 32) if turn[2] else (32, 40)
    geometry = Geometry((left, upper, left + width, upper + round(0.8 * width)), size, turn, angle=angle)
    y, x = np.mgrid[:60, :70].astype(np.float32)
    image, mask = np.zeros((*size, 2), np.float32), np.empty(size, np.uint8)
    geometry.image(np.stack([x, y], -1) + 0.5, image)
    geometry.mask((np.arange(60)[:, None] + np.arange(70)).astype(np.uint8), mask, 255)
    places = np.stack([x, y], -1)[6:-6, 6:-6].reshape(-1, 2) + 0.5
    moved = geometry.points(places)
    np.testing.assert_array_equal(geometry.takes(places), ((moved >= 0) & (moved < size[::-1])).all(-1))
    inside = ((moved > 1) & (moved < np.array(size[::-1]) - 1)).all(-1)
    column, row = np.floor(moved[inside]).astype(int).T
    step = width / 40
    assert np.abs(image[row, column] - places[inside]).max(initial=0) < 0.75 * step + 0.05
    assert np.abs(mask[row, column] + 1.0 - places[inside].sum(-1)).max(initial=0) <= 1.5 * step + 1


@pytest.mark.parametrize("angle", [0.3, 2.0, -1.1])
def test_a_rotated_image_is_that_of_pillow(angle):
    image = np.random.default_rng(0).normal(size=(50, 50)).astype(np.float32)
    ours = np.empty((50, 50, 1), np.float32)
    Geometry((0, 0, 50, 50), (50, 50), angle=angle).image(image[..., None], ours)
    theirs = np.asarray(Image.fromarray(image).rotate(-np.degrees(angle), Image.Resampling.BILINEAR))
    y, x = np.mgrid[:50, :50] - 24.5
    inside = np.hypot(x, y) < 23
    np.testing.assert_allclose(ours[inside, 0], theirs[inside], atol=1e-4)
    assert (ours[0, 0] == 0).all()  # padding


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_whole_quarters_are_exact_and_clockwise(quarters):
    image = np.random.default_rng(0).integers(256, size=(20, 20, 3), dtype=np.uint8)
    geometry, out = Geometry((0, 0, 20, 20), (20, 20), angle=quarters * np.pi / 2), np.empty_like(image)
    geometry.image(image, out)
    np.testing.assert_array_equal(out, np.rot90(image, -quarters))
    geometry.mask(image[..., 0], out[..., 0], 7)
    np.testing.assert_array_equal(out[..., 0], np.rot90(image[..., 0], -quarters))
    moved = BOXES.moved(Quadrilaterals.of([rectangle(1, 2, 9, 5)], [1]), geometry)
    upright = np.rot90(np.pad(np.ones((3, 8)), ((2, 15), (1, 11))), -quarters)
    rows, columns = np.nonzero(upright)
    expected = rectangle(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    np.testing.assert_allclose(moved.corners[0], np.roll(expected, -quarters, axis=0), atol=1e-5)


def test_a_rotated_box_lies_around_what_it_lay_around():
    box = corners(np.array([[45.0, 40.0, 30.0, 12.0, 0.4]]))
    y, x = np.mgrid[:80, :90] + 0.5
    pixels = np.stack([x, y], -1)[..., None, :] + np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    inside = polygon_shared(pixels.reshape(-1, 4, 2), np.broadcast_to(box, (80 * 90, 4, 2))).reshape(80, 90)
    for turn, angle in zip(TURNS, (0.0, 1.0, 4.0, 0.5, 2.0, 5.0, 3.0, -0.3), strict=True):
        geometry = Geometry((5, 0, 85, 80), (64, 64), turn, angle=angle)
        seen = np.empty((64, 64, 1), np.float32)
        geometry.image(inside[..., None].astype(np.float32), seen)
        moved = BOXES.moved(Quadrilaterals.of(box, [0]), geometry)
        y, x = np.mgrid[:64, :64] + 0.5
        around = np.stack([x, y], -1)[..., None, :] + np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
        shared = polygon_shared(around.reshape(-1, 4, 2), np.broadcast_to(moved.corners, (64 * 64, 4, 2)))
        assert np.abs(shared - seen.ravel()).sum() < 0.2 * abs(polygon_area(moved.corners)[0])
        assert area(moved.corners)[0] == pytest.approx(30 * 12 * (64 / 80) ** 2, rel=1e-4)


def test_a_resized_mask_takes_the_nearest_pixels():
    mask = np.arange(6, dtype=np.int64).repeat(4).reshape(6, 4)
    out = np.empty((3, 2), np.uint8)
    Geometry((0, 0, 4, 6), (3, 2)).mask(mask, out, 255)
    np.testing.assert_array_equal(out, [[1, 1], [3, 3], [5, 5]])
    larger = np.empty((12, 8), np.uint8)
    Geometry((0, 0, 4, 6), (12, 8)).mask(mask, larger, 255)
    np.testing.assert_array_equal(larger, mask.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("turn", TURNS)
def test_boxes_are_resized_and_turned_and_go_round_as_before(turn):
    value = Quadrilaterals.of([rectangle(2, 1, 8, 3)], [1], [True])
    moved = BOXES.moved(value, Geometry((0, 0, 10, 10), (20, 20), turn))
    np.testing.assert_allclose(area(moved.corners), 4 * area(value.corners))
    corners = np.array(rectangle(4, 2, 16, 6), float)
    corners = np.where([turn[0], turn[1]], 20 - corners, corners)
    expected = corners[:, ::-1] if turn[2] else corners
    assert sorted(map(tuple, moved.corners[0])) == sorted(map(tuple, expected))
    np.testing.assert_array_equal(moved.corners[0, 0], expected[0])
    assert (moved.classes.tolist(), moved.difficult.tolist()) == ([1], [True])


def test_boxes_stay_uncut_where_their_middle_is_in_the_part():
    value = Quadrilaterals.of([rectangle(0, 0, 12, 4), rectangle(0, 0, 4, 4), rectangle(30, 30, 32, 32)], [0, 1, 1])
    moved = BOXES.moved(value, Geometry((5, 0, 15, 10), (10, 10)))
    np.testing.assert_array_equal(moved.corners, [rectangle(-5, 0, 7, 4)])
    assert moved.classes.tolist() == [0]


@pytest.mark.parametrize("turn", list(itertools.product([False, True], repeat=3)))
def test_which_boxes_stay_does_not_depend_on_the_turn(turn):
    value = Quadrilaterals.of([rectangle(8, 0, 12, 4)], [0])  # its middle is the edge of two parts
    for box, kept in (((0, 0, 10, 10), 0), ((10, 0, 20, 10), 1)):
        assert len(BOXES.moved(value, Geometry(box, (10, 10), turn)).classes) == kept


def test_a_whole_image_keeps_boxes_whose_middle_lies_beside_it():
    value = Quadrilaterals.of([rectangle(-10, 0, 4, 4)], [0])
    moved = BOXES.moved(value, whole(20, 20, (10, 10)))
    np.testing.assert_array_equal(moved.corners, value.corners / 2)


@pytest.mark.parametrize("count", [0, 2, 3, 5])
def test_boxes_fill_their_room_and_what_has_none_is_counted(count):
    value = Quadrilaterals.of([rectangle(i, 0, i + 2, 2) for i in range(count)], [i % 2 for i in range(count)])
    arrays = BOXES.empty(2, (8, 8))
    BOXES.put(value, arrays, 1)
    there = min(count, 3)
    assert arrays["box_valid"].tolist() == [[False] * 3, [True] * there + [False] * (3 - there)]
    np.testing.assert_array_equal(arrays["boxes"][1, :there], value.corners[:3])
    assert arrays["box_class"][1].tolist() == [*value.classes[:3], *[-1] * (3 - there)]
    assert arrays["box_overflow"].tolist() == [0, count - there]


@pytest.mark.parametrize(
    ("target", "value"),
    [
        (Labels(("a", "b")), 1),
        (Labels(("a", "b"), several=True), np.array([0, 1])),
        (MASKS, np.array([[0, 1], [2, 7]], np.uint8)),
        (Masks(tuple(map(str, range(300))), -1), np.array([[-1, 299]], np.int32)),
        (BOXES, NOTHING),
        (BOXES, Quadrilaterals.of([rectangle(0, 0.1, 3, 2)], [1], [True])),
    ],
    ids=str,
)
def test_a_record_keeps_everything(target, value):
    stored = serialization.msgpack_restore(serialization.msgpack_serialize({"x": target.packed(value)}))["x"]
    jax.tree.map(np.testing.assert_array_equal, target.unpacked(stored), value)


@pytest.mark.parametrize(
    ("target", "value", "message"),
    [
        (MASKS, np.zeros((4, 5), np.uint8), r"mask is uint8 \[4, 5\], the image 4 x 4"),
        (MASKS, np.zeros((4, 4), np.float32), "mask is float32"),
        (MASKS, np.full((4, 4), 3, np.uint8), r"beyond 3 classes and ignored 7: 3 \(16 pixels\)"),
        (MASKS, np.full((4, 4), -1, np.int32), r"-1 \(16 pixels\)"),
        (BOXES, Quadrilaterals.of([rectangle(0, 0, 1, 1)], [2]), "boxes of class 2, beyond 2 classes"),
        (BOXES, Quadrilaterals.of([rectangle(0, 0, 1, np.nan)], [1]), "not finite"),
        (BOXES, Quadrilaterals.of([], [1]), r"1 boxes have corners \[0, 4, 2\]"),
    ],
    ids=str,
)
def test_what_cannot_belong_to_an_image_makes_it_unusable(target, value, message):
    with pytest.raises(CorruptImage, match=message):
        target.check(value, 4, 4)


def test_an_ignored_value_is_no_class():
    with pytest.raises(UserError, match="the ignored value 1 is also class 'water'"):
        Masks(("land", "water"), ignore=1)


class Marked:
    """Images of which the mask is the image, and one box around the brightest pixel."""

    info = Info(("one",), targets=(MASKS, BOXES))

    def __len__(self):
        return 12

    def __getitem__(self, index):
        image = np.random.default_rng(index).integers(0, 2, (16, 16), dtype=np.uint8)
        y, x = divmod(index * 37 % 256, 16)
        image[y, x] = 2
        mask = np.zeros((4, 4), np.uint8) if index == 3 else image
        boxes = Quadrilaterals.of([rectangle(x, y, x + 1, y + 1)], [1])
        return {"image": image[..., None], "label": 0, "mask": mask, "boxes": boxes}

    def name(self, index):
        return f"marked {index}"


ARRAYS = {name: np.empty((1, 3, 4, 2)) for name in ("image", "mask", "boxes", "box_valid", "mask_1", "boxes_1")}


def test_a_view_is_one_geometry_of_the_image_and_of_its_targets():
    config = DataConfig(source="marked", crop_scale=(1.0, 1.0), flips="dihedral", eval_share=0.2, threads=1)
    taken = wanted(Marked.info.all_targets, ARRAYS, "marked")
    assert [target.name for target in taken] == ["mask", "boxes"]
    sizes = {"image_size": 16, "batch_size": 4, "views": views_in(ARRAYS), "targets": taken}
    training = train_batches(Marked(), config, seed=0, **sizes)
    held_out = DataConfig(source="marked", flips="dihedral", crop_scale=(1.0, 1.0), eval_split="train")
    batches = [*itertools.islice(training, 5), *eval_batches(pickle.loads(pickle.dumps(Marked())), held_out, **sizes)]
    training.close()
    bad = 0
    for batch in batches:
        bad += (batch["skipped"] == 3).sum()
        real = batch["id"] != 3 if "weight" in batch else slice(None)
        for view in ("", "_1"):
            image, mask, boxes = (batch[f"{name}{view}"][real] for name in ("image", "mask", "boxes"))
            np.testing.assert_array_equal(image[..., 0], mask)
            middle = np.floor(boxes[:, 0].mean(1)).astype(int)
            assert batch[f"box_valid{view}"][real].sum(1).tolist() == [1] * len(middle)
            assert (image[np.arange(len(middle)), middle[:, 1], middle[:, 0]] == 2).all()
    assert bad  # the one of which the mask does not fit
    (padding,) = (batch for batch in batches if 3 in batch["id"] and "weight" in batch)
    assert (padding["mask"][padding["id"] == 3] == 7).all()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (("image", "depth"), "data.source=marked: it has no depth, which this run needs; it has label, mask"),
        (("image", "image_1", "mask_1", "depth_1"), "no depth"),
    ],
)
def test_a_source_that_lacks_what_is_learned_from_is_refused(arrays, message):
    with pytest.raises(UserError, match=message):
        wanted(Marked.info.all_targets, dict.fromkeys(arrays), "marked")
    with pytest.raises(UserError, match=r"it has no label, .*; it has images alone"):
        wanted(Info().all_targets, {"label": None}, "plain")


def test_boxes_have_the_room_that_is_asked_for():
    (boxes,) = wanted(Marked.info.all_targets, {"boxes": np.empty((1, 50, 4, 2))}, "marked")
    assert boxes == dataclasses.replace(BOXES, most=50)
    with pytest.raises(UserError, match="5 and 6"):
        wanted(Marked.info.all_targets, {"boxes": np.empty((1, 5, 4, 2)), "box_valid": np.empty((1, 6))}, "marked")
