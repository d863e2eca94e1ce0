"""Unseen images are given by the path of a file or folder."""

import pytest

from scaling.core.errors import UserError
from scaling.tasks.unseen import image_files
from tests.data.examples import class_folders


def test_a_source_is_answered_with_its_path(tmp_path):
    root = class_folders(tmp_path / "tiles", 2)
    with pytest.raises(UserError, match=f"takes a path, not a source; give its path alone, --input={root}$"):
        image_files(f"folder:{root}")
    with pytest.raises(UserError, match="no such file or folder"):
        image_files(f"folder:{root}/nowhere")
    assert len(image_files(str(root))) == 4
