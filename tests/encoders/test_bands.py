"""An encoder is given the bands of a source that it was trained on, or an error asks for them."""

import dataclasses
import functools
import logging
import shutil

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from scaling.core.errors import UserError
from scaling.data.config import DataConfig
from scaling.data.sources.registry import open_source
from scaling.encoders.bands import There, Wanted, bands_of, paired
from scaling.encoders.encoder import Encoder
from scaling.encoders.splits import Split, labelled_features, read_split
from scaling.tasks.finetuning import Finetuning
from scaling.training.config import FinetuneConfig
from scaling.training.stored_config import ImportConfig
from tests.data.sources import test_geobench
from tests.encoders.examples import blank_encoder, small_encoder


@pytest.mark.parametrize(
    ("wanted", "there", "expected"),
    [
        # names on both sides decide, whatever the order and the indices
        (Wanted(2, names=("B03", "B02")), There(4, ("B01", "B02", "B03", "B04")), (2, 1)),
        (Wanted(2, (5, 4), ("B03", "B02"), 9), There(2, ("B02", "B03")), (1, 0)),
        (Wanted(2, names=("B03", "B02")), There(2, ("B02", "B03"), chosen=True), (1, 0)),
        # some of the names only: not a set of bands for this encoder, unless the user chose the others himself
        (Wanted(2, names=("B03", "B08")), There(2, ("B02", "B03")), None),
        (Wanted(2, names=("B03", "B08")), There(2, ("B03", "B04")), None),
        (Wanted(2, names=("B03", "B08")), There(2, ("B03", "B04"), chosen=True), (0, 1)),
        (Wanted(2, names=("B03", "B08")), There(2, ("B04", "B03"), chosen=True), None),
        # all bands of the training
        (Wanted(3), There(3), (0, 1, 2)),
        (Wanted(3), There(3, ("a", "b", "c")), (0, 1, 2)),
        (Wanted(3), There(4), None),
        (Wanted(3), There(2), None),
        # some of them: the same sensor, the bands alone, another sensor
        (Wanted(3, (2, 1, 0), total=3), There(3), (2, 1, 0)),
        (Wanted(3, (3, 2, 1), total=12), There(12), (3, 2, 1)),
        (Wanted(3, (3, 2, 1), total=12), There(3), (0, 1, 2)),
        (Wanted(3, (3, 2, 1), total=12), There(13), None),
        (Wanted(3, (2, 1, 0), total=12), There(4), None),
        (Wanted(3, (2, 1, 0), total=12), There(3), (0, 1, 2)),
        # the source of the training is gone
        (Wanted(3, (3, 2, 1)), There(12), (3, 2, 1)),
        (Wanted(3, (2, 1, 0)), There(3), (2, 1, 0)),
        (Wanted(3, (3, 2, 1)), There(3), (0, 1, 2)),
        (Wanted(3, (5, 2, 1)), There(4), None),
        # the spec of the source says which, by names that the encoder does not know
        (Wanted(3, (2, 1, 0), total=12), There(3, ("a", "b", "c"), chosen=True), (0, 1, 2)),
    ],
    ids=str,
)
def test_the_table(wanted, there, expected):
    assert paired(wanted, there) == expected


SENSOR = tuple(f"B{i:02d}" for i in range(8))


@st.composite
def worlds(draw):
    """An encoder, a source, and the true bands of both; either may lack names."""
    trained_on = draw(st.permutations(SENSOR))[: draw(st.integers(2, 8))]
    order = draw(st.permutations(range(len(trained_on))))
    indices = tuple(order[: draw(st.integers(1, len(trained_on)))]) if draw(st.booleans()) else ()
    bands = tuple(trained_on[i] for i in indices) if indices else tuple(trained_on)
    asked = tuple(trained_on if draw(st.booleans()) else draw(st.permutations(SENSOR))[: draw(st.integers(1, 8))])
    wanted = Wanted(
        len(bands), indices, bands if draw(st.booleans()) else (), draw(st.sampled_from([0, len(trained_on)]))
    )
    return bands, asked, tuple(trained_on), wanted, There(len(asked), asked if draw(st.booleans()) else ())


@given(worlds())
def test_a_band_is_never_taken_for_another_where_that_can_be_known(world):
    bands, asked, trained_on, wanted, there = world
    taken = paired(wanted, there)
    if taken is not None:
        assert len(taken) == wanted.count
        assert all(0 <= i < there.count for i in taken)
    if wanted.names and there.names and set(bands) & set(asked):
        assert taken == (tuple(map(asked.index, bands)) if set(bands) <= set(asked) else None)
    elif asked == trained_on:  # the same sensor, and nobody knows names
        assert tuple(asked[i] for i in taken) == bands
    elif wanted.total and there.count not in (wanted.total, wanted.count):
        assert taken is None


