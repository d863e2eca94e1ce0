"""Oriented boxes in the layouts that they are downloaded in, written here."""

import pickle
import zipfile

import numpy as np
import pytest
from PIL import Image

from scaling.core.errors import UserError
from scaling.data.prepare import Preparation, convert
from scaling.data.sources.registry import open_source
from tests.data.examples import shared

SHIP = [[1, 2], [9, 2], [9, 6], [1, 6]]


def line(corners, *rest) -> str:
    return " ".join(map(str, [*np.ravel(corners), *rest])) + "\n"


def write(root, images, labels="labelTxt"):
    """Writes {name: text of its objects, None for no file} with PNG images of 20 x 12 pixels."""
    for folder in ("images", labels):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for i, (name, text) in enumerate(images.items()):
        pixels = np.random.default_rng(i).integers(256, size=(12, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"images/{name}.png")
        if text is not None:
            (root / f"{labels}/{name}.txt").write_text(text)
    return root


HEADER = "imagesource:GoogleEarth\ngsd:0.1\n"
IMAGES = {"P2": HEADER + line(SHIP, "ship", 1) + line(np.add(SHIP, 3), "plane"), "P1": HEADER, "P3": ""}


def test_objects_are_read_as_they_stand(tmp_path):
    source = open_source(f"dota:{write(tmp_path, IMAGES)}")
    assert [source.name(i) for i in range(len(source))] == ["P1.png", "P2.png", "P3.png"]
    boxes = source[1]["boxes"]
    np.testing.assert_array_equal(boxes.corners, [SHIP, np.add(SHIP, 3)])
    classes = source.info.target("boxes").classes
    assert len(classes) == 18
    assert [classes[i] for i in boxes.classes] == ["ship", "plane"]
    assert boxes.difficult.tolist() == [True, False]
    assert source[0]["boxes"].corners.shape == source[2]["boxes"].corners.shape == (0, 4, 2)
    assert source[1]["image"].shape == (12, 20, 3)
    assert len(open_source(f"dota:{tmp_path}?version=1.0").info.target("boxes").classes) == 15
    few = open_source(f"dota:{tmp_path}?classes=plane,ship&most=7")
    assert few.info.target("boxes").most == 7
    assert few[1]["boxes"].classes.tolist() == [1, 0]


def test_splits_in_folders_and_archives(tmp_path):
    for split, labels in (("train", "labelTxt-v1.5"), ("val", "labelTxt")):
        write(tmp_path / split, {f"{split}{i}": line(SHIP, "ship") for i in range(2)}, labels)
    assert open_source(f"dota:{tmp_path}?version=1.5").name(0) == "train0.png"
    assert open_source(f"dota:{tmp_path}", "validation").name(1) == "val1.png"
    assert len(open_source(f"dota:{tmp_path}?version=1.5", "train+val")) == 4
    with pytest.raises(UserError, match="no split 'test'; there is train, validation"):
        open_source(f"dota:{tmp_path}", "test")
    with pytest.raises(UserError, match="no folder labelTxt in"):
        open_source(f"dota:{tmp_path}?version=1.0", "train")
    packed = tmp_path / "packed"
    packed.mkdir()
    with zipfile.ZipFile(packed / "test.zip", "w") as archive:
        for file in (tmp_path / "val").rglob("*.*"):
            archive.write(file, file.relative_to(tmp_path / "val"))
    source = pickle.loads(pickle.dumps(open_source(f"dota:{packed}", "test")))
    plain = open_source(f"dota:{tmp_path}", "val")
    for i in range(2):
        np.testing.assert_array_equal(source[i]["image"], plain[i]["image"])
        np.testing.assert_array_equal(source[i]["boxes"].corners, plain[i]["boxes"].corners)


def test_objects_without_area_are_left_out_and_counted(tmp_path, caplog):
    flat = [[1, 1], [5, 5], [5, 5], [1, 1]]
    images = {"P1": line(flat, "ship") + line(SHIP, "plane"), "P2": line(SHIP, "ship") + line(flat, "ship")}
    source = open_source(f"dota:{write(tmp_path, images)}")
    assert [len(source[i]["boxes"].classes) for i in range(2)] == [1, 1]
    assert "2 of 4 objects have no area and are left out, first in P1" in caplog.text


def test_the_test_split_needs_no_labels(tmp_path):
    write(tmp_path / "train", {"P1": ""})
    write(tmp_path / "test", {"P2": None, "P3": None})
    (tmp_path / "test/labelTxt").rmdir()
    source = open_source(f"dota:{tmp_path}", "test")
    assert [source.name(i) for i in range(len(source))] == ["P2.png", "P3.png"]
    assert source.info.target("boxes") is None
    assert source[1]["image"].shape == (12, 20, 3)
    for name in ("P2", "P3"):
        (tmp_path / f"test/images/{name}.png").unlink()
    with pytest.raises(UserError, match="no images there of test"):
        open_source(f"dota:{tmp_path}", "test")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({"P1": line(SHIP, "shp")}, "P1: unknown class 'shp'; did you mean ship"),
        ({"P1": line(SHIP, "lorry")}, "P1: unknown class 'lorry'; there are plane, .*classes=NAME,NAME"),
        ({"P1": "gsd:1\n5 5 4 2 0.3 ship 0\n"}, r"P1\.txt:2: 7 fields"),
        ({"P1": "1 2 9 2 9 6 1 six ship\n"}, r"P1\.txt:1: 'six' must be a number"),
        ({"P1": None}, "1 of 1 images have no labelTxt of the same name, first P1"),
        ({}, "no images there"),
    ],
)
def test_wrong_files_are_named(tmp_path, images, message):
    with pytest.raises(UserError, match=message):
        open_source(f"dota:{write(tmp_path, images)}")


