"""Weights in a folder are those of the model, or refused."""

import pytest
from etils import epath

from scaling.core.errors import UserError
from scaling.interop.acquisition import Acquisition
from scaling.interop.published import published
from scaling.studies.reproduction.papers import PAPERS
from scaling.studies.reproduction.parts import subjects
from tests.interop.torch_files import save, tensor
from tests.interop.torch_layout import draw, prithvi


def test_a_file_name_that_several_models_have_is_taken_from_the_folder_of_the_model_only(tmp_path):
    nano, large = published("galileo_nano"), published("prithvi_v2_300m")
    assert nano.find(tmp_path) is None
    for name in ("encoder.pt", "Prithvi_EO_V2_300M.pt"):
        (tmp_path / name).touch()
    assert large.find(tmp_path) == tmp_path / "Prithvi_EO_V2_300M.pt"
    own = tmp_path / "galileo_nano" / "encoder.pt"
    with pytest.raises(
        UserError, match=f"may be of galileo_nano or of galileo_tiny, galileo_base, .* move it to {own}"
    ):
        nano.find(tmp_path)
    own.parent.mkdir()
    own.touch()
    assert nano.find(tmp_path) == own


def test_weights_of_other_sizes_than_the_model_has_are_refused(tmp_path):
    arrays = prithvi(draw(width=192, bands=6, patch=16, grid=14), dates=4)
    file = save(tmp_path / "Prithvi_EO_V2_300M.pt", {key: tensor(x) for key, x in arrays.items()})
    (subject,) = subjects(PAPERS["hackel2026"], ["prithvi_v2_300m"], Acquisition(), epath.Path(tmp_path / "out"))
    with pytest.raises(UserError, match="has width 192, but prithvi_eo_v2_300 has 1024; these are different weights"):
        subject.imported(file)