def tiles(root, bands, count=4, seed=0, dtype=np.uint16):
    """Folders `a` and `b` of GeoTIFFs of many bands."""
    random = np.random.default_rng(seed)
    for kind in "ab":
        (root / kind).mkdir(parents=True)
        for i in range(count):
            image = random.integers(0, 4000, (16, 16, bands)).astype(dtype)
            tifffile.imwrite(root / kind / f"{i}.tif", image, photometric="minisblack", planarconfig="contig")
    return root


def trained(source, bands, count=0, **fields):
    count = count or len(bands)
    mean = tuple(1000.0 + 100 * i for i in range(count))
    std = tuple(500.0 + 50 * i for i in range(count))
    return blank_encoder(data=DataConfig(source=source, bands=bands, mean=mean, std=std), bands=count, **fields)


def read(encoder, source, split="train", **options):
    return np.concatenate([images for images, _ in read_split(encoder, source, split, **options)])


@pytest.mark.parametrize(("total", "bands"), [(3, (2, 1, 0)), (5, (3, 2, 1)), (5, (2, 1, 0)), (4, (3, 0))])
def test_however_a_folder_of_the_sensor_is_written_the_bands_of_the_training_are_taken(
    tmp_path, monkeypatch, total, bands
):
    first, second = tiles(tmp_path / "first", total), tiles(tmp_path / "second", total, seed=1)
    monkeypatch.chdir(tmp_path)
    encoder = trained("folder:first", bands)
    there = {path: read(encoder, f"folder:{path}", bands=bands) for path in (first, second)}
    for spec in ("folder:first", "folder:first/", "folder:./first", f"folder:{first}", f"folder:{first}/"):
        np.testing.assert_array_equal(read(encoder, spec), there[first])
    for spec in ("folder:second", f"folder:{second}"):
        np.testing.assert_array_equal(read(encoder, spec), there[second])
    shutil.rmtree(first)
    np.testing.assert_array_equal(read(encoder, f"folder:{second}"), there[second])


def test_mean_and_deviation_are_those_of_the_bands_that_are_taken(tmp_path):
    root = tiles(tmp_path / "set", 5)
    encoder = trained(f"folder:{root}", (3, 1))
    opened = Split(encoder, f"folder:{root}/", "train")
    pixels = np.stack([opened.opened[int(i)]["image"] for part in opened.parts() for i in part.records])
    expected = (pixels[..., [3, 1]] - np.array([1000.0, 1100])) / np.array([500.0, 550])
    np.testing.assert_allclose(read(encoder, f"folder:{root}/"), expected, atol=1e-4)


def test_a_source_of_another_sensor_is_asked_about_with_the_option_there_is(tmp_path):
    tiles(tmp_path / "first", 5)
    tiles(tmp_path / "other", 4)
    encoder = trained(f"folder:{tmp_path}/first", (2, 1, 0))
    message = r"other has 4 bands, but the model takes 3 bands: name the corresponding .* with --bands=…"
    with pytest.raises(UserError, match=message):
        Split(encoder, f"folder:{tmp_path}/other", "train", option="--bands")
    assert Split(encoder, f"folder:{tmp_path}/other", "train", bands=("3", "2", "1")).bands == (3, 2, 1)


def imported(names, **fields):
    data = DataConfig(mean=(1000.0,) * len(names), std=(500.0,) * len(names))
    encoder = blank_encoder(data=data, bands=len(names), **fields)
    return dataclasses.replace(encoder, train=ImportConfig(family="galileo", band_names=names, data=data))


@pytest.fixture(scope="module")
def eurosat(tmp_path_factory):
    return f"geobench:{test_geobench.single_label_set(tmp_path_factory.mktemp('sets'))}"


def test_by_name_where_both_know_names(eurosat):
    encoder = imported(("B04", "B08", "B02"))
    names = open_source(eurosat).info.bands
    expected = read(encoder, eurosat, bands=[names.index(n) for n in ("B04", "B08", "B02")])
    np.testing.assert_array_equal(read(encoder, eurosat), expected)
    np.testing.assert_array_equal(read(encoder, eurosat, bands=("B04", "B08", "B02")), expected)
    np.testing.assert_array_equal(read(encoder, f"{eurosat}?bands=B02,B04,B08"), expected)
    assert Split(encoder, f"{eurosat}?bands=B02,B03,B04,B08", "train[:50%]").bands == (2, 3, 0)


