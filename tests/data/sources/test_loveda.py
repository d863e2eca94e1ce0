"""LoveDA, written here in its layout on disk."""

import numpy as np
import pytest
from PIL import Image

from scaling.core.errors import UserError
from scaling.data.sources.registry import open_source


def write(root, split, area, number, masks=True):
    rng = np.random.default_rng(number)
    pixels, labels = rng.integers(256, size=(8, 8, 3), dtype=np.uint8), rng.integers(8, size=(8, 8), dtype=np.uint8)
    for kind, array in (("images_png", pixels), ("masks_png", labels))[: 1 + masks]:
        folder = root / split / area / kind
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / f"{number}.png")
    return pixels, labels


@pytest.fixture
def root(tmp_path):
    for number, area in ((10, "Rural"), (9, "Rural"), (1366, "Urban")):
        write(tmp_path, "Train", area, number)
    write(tmp_path, "Val", "Urban", 3)
    write(tmp_path, "Val", "Rural", 4)
    for number, area in ((5, "Rural"), (6, "Urban")):
        write(tmp_path, "Test", area, number, masks=False)
    return tmp_path


def test_labels_are_counted_from_zero_and_no_data_is_ignored(root):
    source = open_source(f"loveda:{root}")
    target = source.info.target("mask")
    assert target.classes == ("background", "building", "road", "water", "barren", "forest", "agriculture")
    names = ["Urban/images_png/1366.png", "Rural/images_png/9.png", "Rural/images_png/10.png"]
    assert [source.name(i) for i in range(len(source))] == names
    for i, number in enumerate((1366, 9, 10)):
        pixels, stored = write(root, "again", "Urban", number)
        example = source[i]
        np.testing.assert_array_equal(example["image"], pixels)
        expected = np.array([255, 0, 1, 2, 3, 4, 5, 6])[stored]
        np.testing.assert_array_equal(example["mask"], expected)
        assert example["mask"].dtype == np.uint8


def test_splits_and_areas(root):
    assert len(open_source(f"loveda:{root}", "validation")) == len(open_source(f"loveda:{root}", "val")) == 2
    assert len(open_source(f"loveda:{root}", "train+val")) == 5
    assert open_source(f"loveda:{root}?areas=Urban").name(0) == "Urban/images_png/1366.png"
    assert len(open_source(f"loveda:{root}?areas=rural")) == 2


def test_the_test_split_has_no_masks(root):
    source = open_source(f"loveda:{root}", "test")
    assert {source.name(i) for i in range(len(source))} == {"Urban/images_png/6.png", "Rural/images_png/5.png"}
    assert source.info.target("mask") is None
    assert source[0]["label"] == -1


def test_other_folders_are_refused(root):
    with pytest.raises(UserError, match="no folders Train, Val or Test there; give the folder that contains them"):
        open_source(f"loveda:{root}/Train")
    with pytest.raises(UserError, match="areas=sea: Urban or Rural"):
        open_source(f"loveda:{root}?areas=sea")
    with pytest.raises(UserError, match="no split 'all'; there is train, validation, test"):
        open_source(f"loveda:{root}", "all")
    (root / "Train/Urban/masks_png/1366.png").unlink()
    with pytest.raises(UserError, match=r"1 of 1 images have no mask of the same name, first 1366\.png"):
        open_source(f"loveda:{root}")
    Image.fromarray(np.full((8, 8), 8, np.uint8)).save(root / "Train/Urban/masks_png/1366.png")
    with pytest.raises(UserError, match="has a label 8; LoveDA's are 0 to 7"):
        open_source(f"loveda:{root}")
    for kind in ("images_png", "masks_png"):
        (root / f"Val/Urban/{kind}/3.png").unlink()
        (root / f"Val/Urban/{kind}").rmdir()
    with pytest.raises(UserError, match="no Val/Urban/images_png there; unpack the whole download"):
        open_source(f"loveda:{root}", "val")
