"""Submissions are checked in the way the server reads them."""

import numpy as np
import pytest
from PIL import Image

from scaling.core.errors import UserError
from scaling.evaluation.submissions import check_loveda

SIZES = {"4191.png": (6, 8), "4192.png": (6, 8)}


@pytest.fixture
def folder(tmp_path):
    for i, (name, size) in enumerate(SIZES.items()):
        Image.fromarray(np.full(size, 3 * i, np.uint8)).save(tmp_path / name)
    return tmp_path


def test_files_as_the_server_reads_them_pass_and_are_described(folder):
    said = check_loveda(folder, SIZES)
    assert "2 files, labels 0 to 6 as the server reads them (background 50.0%" in said
    assert "water 50.0%" in said
    assert "the server wants all 1,796" in said


def with_palette():
    image = Image.fromarray(np.zeros((6, 8), np.uint8), "P")
    image.putpalette(bytes(range(256)) * 3)
    return image


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.fromarray(np.full((6, 8), 7, np.uint8)), r"4191\.png has labels beyond 0 to 6: 7 \(48 pixels\)"),
        (Image.fromarray(np.full((6, 8), 255, np.uint8)), r"beyond 0 to 6: 255"),
        (Image.fromarray(np.zeros((8, 6), np.uint8)), "has 8 x 6 pixels, its image 6 x 8"),
        (Image.fromarray(np.zeros((6, 8, 3), np.uint8)), "has 3 channels"),
        (Image.fromarray(np.zeros((6, 8), np.uint16)), "not a grey PNG of 8 bits"),
        (with_palette(), "not a grey PNG of 8 bits"),
    ],
    ids=["label 7", "ignored", "size", "colours", "16 bits", "palette"],
)
def test_what_the_server_would_read_otherwise_is_refused(folder, image, message):
    image.save(folder / "4191.png")
    with pytest.raises(UserError, match=message):
        check_loveda(folder, SIZES)


def test_what_is_missing_or_does_not_belong_there_is_named(folder):
    (folder / "classes.csv").write_text("")
    with pytest.raises(UserError, match=r"classes\.csv is not a map of an image"):
        check_loveda(folder, SIZES)
    (folder / "classes.csv").unlink()
    (folder / "4192.png").unlink()
    with pytest.raises(UserError, match=r"4192\.png is missing"):
        check_loveda(folder, SIZES)
