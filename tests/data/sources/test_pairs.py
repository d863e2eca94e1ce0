"""Pictures and masks in pairs, written here in their layout on disk, are read class by class."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from scaling.core.errors import UserError
from scaling.data.prepare import Preparation, convert
from scaling.data.sources.registry import open_source
from tests.data.examples import shared

CLASSES = "index,name,rgb\n0,water,#0000FF\n1,road,#808080\n2,field,#FEDD3A\n255,void,#000000\n"
PALETTE = np.zeros((256, 3), np.uint8)
PALETTE[:3] = [[0, 0, 255], [128, 128, 128], [0xFE, 0xDD, 0x3A]]


def picture(seed: int, height: int = 12, width: int = 10) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)


def labels(seed: int, height: int = 12, width: int = 10) -> np.ndarray:
    return np.random.default_rng(seed).choice([0, 1, 2, 255], (height, width)).astype(np.uint8)


def write(root: Path, names: list[str], coloured: bool = False, masks: str = "masks", images: str = "images") -> Path:
    """Pairs of these names; the picture and the mask of number i are `picture(i)` and `labels(i)`."""
    for i, name in enumerate(names):
        for folder, array in ((images, picture(i)), (masks, PALETTE[labels(i)] if coloured else labels(i))):
            file = root / folder / f"{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(file)
    return root


def with_table(root: Path, text: str = CLASSES) -> Path:
    (root / "classes.csv").write_text(text)
    return root


def assert_read(source, numbers: list[int]):
    assert len(source) == len(numbers)
    for index, i in enumerate(numbers):
        example = source[index]
        np.testing.assert_array_equal(example["image"], picture(i))
        np.testing.assert_array_equal(example["mask"], labels(i))
        assert example["label"] == -1


@pytest.mark.parametrize("coloured", [False, True])
def test_a_folder_of_pairs(tmp_path, coloured):
    root = with_table(write(tmp_path, ["a", "b", "c"], coloured))
    source = open_source(f"pairs:{root}")
    assert source.info.target("mask").classes == ("water", "road", "field")
    assert source.info.target("mask").ignore == 255
    assert_read(source, [0, 1, 2])
    assert source.name(1) == "b.png"


def test_classes_and_colours_as_options(tmp_path):
    root = write(tmp_path, ["a", "b"])
    assert open_source(f"pairs:{root}?classes=water,road,field&ignore=255").info.target("mask").classes[1] == "road"
    write(root, ["a", "b"], coloured=True)
    palette = "colours=0000FF,808080,FEDD3A"
    with pytest.raises(UserError, match=r"a.png: has colours that are not in the table of colours: #000000 \("):
        open_source(f"pairs:{root}?classes=water,road,field&{palette}")


def test_archives_of_pairs_with_a_table_of_splits(tmp_path):
    root = with_table(write(tmp_path, ["x/a", "x/b", "y/c"]))
    for kind in ("images", "masks"):
        with zipfile.ZipFile(root / f"{kind}.zip", "w") as archive:
            for file in sorted((root / kind).rglob("*.png")):
                archive.write(file, file.relative_to(root / kind))
                file.unlink()
        for folder in ("x", "y", "."):
            (root / kind / folder).rmdir()
    (root / "splits.csv").write_text("name,split\nx/a,train\nx/b,val\ny/c,train\n")
    assert_read(open_source(f"pairs:{root}"), [0, 2])
    assert_read(open_source(f"pairs:{root}", "validation"), [1])
    with pytest.raises(UserError, match="no split 'test'; there is train, validation"):
        open_source(f"pairs:{root}", "test")


@pytest.mark.parametrize("outside", [True, False])
def test_splits_that_are_folders(tmp_path, outside):
    if outside:
        root = with_table(tmp_path)
        write(root / "train", ["a", "b"])
        write(root / "val", ["a"])
    else:
        root = with_table(write(tmp_path, ["train/a", "train/b"]))
        write(root, ["val/a"])
    assert_read(open_source(f"pairs:{root}"), [0, 1])
    assert_read(open_source(f"pairs:{root}", "val"), [0])
    assert_read(open_source(f"pairs:{root}", "train+validation"), [0, 1, 0])
    assert len(open_source(f"pairs:{root}", "train[:50%]")) == 1
    with pytest.raises(UserError, match="no split 'test'"):
        open_source(f"pairs:{root}", "test")


def test_masks_may_be_of_other_formats(tmp_path):
    root = with_table(write(tmp_path, ["a", "b"]))
    (root / "masks/a.png").unlink()
    tifffile.imwrite(root / "masks/a.tif", labels(0).astype(np.uint16), compression="zlib")
    (root / "masks/b.png").unlink()
    np.save(root / "masks/b.npy", labels(1).astype(np.int64))
    assert_read(open_source(f"pairs:{root}"), [0, 1])


def test_prepared_masks_lose_nothing(tmp_path):
    root = with_table(write(tmp_path / "raw", ["a", "b", "c"]))
    convert(Preparation(f"pairs:{root}", ("train",), str(tmp_path / "out")), 1, lambda done: None, lambda total: None)
    prepared = open_source(f"arrayrecord:{tmp_path}/out")
    assert prepared.info.target("mask") == open_source(f"pairs:{root}").info.target("mask")
    read = sorted((prepared[i]["mask"].tobytes(), prepared[i]["image"].tobytes()) for i in range(3))
    assert read == sorted((labels(i).tobytes(), picture(i).tobytes()) for i in range(3))


def refusal(spec: str, split: str = "train") -> str:
    with pytest.raises(UserError) as caught:
        open_source(spec, split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_wrong_pairs_are_refused_when_they_are_opened(tmp_path):
    root = write(tmp_path, ["a", "b"])
    spec = f"pairs:{root}"
    assert "no such folder" in refusal(f"pairs:{tmp_path}/nowhere")
    assert "what do the labels stand for?" in refusal(spec)
    assert "values beyond 2 classes and ignored 255: 2 (" in refusal(f"{spec}?classes=water,road")
    assert "every class needs a different name" in refusal(f"{spec}?classes=water,,field")
    assert "ignore=none is not a whole number" in refusal(f"{spec}?classes=a,b,c&ignore=none")
    assert "2 colours of 3 classes" in refusal(f"{spec}?classes=a,b,c&colours=000000,FFFFFF")
    with_table(root)
    Image.fromarray(labels(0)[:-1]).save(root / "masks/a.png")
    assert "its mask is uint8 [11, 10], the image 12 x 10 pixels" in refusal(spec)
    Image.fromarray(picture(3)).save(root / "masks/a.png")
    with_table(root, "index,name\n0,water\n1,road\n2,field\n")
    assert "has 3 channels, not one label a pixel; give the colour of each class" in refusal(spec)
    (root / "masks/a.png").unlink()
    assert "1 of 2 images have no mask of the same name, first a.png" in refusal(spec)
    (root / "images/a.png").unlink()
    write(root, ["a"])
    (root / "images/b.png").unlink()
    assert "1 of 2 masks have no image of the same name, first b.png" in refusal(spec)
    (root / "images").rename(root / "pictures")
    assert "neither images/ nor images.zip" in refusal(spec)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("index,title\n0,a\n", "no column name; it has index, title"),
        ("index,name\n0,a\n2,b\n7,c\n", "indices 0, 2, 7: classes are counted 0, 1, 2"),
        ("index,name\n0,a\n0,b\n", "an index occurs twice"),
        ("index,name\n0,a\n1,\n", "row 3 lacks index or name"),
        ("index,name\nfirst,a\n", "index first is not a whole number"),
        ("index,name,rgb\n0,a,#000001\n1,b,#000001\n", "colour #000001 stands for labels 0 and 1"),
    ],
)
def test_a_wrong_table_of_classes_is_refused(tmp_path, table, message):
    assert message in refusal(f"pairs:{with_table(write(tmp_path, ['a']), table)}")


def test_the_shares_of_the_classes_of_real_masks_are_those_of_their_manifest():
    folder = shared("dubai")
    stated = json.loads((folder / "manifest.json").read_text())["counts"]["share_percent_test"]
    source = open_source(f"pairs:{folder}", "test")
    counts = sum(np.bincount(source.kept(i)["mask"].ravel(), minlength=256) for i in range(len(source)))
    names = dict(enumerate(source.info.target("mask").classes)) | {255: "void"}
    shares = 100 * counts / counts.sum()
    assert {names[i]: round(shares[i], 2) for i in np.flatnonzero(counts)} == stated


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_folder_is_named(tmp_path):
    root = with_table(write(tmp_path, ["a"]))
    (root / "masks").chmod(0)
    try:
        assert "make it readable" in refusal(f"pairs:{root}")
    finally:
        (root / "masks").chmod(0o755)