def test_a_trained_encoder_knows_the_names_of_its_source(eurosat):
    encoder = trained(f"{eurosat}?bands=B04,B03,B02", (), 3)
    chosen = read(encoder, eurosat, bands=("B04", "B03", "B02"))
    np.testing.assert_array_equal(read(encoder, eurosat), chosen)
    np.testing.assert_array_equal(read(encoder, f"{eurosat}?bands=B02,B03,B04"), chosen)


def test_a_band_that_is_not_there_is_named(eurosat):
    with pytest.raises(UserError, match=r"has 13 bands \(B01, .*but the model takes 2 bands \(B04, VV\).*--bands"):
        Split(imported(("B04", "VV")), eurosat, "train", option="--bands")
    with pytest.raises(UserError, match=r"--bands=B04,B99: .* has no band B99; it has B01"):
        Split(imported(("B04", "VV")), eurosat, "train", bands=("B04", "B99"), option="--bands")


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        (("9", "1"), "--bands=9,1: .* has bands 0 to 4"),
        (("1",), "--bands=1 takes 1 of them, but the model takes 2 bands"),
        (("B04", "B03"), "does not name its 5 bands; give their indices, from 0"),
        (("-1", "0"), "--bands=-1,0: must be whole numbers from 0"),
    ],
)
def test_bands_that_cannot_be_taken(tmp_path, bands, message):
    root = tiles(tmp_path / "set", 5)
    with pytest.raises(UserError, match=message):
        Split(trained(f"folder:{root}", (3, 1)), f"folder:{root}", "train", bands=bands, option="--bands")


def test_bands_under_other_names_are_taken_where_the_user_says_so_and_it_is_said(eurosat, caplog):
    with caplog.at_level(logging.WARNING):
        assert Split(imported(("B04", "B08")), eurosat, "train", bands=("B04", "B8A")).bands != ()
    assert "B8A for B08" in caplog.text


def test_statistics_of_a_data_set_are_not_put_on_bands_in_another_order(tmp_path):
    root = tiles(tmp_path / "set", 3)
    encoder, own = trained(f"folder:{root}", (2, 1, 0)), ((1.0, 2.0, 3.0), (1.0, 1.0, 1.0))
    with pytest.raises(
        UserError, match="mean and std are given, but not the bands that they are for: give bands=… too"
    ):
        Split(encoder, f"folder:{root}", "train", statistics=own)
    assert Split(encoder, f"folder:{root}", "train", statistics=own, bands=(2, 1, 0)).bands == (2, 1, 0)
    with pytest.raises(UserError, match="mean and std of 2 bands, but the encoder takes 3"):
        Split(encoder, f"folder:{root}", "train", statistics=((1.0, 2.0), (1.0, 1.0)), bands=(2, 1, 0))


def test_probes_and_fine_tuning_take_them_too(tmp_path):
    root, other = tiles(tmp_path / "set", 5), tiles(tmp_path / "other", 5, seed=2)
    encoder = small_encoder(bands=2)
    encoder = dataclasses.replace(encoder, train=trained(f"folder:{root}", (3, 1)).train)
    spec, functions = f"folder:{other}", {"encoded": functools.partial(encoder.features, normalised=True)}
    expected, _ = labelled_features(encoder, spec, "train", functions, bands=(3, 1))
    np.testing.assert_array_equal(
        labelled_features(encoder, spec, "train", functions)[0]["encoded"], expected["encoded"]
    )
    c = FinetuneConfig(data=DataConfig(source=spec), test_split="train", batch_size=8, epochs=1.0, warmup_epochs=0.0)
    assert Finetuning(encoder, c).config.data.bands == (3, 1)
    assert Finetuning(encoder, c).config.data.mean == encoder.train.data.mean


def test_twelve_bands_of_real_tiles_and_ten_of_an_imported_model(shared_data):
    s2l2a = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
    names = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
    encoder, spec = imported(names), f"folder:{shared_data}/terramesh/S2L2A"
    with pytest.raises(
        UserError, match=r"has 12 bands, but the model takes 10 bands \(B02, .*\): name the corresponding .*--bands=…"
    ):
        Split(encoder, spec, "train", option="--bands")
    chosen = tuple(map(s2l2a.index, names))
    images = read(encoder, spec, bands=chosen)
    assert images.shape == (5, 16, 16, 10)
    assert isinstance(encoder, Encoder)
    assert bands_of(encoder, open_source(spec), spec, tuple(map(str, chosen))) == chosen
