"""What a user says of the images is asked for where a family needs it, and means something where it is given."""

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from scaling.core.errors import UserError
from scaling.interop.acquisition import Acquisition
from scaling.interop.importing import import_weights
from tests.interop.records import RECORDS, arrays_of
from tests.interop.torch_layout import draw

MISUSED = {
    "timm_vit": ({"resolution": 10.0}, "timm_vit does not use --resolution; leave it out"),
    "timm_vit, odd size": ({"image_size": 18}, "--image_size=18: must be divisible by the patch size 4"),
    "timm_vit, negative size": (
        {"image_size": -4},
        "--bandwidths, --resolution, --image_size and --patch_size: must not be negative",
    ),
}


@pytest.mark.parametrize(("given", "message"), MISUSED.values(), ids=MISUSED)
def test_what_is_said_of_the_images_must_mean_something(tmp_path, given, message):
    save_file(draw(), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=message):
        import_weights(tmp_path / "w.safetensors", "timm_vit", 4, Acquisition(**given))


@pytest.mark.parametrize(
    ("family", "given", "message"),
    [
        ("dofa", {}, "dofa needs --wavelengths"),
        ("galileo", {"image_size": 16}, "galileo needs --time"),
        ("galileo", {"image_size": 16, "time": "July"}, "--time=July: must be a time; give one like 2021-07-15"),
        ("prithvi", {"location": (100.0, 0.0)}, "--location: must be a latitude, up to 90 degrees"),
        ("galileo", {"image_size": 20, "time": "2021-07-15"}, "--image_size=20: must be divisible by the patch size 8"),
        (
            "galileo",
            {"image_size": 16, "time": "2021-07-15", "bands": ("B02", "B03")},
            "galileo takes whole groups of VV, VH; B02",
        ),
        ("dofa", {"wavelengths": (665.0,), "bands": ("B04", "B03")}, "must list the same channels in order"),
    ],
    ids=str,
)
def test_what_a_family_needs_is_asked_for(tmp_path, family, given, message):
    save_file(arrays_of(np.load(RECORDS[family])), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=message):
        import_weights(tmp_path / "w.safetensors", heads=4, given=Acquisition(**given))


@pytest.mark.parametrize("fixed", [True, False])
def test_positions_are_resampled_only_where_another_size_is_asked_for(tmp_path, fixed):
    save_file(draw(fixed=fixed), tmp_path / "w.safetensors")
    small = import_weights(tmp_path / "w.safetensors", "timm_vit", 4)
    large = import_weights(tmp_path / "w.safetensors", "timm_vit", 4, Acquisition(image_size=24))
    assert (small.config.model.image_size, large.config.model.image_size) == (16, 24)
    if fixed:
        assert large.config.model.position == "sincos"
    else:
        square = small.params["encoder"]["position"]["embedding"].reshape(4, 4, -1)
        expected = jax.image.resize(square, (6, 6, square.shape[2]), "bicubic").reshape(36, -1)
        np.testing.assert_allclose(large.params["encoder"]["position"]["embedding"], expected, atol=1e-6)
