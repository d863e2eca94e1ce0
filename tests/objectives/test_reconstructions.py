"""Pictures of reconstructions show the bands that they say they show."""

import numpy as np
import pytest
from etils import epath
from matplotlib.figure import Figure

from scaling.models.mae import MAEConfig
from scaling.objectives.reconstructions import reconstruction_panel

BANDS = 5


@pytest.fixture
def written(monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **kwargs: figures.append(figure))
    return figures


@pytest.mark.parametrize(
    ("rgb", "shown", "title"),
    [((), (0, 1, 2), "bands 0, 1, 2 of 5 as red"), ((4, 0, 2), (4, 0, 2), "bands 4, 0, 2 of 5 as red")],
)
def test_the_bands_asked_for_are_shown_and_stated(written, tmp_path, rgb, shown, title):
    images = np.random.default_rng(0).normal(size=(2, 8, 8, BANDS))
    c = MAEConfig(image_size=8, patch_size=4, bands=BANDS, normalize_targets=False)
    arrays = {"images": images, "prediction": np.zeros((2, 1, 16 * BANDS)), "masked": np.zeros((2, 1), int)}
    reconstruction_panel(epath.Path(tmp_path / "x.png"), c, np.zeros(BANDS), np.ones(BANDS), **arrays, rgb=rgb)
    (figure,) = written
    assert figure.get_suptitle().startswith(title)
    low, high = np.percentile(images.reshape(-1, BANDS), (1, 99), axis=0)
    expected = ((images[0] - low) / (high - low + 1e-6))[..., list(shown)].clip(0, 1)
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), expected, atol=1e-4)
