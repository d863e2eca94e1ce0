import numpy as np
import pytest

from scaling.boxes.polygons import polygon_iou
from scaling.core.errors import UserError
from scaling.data.dota_text import Found
from scaling.data.targets import Quadrilaterals
from scaling.data.tiling import FILL, Tile, Tiling, kept_and_dropped, merged, moved_back, of_whole_images


def quadrilaterals(middles, w=30.0, h=12.0, angle=0.4) -> np.ndarray:
    along = w / 2 * np.array([np.cos(angle), np.sin(angle)])
    across = h / 2 * np.array([-np.sin(angle), np.cos(angle)])
    around = np.stack([-along - across, along - across, along + across, across - along])
    return np.asarray(middles, float)[:, None] + around


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (800, (0,)),
        (1024, (0,)),
        (1025, (0, 1)),
        (1848, (0, 824)),
        (1849, (0, 824, 825)),
        (2000, (0, 824, 976)),
        (4000, (0, 824, 1648, 2472, 2976)),
    ],
)
def test_starts_of_mmrotate(length, expected):
    tiles = Tiling().tiles(1024, length)
    assert [(tile.x, tile.y) for tile in tiles] == [(x, 0) for x in expected]


def test_tiles_with_little_of_the_image_are_left_out_unless_all_are_such():
    assert len(Tiling().tiles(500, 3000)) == 4  # 49 % each: the best are kept
    assert [tile.y for tile in Tiling(size=100, gap=0, content=0.6).tiles(250, 100)] == [0, 100, 150]
    assert len(Tiling().tiles(10, 10)) == 1
    scales = Tiling(size=100, gap=20, rates=(0.5, 1, 2)).tiles(200, 200)
    assert [(tile.size, tile.rate) for tile in scales[:1] + scales[-1:]] == [(200, 0.5), (50, 2)]


def test_pixels_are_filled_up_to_the_right_and_below():
    image = np.random.default_rng(0).integers(256, size=(40, 90, 3), dtype=np.uint8)
    tile = Tile(50, 0, 64).cut(image)
    np.testing.assert_array_equal(tile[:40, :40], image[:, 50:])
    assert (tile[40:] == FILL).all()
    assert (tile[:, 40:] == FILL).all()
    assert (Tile(0, 0, 64).cut(image[..., :1])[40:] == 0).all()


def test_objects_are_kept_whole_by_tiles_that_have_enough_of_them():
    upright = quadrilaterals([(90, 50), (97, 50), (107, 50), (50, 50), (99, 20)], w=20, h=10, angle=0)
    objects = Quadrilaterals.of(upright, [0, 1, 2, 3, 4], [False, False, False, True, False])
    taken, share = Tiling(size=100, gap=20).objects(objects, Tile(0, 0, 100))
    np.testing.assert_allclose(share, [1, 0.65, 0.15, 1, 0.55])
    assert taken.classes.tolist() == [0, 3]
    taken, share = Tiling(size=100, gap=20, inside=0.6).objects(objects, Tile(0, 0, 100))
    assert taken.classes.tolist() == [0, 1, 3]
    assert taken.difficult.tolist() == [False, True, True]
    np.testing.assert_allclose(taken.corners, upright[[0, 1, 3]])  # not cut
    moved, _ = Tiling(size=50, gap=10).objects(objects, Tile(80, 20, 100, 0.5))
    np.testing.assert_allclose(moved.corners[0], (upright[0] - (80, 20)) / 2)


def test_kept_and_dropped_objects_are_counted():
    tiling = Tiling(size=100, gap=20)
    objects = Quadrilaterals.of(
        np.concatenate((quadrilaterals([(50, 50), (120, 50), (90, 50)]), quadrilaterals([(90, 80)], w=160, h=8))),
        [0, 0, 0, 0],
    )
    counts = kept_and_dropped(tiling, [(100, 180, objects), (50, 50, objects.taken([]))])
    assert counts == {"tiles": 3, "empty": 1, "objects": 4, "cut": 1, "dropped": 1}


@pytest.mark.parametrize("rates", [(1.0,), (0.5, 1.0, 1.5)])
def test_objects_found_perfectly_in_tiles_are_found_once_after_merging(rates):
    rng = np.random.default_rng(0)
    middles = np.stack(np.meshgrid(np.arange(25, 670, 45), np.arange(25, 480, 45)), -1).reshape(-1, 2)
    corners = quadrilaterals(middles + rng.uniform(-5, 5, middles.shape), angle=0.5)
    objects = Quadrilaterals.of(corners, np.zeros(len(corners)))
    tiling = Tiling(size=256, gap=64, rates=rates, inside=0.999)
    found, places = [], {}
    for tile in tiling.tiles(510, 710):
        taken, _ = tiling.objects(objects, tile)
        name = tile.name("P1")
        places[name] = "P1", tile, tiling.size
        found.append(Found([name] * len(taken.classes), rng.random(len(taken.classes)), taken.corners))
    everything = [of_whole_images(part, "x", places) for part in found]
    assert sum(len(part.images) for part in everything) > len(corners) * len(rates)
    left = merged(everything)
    assert len(left.images) == len(corners)
    assert set(left.images) == {"P1"}
    assert (np.diff(left.scores) <= 0).all()
    overlap = polygon_iou(np.repeat(left.corners, len(corners), 0), np.tile(corners, (len(corners), 1, 1)))
    assert (overlap.reshape(len(corners), -1).max(0) > 0.99).all()


def test_names_of_the_devkit_and_of_mmrotate_say_where_a_tile_lies():
    square, place = quadrilaterals([(10, 10)]), np.array((824, 100))
    for name, expected in (
        ("P1__1__824___100", square + place),
        ("P1__0.5__824___100", (square + place) / 0.5),
        ("P1__1024__824___100", square + place),
        ("a__b__1__824___100", square + place),
    ):
        back = of_whole_images(Found([name], np.ones(1), square), "x")
        np.testing.assert_allclose(back.corners, expected)
        assert back.images == [name.removesuffix("__824___100").rpartition("__")[0]]
    tile = Tile(412, 50, 512, 0.5)
    assert tile.name("P1") == "P1__0.5__206___25"
    back = of_whole_images(Found([tile.name("P1")], np.ones(1), square), "x").corners
    np.testing.assert_allclose(back, moved_back(square, tile, 256))
    with pytest.raises(UserError, match=r"ship\.txt: P1 is not the name of a tile"):
        of_whole_images(Found(["P1"], np.ones(1), square), "ship.txt")
    with pytest.raises(UserError, match="not one of the 0 tiles"):
        of_whole_images(Found(["P1__1__0___0"], np.ones(1), square), "x", {})


def test_images_are_merged_each_for_itself_and_nothing_stays_nothing():
    square = quadrilaterals([(10, 10)] * 4)
    left = merged([Found(["B", "A", "B", "A"], np.array([0.1, 0.2, 0.3, 0.4]), square)])
    assert (left.images, left.scores.tolist()) == (["A", "B"], [0.4, 0.3])
    assert merged([]).corners.shape == (0, 4, 2)


@pytest.mark.parametrize("wrong", [{"gap": 1024}, {"size": 0}, {"rates": (0.0,)}, {"inside": 0.0}, {"content": 2.0}])
def test_wrong_tilings(wrong):
    with pytest.raises(UserError):
        Tiling(**wrong)
