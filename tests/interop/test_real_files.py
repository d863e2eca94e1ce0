"""A real pretrained file on real images: Galileo-nano (nasaharvest/galileo, MIT) on TerraMesh (CC BY-SA 4.0)."""

import numpy as np
import pytest
import tifffile
from etils import epath
from safetensors.numpy import save_file

from scaling.encoders.controls import random_weights
from scaling.encoders.loading import load_encoder
from scaling.evaluation.knn import knn_predict
from scaling.interop.acquisition import Acquisition
from scaling.interop.families.galileo import GALILEO
from scaling.interop.importing import import_weights, write_checkpoint
from scaling.interop.weights import read_weights
from tests.data.examples import shared
from tests.interop.records import RECORDS, arrays_of

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
SHIFTED = ("282D_485L_3_3", "433D_629L_3_1", "609U_541L_3_0")  # places whose numbers are 1,000 too large
SIZE, PATCH = 32, 4


@pytest.fixture(scope="module")
def galileo(tmp_path_factory):
    file = shared("weights/galileo_nano/encoder.pt")
    folder = epath.Path(tmp_path_factory.mktemp("galileo") / "run")
    write_checkpoint(
        import_weights(file, given=Acquisition(image_size=SIZE, patch_size=PATCH, time="2021-07-15")), folder
    )
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
    """Every fourth image, the land cover of its patches (0 if less than three quarters agree), and masks of those
    in the east and in the west.
    """
    channels = [BANDS.index(band) for band in galileo.train.band_names]
    images = np.concatenate(list(tiles("S2L1C")))[::4, ..., channels]
    cover = np.concatenate(list(tiles("LULC")))[::4, ..., 0].astype(int)
    n = SIZE // PATCH
    pixels = cover.reshape(-1, n, PATCH, n, PATCH).swapaxes(2, 3).reshape(-1, PATCH * PATCH)
    counts = np.stack([np.bincount(row, minlength=10) for row in pixels])
    labels = np.where(counts.max(1) >= 0.75 * PATCH**2, counts.argmax(1), 0)
    column = 4 * np.arange(len(images)) % (224 // SIZE)
    return images, labels, np.repeat(column > 3, n * n), np.repeat(column < 3, n * n)


def land_cover_score(encoder, patches):
    """Macro accuracy of 5 nearest neighbours that tell the east of the places from their west."""
    images, labels, east, west = patches
    tokens = encoder.features(images, "tokens", batch_size=16)  # [N, groups * patches, D]
    features = tokens.reshape(len(tokens), encoder.config.groups, -1, tokens.shape[-1]).mean(1)
    features = features.reshape(-1, features.shape[-1])
    train, test = west & (labels > 0), east & (labels > 0)
    features = (features - features[train].mean(0)) / features[train].std(0)
    predicted = knn_predict(features[train], labels[train], features[test], k=5, metric="euclidean")
    return np.mean([(predicted[labels[test] == c] == c).mean() for c in np.unique(labels[test])])


def converted(file, folder, **options):
    save_file(file, folder / "w.safetensors")
    write_checkpoint(import_weights(folder / "w.safetensors", heads=4, **options), epath.Path(folder / "run"))
    return load_encoder(folder / "run")


def whole_tiles(folder):
    return np.stack([tifffile.imread(file) for file in sorted(shared(f"terramesh/{folder}").glob("*.tif"))])


def channels_last(x, bands):
    return (x if x.shape[-1] == bands else x.transpose(0, 2, 3, 1)).astype(np.float32)


@pytest.mark.parametrize("level", [pytest.param("s2l2a", marks=pytest.mark.long), "s2l1c"])
def test_tiles_of_both_levels_pass_through_a_terramind_in_its_own_bands(tmp_path, level):
    """In the right order every band is normalised to near zero; in another, some are far off."""
    bands = {"s2l2a": 12, "s2l1c": 13}[level]
    rng, key = np.random.default_rng(0), f"encoder_embeddings.untok_sen{level.removeprefix('s')}@224"
    file = {
        name: x
        for name, x in arrays_of(np.load(RECORDS["terramind_gated"])).items()
        if not name.startswith("encoder_embeddings")
    }
    file |= {
        f"{key}.{name}": rng.normal(size=(1, n, 32)).astype("f4") for name, n in (("pos_emb", 196), ("mod_emb", 1))
    }
    file[f"{key}.proj.weight"] = rng.normal(size=(32, 256 * bands)).astype("f4") / 64
    encoder = converted(file, tmp_path, family=f"terramind_{level}")
    assert len(encoder.train.band_names) == bands
    images = channels_last(whole_tiles(level.upper()), bands)
    assert np.isfinite(encoder.features(images)).all()

    def spread(order):
        return np.abs(encoder.normalise(images[..., order]).mean((0, 1, 2))).max()

    right = spread(np.arange(bands))
    assert all(spread(rng.permutation(bands)) > right for _ in range(20))


def test_tiles_pass_through_a_dofa_whose_wavelengths_are_theirs(tmp_path):
    """The same scene with its bands in another order, and their wavelengths with them, has the same features."""
    wavelengths = (442.7, 492.4, 559.8, 664.6, 704.1, 740.5, 782.8, 832.8, 864.7, 945.1, 1613.7, 2202.4)
    images = channels_last(whole_tiles("S2L2A"), 12)[:2, :16, :16] / 10_000
    order = np.random.default_rng(0).permutation(12)
    features = {}
    for name, kept in (("own", np.arange(12)), ("other", order)):
        (tmp_path / name).mkdir()
        given = Acquisition(wavelengths=tuple(wavelengths[i] for i in kept))
        features[name] = converted(arrays_of(np.load(RECORDS["dofa"])), tmp_path / name, given=given).features(
            images[..., kept], normalised=True
        )
        if name == "own":
            wrong = load_encoder(tmp_path / name / "run").features(images[..., order], normalised=True)
    scale = np.abs(features["own"]).max()
    np.testing.assert_allclose(features["own"], features["other"], atol=1e-4 * scale)
    assert np.abs(wrong - features["own"]).max() > 0.01 * scale


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


@pytest.mark.long
def test_its_features_tell_land_cover_better_than_random_weights(galileo, patches):
    assert land_cover_score(galileo, patches) > land_cover_score(random_weights(galileo, 0), patches) + 0.05
