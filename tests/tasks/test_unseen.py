"""Unseen images are given by the path of a file or folder."""

import numpy as np
import pytest
from PIL import Image

from scaling.core.errors import UserError
from scaling.data.config import DataConfig
from scaling.data.rasters import open_raster
from scaling.tasks.finished_run import FinishedRun
from scaling.tasks.unseen import Checks, image_files
from scaling.training.config import FinetuneConfig
from tests.data.examples import class_folders
from tests.encoders.examples import small_encoder


def test_an_archive_or_a_run_is_no_folder_of_images(tmp_path):
    root = class_folders(tmp_path / "tiles", 2)
    with pytest.raises(UserError, match="no such file or folder"):
        image_files(f"{root}/nowhere")
    with pytest.raises(UserError, match="must be an image or a folder of images; unpack the archive"):
        image_files("zip:tiles.zip")
    assert len(image_files(str(root))) == 4
    (root / "checkpoints" / "20").mkdir(parents=True)
    (root / "config.json").touch()
    with pytest.raises(UserError, match=f"^--input={root}: must be a folder of images, not the working directory of a"):
        image_files(str(root))


def test_masks_are_said_to_be_masks(tmp_path, caplog):
    data = DataConfig(source="scenes?size=16", mean=(99.0,) * 3, std=(50.0,) * 3)
    checks = Checks(FinishedRun("run", None, FinetuneConfig(model=small_encoder().config, data=data)), ())
    checks.jobs(image_files(str(class_folders(tmp_path / "tiles", 2))))
    assert "masks" not in caplog.text
    Image.fromarray(np.repeat(np.uint8([[0, 1, 3]]), 20).reshape(1, 60).repeat(9, 0)).save(tmp_path / "mask.png")
    checks.jobs(image_files(str(tmp_path / "mask.png")))
    assert f"{tmp_path}/mask.png: should be images, and looks like masks of labels: at most 3 different" in caplog.text


def test_a_file_that_is_not_a_picture_is_to_be_repaired_or_removed(tmp_path):
    (tmp_path / "a.tif").write_text("<VRTDataset/>")
    with pytest.raises(
        UserError, match=r"a\.tif: cannot be read \(it is not a .* file\); repair the file, or remove it"
    ):
        open_raster(str(tmp_path / "a.tif"), 3)
