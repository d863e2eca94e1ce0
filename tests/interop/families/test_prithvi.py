"""Prithvi: one date of several, and positions of whole frames."""

import numpy as np
import pytest
from etils import epath

from scaling.core.errors import UserError
from scaling.encoders.loading import load_encoder
from scaling.interop.importing import import_weights, write_checkpoint
from tests.interop.examples import assert_close, beside
from tests.interop.torch_files import save, tensor
from tests.interop.torch_layout import draw, prithvi, several_dates, tokens


def stored(arrays, dates):
    return {key: tensor(x) for key, x in prithvi(arrays, dates).items()}


def test_prithvi_sees_one_date(tmp_path):
    arrays = draw(bands=6, patch=16, grid=14)
    unused = {key: tensor(np.ones(1, np.float32)) for key in ("encoder.location_embed_enc.scale", "decoder.mask_token")}
    imported = import_weights(save(tmp_path / "p.pt", stored(arrays, 4) | unused), heads=4)
    assert imported.config.family == "prithvi_v2"
    assert imported.config.band_names == ("B02", "B03", "B04", "B8A", "B11", "B12")
    write_checkpoint(imported, epath.Path(tmp_path / "run"))
    image = np.random.default_rng(6).normal(size=(1, 224, 224, 6)).astype(np.float32)
    theirs = tokens(arrays | {"pos_embed": several_dates(32, 1, 14)}, image[0].transpose(2, 0, 1), 4)
    assert_close(load_encoder(tmp_path / "run").features(image, "tokens", normalised=True)[0], theirs)


def of_size(folder, size, dates, said=0):
    if said:
        beside(folder, architecture="prithvi_eo_v2_300", pretrained_cfg={"img_size": said, "patch_size": [1, 16, 16]})
    file = save(folder / "p.pt", stored(draw(bands=6, patch=16, grid=size // 16), dates))
    return import_weights(file, heads=4)


@pytest.mark.parametrize(("size", "dates"), [(512, 1), (512, 4), (128, 1), (128, 4), (448, 1), (224, 3)])
def test_prithvi_of_another_size_is_read_where_that_is_stated(tmp_path, size, dates):
    imported = of_size(tmp_path, size, dates, size)
    assert imported.config.model.image_size == size
    first = several_dates(32, dates, size // 16)[0, 1 : 1 + (size // 16) ** 2]
    np.testing.assert_allclose(imported.params["encoder"]["position"]["embedding"], first, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "dates", "stated"), [(512, 1, 0), (512, 4, 0), (128, 1, 0), (128, 4, 0), (448, 1, 0), (224, 4, 448)]
)
def test_positions_that_are_not_whole_frames_are_one_error(tmp_path, size, dates, stated):
    with pytest.raises(UserError, match=rf"positions, which are not those of whole frames of {stated or 224} pixels"):
        of_size(tmp_path, size, dates, stated)
