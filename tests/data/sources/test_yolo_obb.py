import pickle

import numpy as np
import pytest
from PIL import Image

from scaling.core.errors import UserError
from scaling.data.sources.registry import open_source


@pytest.fixture
def root(tmp_path):
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (tmp_path / kind / split).mkdir(parents=True)
        Image.new("RGB", (40, 20)).save(tmp_path / f"images/{split}/a.png")
        (tmp_path / f"labels/{split}/a.txt").write_text("1 0.1 0.2 0.5 0.2 0.5 0.6 0.1 0.6\n")
    (tmp_path / "data.yaml").write_text("path: .\nnames:\n  0: plane\n  1: ship\n")
    return tmp_path


def test_corners_become_pixels(root):
    source = pickle.loads(pickle.dumps(open_source(f"yolo_obb:{root}", "val")))
    assert source.info.target("boxes").classes == ("plane", "ship")
    boxes = source[0]["boxes"]
    np.testing.assert_allclose(boxes.corners, [[[4, 4], [20, 4], [20, 12], [4, 12]]], rtol=1e-6)
    assert boxes.corners.dtype == np.float32
    assert boxes.classes.tolist() == [1]
    assert open_source(f"yolo_obb:{root}?classes=a,b").info.target("boxes").classes == ("a", "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0.5 0.5 0.2 0.1 0.3", r"a\.txt:1: 6 fields; .*an angle\?"),
        ("2 0 0 1 0 1 1 0 1", r"a\.txt:1: class '2' must be a number below 2, for one of plane, ship"),
        ("ship 0 0 1 0 1 1 0 1", "class 'ship' must be a number"),
        ("\n1 0 0 1 0 1 1 0 one", r"a\.txt:2: 'one' must be a number"),
        ("1 0 0 100 0 100 80 0 80", "corners up to 100; they must be fractions of the image"),
    ],
)
def test_wrong_lines_are_named(root, text, message):
    (root / "labels/train/a.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        open_source(f"yolo_obb:{root}")


def test_wrong_names_and_places(root):
    (root / "data.yaml").write_text("names: {0: plane, 2: ship}")
    with pytest.raises(UserError, match=r"data\.yaml: `names` must be a list"):
        open_source(f"yolo_obb:{root}")
    (root / "data.yaml").unlink()
    with pytest.raises(UserError, match=r"give \?classes=NAME,NAME"):
        open_source(f"yolo_obb:{root}")
    with pytest.raises(UserError, match="no split 'test'; there is train, validation"):
        open_source(f"yolo_obb:{root}?classes=a,b", "test")
    with pytest.raises(UserError, match="no folders images and labels"):
        open_source(f"yolo_obb:{root}/images")