def test_wrong_places_and_options(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        open_source(f"dota:{tmp_path}/none")
    with pytest.raises(UserError, match="no images/ there"):
        open_source(f"dota:{tmp_path}")
    write(tmp_path, {"P1": ""})
    (tmp_path / "labelTxt/P9.txt").write_text("")
    with pytest.raises(UserError, match="1 of 2 labelTxt files have no image of the same name, first P9"):
        open_source(f"dota:{tmp_path}")
    (tmp_path / "labelTxt/P9.txt").unlink()
    for option, message in (
        ("version=3", "1.0, 1.5, 2.0"),
        ("most=many", "must be a number"),
        ("classes=a,a", "needs a different name"),
    ):
        with pytest.raises(UserError, match=message):
            open_source(f"dota:{tmp_path}?{option}")


def test_prepared_records_keep_the_objects(tmp_path):
    spec = f"dota:{write(tmp_path / 'raw', IMAGES)}"
    convert(Preparation(spec, ("train",), str(tmp_path / "records")), 1, lambda done: None, lambda total: None)
    source, records = open_source(spec), open_source(f"arrayrecord:{tmp_path / 'records'}")
    assert records.info.target("boxes").classes == source.info.target("boxes").classes
    of_source = {source.name(i): source[i]["boxes"] for i in range(3)}
    assert sorted(len(records[i]["boxes"].classes) for i in range(3)) == [0, 0, 2]
    full = next(records[i]["boxes"] for i in range(3) if len(records[i]["boxes"].classes))
    for mine, theirs in zip(full, of_source["P2.png"], strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_tiles_are_cut_with_their_objects(tmp_path):
    images = {
        "P1": line(SHIP, "ship") + line(np.add(SHIP, (9, 5)), "plane") + line(np.add(SHIP, (4, 0)), "ship"),
        "P2": "",
    }
    whole = open_source(f"dota:{write(tmp_path, images)}")
    source = pickle.loads(pickle.dumps(open_source(f"dota:{tmp_path}?tile=12&gap=4")))
    assert [source.name(i) for i in range(len(source))] == [f"P{i}__1__{x}___0" for i in (1, 2) for x in (0, 8)]
    assert source.counts == {"tiles": 4, "empty": 2, "objects": 3, "cut": 1, "dropped": 0}
    right = source[1]
    np.testing.assert_array_equal(right["image"], whole[0]["image"][:, 8:])
    np.testing.assert_array_equal(right["boxes"].corners, [np.add(SHIP, (1, 5))])
    left = source[0]["boxes"]
    np.testing.assert_array_equal(left.corners, [SHIP, np.add(SHIP, (4, 0))])  # 7 of 8 columns of the second, whole
    assert left.difficult.tolist() == [False, True]
    half = open_source(f"dota:{tmp_path}?tile=12&gap=4&rates=0.5")
    assert half[0]["image"].shape == (12, 12, 3)
    np.testing.assert_array_equal(half[0]["boxes"].corners[0], np.array(SHIP) / 2)
    assert half.info == whole.info
    for option, message in (
        ("tile=12&gap=x", "must be numbers"),
        ("tile=12&gap=12", "tiles share"),
    ):
        with pytest.raises(UserError, match=message):
            open_source(f"dota:{tmp_path}?{option}")


def test_real_files():
    source = open_source(f"dota:{shared('obb/dota')}?version=1.0")
    classes = source.info.target("boxes").classes
    found = {source.name(i): source[i]["boxes"] for i in range(len(source))}
    assert list(found) == ["P0706.png", "P1888.png"]
    assert found["P0706.png"].difficult.sum() == 6
    assert np.bincount(found["P0706.png"].classes)[[classes.index("ship"), classes.index("harbor")]].tolist() == [
        531,
        5,
    ]
    assert len(found["P1888.png"].classes) == 64
    for split, images, boxes in (("train", 928, 2017), ("test", 232, 532)):
        ships = open_source(f"dota:{shared('obb/ssdd')}?classes=ship", split)
        assert len(ships) == images
        assert sum(len(objects.classes) for objects in ships.objects) == boxes
        assert ships[0]["image"].shape[2] == 1
    assert len(open_source(f"dota:{shared('obb/dota_format_only')}")[0]["boxes"].classes) == 4
