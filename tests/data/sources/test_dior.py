"""DIOR-R, written here in its layout on disk."""

import numpy as np
import pytest
from PIL import Image

from scaling.core.errors import UserError
from scaling.data.sources.registry import open_source
from tests.data.examples import shared

CORNERS = [[133, 237], [684, 240], [690, 672], [130, 670]]


def described(*objects) -> str:
    tags = ("left_top", "right_top", "right_bottom", "left_bottom")
    body = ""
    for name, corners, difficult in objects:
        points = "".join(f"<x_{t}>{x}</x_{t}><y_{t}>{y}</y_{t}>" for t, (x, y) in zip(tags, corners, strict=True))
        body += f"<object><type>robndbox</type><name>{name}</name><difficult>{difficult}</difficult>"
        body += f"<robndbox>{points}</robndbox><angle>0</angle></object>"
    return f"<annotation><size><width>800</width></size>{body}</annotation>"


@pytest.fixture
def root(tmp_path):
    for folder in ("ImageSets/Main", "Annotations/Oriented Bounding Boxes", "JPEGImages-trainval", "JPEGImages-test"):
        (tmp_path / folder).mkdir(parents=True)
    for split, names in (("train", ["00002", "00001"]), ("val", ["00003"]), ("test", ["11726"])):
        (tmp_path / f"ImageSets/Main/{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            folder = "JPEGImages-test" if split == "test" else "JPEGImages-trainval"
            Image.new("RGB", (8, 8)).save(tmp_path / folder / f"{name}.jpg")
            objects = [] if name == "00001" else [("Expressway-Service-area", CORNERS, 0), ("ship", CORNERS[::-1], 1)]
            file = tmp_path / f"Annotations/Oriented Bounding Boxes/{name}.xml"
            file.write_text(described(*objects))
    return tmp_path


def test_objects_of_every_split(root):
    source = open_source(f"dior:{root}")
    assert [source.name(i) for i in range(2)] == ["00001.jpg", "00002.jpg"]
    classes = source.info.target("boxes").classes
    assert len(classes) == 20
    boxes = source[1]["boxes"]
    assert [classes[i] for i in boxes.classes] == ["expressway-service-area", "ship"]
    np.testing.assert_array_equal(boxes.corners, [CORNERS, CORNERS[::-1]])
    assert boxes.difficult.tolist() == [False, True]
    assert len(source[0]["boxes"].classes) == 0
    assert (
        open_source(f"dior:{root}", "val").name(0) == open_source(f"dior:{root}", "validation").name(0) == "00003.jpg"
    )
    assert open_source(f"dior:{root}", "test").name(0) == "11726.jpg"
    assert len(open_source(f"dior:{root}", "train+val")) == 3


def test_wrong_files_are_named(root):
    file = root / "Annotations/Oriented Bounding Boxes/00003.xml"
    for text, message in (
        (described(("lorry", CORNERS, 0)), "unknown class 'lorry'"),
        (described(("ship", CORNERS, 0)).replace("133", "x"), r"00003\.xml: object 1: 'x' must be a number"),
        (described(("ship", CORNERS, 0)).replace("robndbox>", "bndbox>"), "object 1 has no robndbox"),
        (described(("ship", CORNERS, 0)).replace("x_left_top", "xmin"), "object 1 has no robndbox/x_left_top"),
        ("<annotation>", "repair the file"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            open_source(f"dior:{root}", "val")
    file.unlink()
    with pytest.raises(UserError, match=r"no Oriented Bounding Boxes/00003\.xml"):
        open_source(f"dior:{root}", "val")
    (root / "ImageSets/Main/val.txt").write_text("00003\n00003\n")
    with pytest.raises(UserError, match="00003 is listed twice"):
        open_source(f"dior:{root}", "val")
    (root / "ImageSets/Main/val.txt").write_text("00009\n")
    with pytest.raises(UserError, match="lacks 1 of 1 images, first 00009"):
        open_source(f"dior:{root}", "val")
    with pytest.raises(UserError, match="no split 'all'"):
        open_source(f"dior:{root}", "all")
    with pytest.raises(UserError, match="no folder ImageSets/Main"):
        open_source(f"dior:{root}/ImageSets")


def test_real_file():
    source = open_source(f"dior:{shared('obb/dior_r')}")
    boxes = source[0]["boxes"]
    np.testing.assert_array_equal(boxes.corners, [[[133, 237], [684, 237], [684, 672], [133, 672]]])
    assert source.info.target("boxes").classes[boxes.classes[0]] == "golffield"
