"""A real pretrained file on real images: Galileo-nano (nasaharvest/galileo, MIT) on TerraMesh (CC BY-SA 4.0)."""

import numpy as np
import pytest
import tifffile
from etils import epath

from scaling.evaluation.controls import random_weights
from scaling.evaluation.encoder import load_encoder
from scaling.evaluation.knn import knn_predict
from scaling.interop.acquisition import Acquisition
from scaling.interop.families.galileo import GALILEO
from scaling.interop.importing import import_weights, write_checkpoint
from scaling.interop.weights import read_weights
from tests.data.examples import shared

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
SHIFTED = ("282D_485L_3_3", "433D_629L_3_1", "609U_541L_3_0")  # places whose numbers are 1,000 too large
SIZE, PATCH = 32, 4


@pytest.fixture(scope="module")
def galileo(tmp_path_factory):
    file = shared("weights/galileo_nano/encoder.pt")
    folder = epath.Path(tmp_path_factory.mktemp("galileo") / "run")
    write_checkpoint(import_weights(file, given=Acquisition(image_size=SIZE, patch_size=PATCH, month=7)), folder)
    return load_encoder(folder)


def tiles(folder):
    """[N, SIZE, SIZE, C] of all places, row by row of each."""
    for file in sorted(shared(f"terramesh/{folder}").glob("*.tif")):
        x = np.atleast_3d(tifffile.imread(file)).astype(np.float32)
        if len(x) == len(BANDS):
            x = x.transpose(1, 2, 0)
        if folder == "S2L1C" and file.stem in SHIFTED:
            x = x - 1000
        n = len(x) // SIZE
        parts = x.reshape(n, SIZE, n, SIZE, -1).swapaxes(1, 2)
        yield parts.reshape(n * n, SIZE, SIZE, -1)


@pytest.fixture(scope="module")
def patches(galileo):
    """Images, the land cover of every patch (0 where less than three quarters agree), and which are in the east."""
    images = np.concatenate(list(tiles("S2L1C")))[..., [BANDS.index(band) for band in galileo.train.band_names]]
    cover = np.concatenate(list(tiles("LULC")))[..., 0].astype(int)
    n = SIZE // PATCH
    pixels = cover.reshape(-1, n, PATCH, n, PATCH).swapaxes(2, 3).reshape(-1, PATCH * PATCH)
    counts = np.stack([np.bincount(row, minlength=10) for row in pixels])
    labels = np.where(counts.max(1) >= 0.75 * PATCH**2, counts.argmax(1), 0)
    column = np.arange(len(images)) % (224 // SIZE)
    return images, labels, np.repeat(column > 3, n * n), np.repeat(column < 3, n * n)


def land_cover_score(encoder, patches):
    """Macro accuracy of 5 nearest neighbours that tell the east of the places from their west."""
    images, labels, east, west = patches
    tokens = encoder.features(encoder.normalise(images), "tokens")  # [N, groups * patches, D]
    features = tokens.reshape(len(tokens), encoder.config.groups, -1, tokens.shape[-1]).mean(1)
    features = features.reshape(-1, features.shape[-1])
    train, test = west & (labels > 0), east & (labels > 0)
    features = (features - features[train].mean(0)) / features[train].std(0)
    predicted = knn_predict(features[train], labels[train], features[test], k=5, metric="euclidean")
    return np.mean([(predicted[labels[test] == c] == c).mean() for c in np.unique(labels[test])])


def test_every_number_is_that_of_the_file(galileo):
    file = read_weights(shared("weights/galileo_nano/encoder.pt"))
    blocks = galileo.params["blocks"]
    for i in range(galileo.config.depth):
        for part, name in enumerate("qkv"):
            kernel = np.asarray(blocks["qkv"]["kernel"])[i, :, 0, part].reshape(128, 128)
            np.testing.assert_array_equal(kernel.T, file[f"blocks.{i}.attn.{name}.weight"])
        np.testing.assert_array_equal(
            np.asarray(blocks["mlp_in"]["kernel"])[i, :, 0].T, file[f"blocks.{i}.mlp.fc1.weight"]
        )
    np.testing.assert_array_equal(galileo.params["norm"]["scale"], file["norm.weight"])
    assert galileo.train.band_names == GALILEO.default_bands
    assert (galileo.config.groups, galileo.config.heads, galileo.config.depth) == (5, 8, 4)


def test_its_features_tell_land_cover_better_than_random_weights(galileo, patches):
    ours = land_cover_score(galileo, patches)
    assert all(ours > land_cover_score(random_weights(galileo, seed), patches) + 0.05 for seed in range(2))
