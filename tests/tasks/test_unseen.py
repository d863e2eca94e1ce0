"""Unseen images are given by the path of a file or folder."""

import pytest

from scaling.core.errors import UserError
from scaling.tasks.unseen import image_files
from tests.data.examples import class_folders


def test_an_archive_or_a_run_is_no_folder_of_images(tmp_path):
    root = class_folders(tmp_path / "tiles", 2)
    with pytest.raises(UserError, match="no such file or folder"):
        image_files(f"{root}/nowhere")
    with pytest.raises(UserError, match="must be an image or a folder of images; unpack the archive"):
        image_files("zip:tiles.zip")
    assert len(image_files(str(root))) == 4
    (root / "checkpoints" / "20").mkdir(parents=True)
    with pytest.raises(UserError, match=f"^--input={root}: must be a folder of images, not the working directory of a"):
        image_files(str(root))
