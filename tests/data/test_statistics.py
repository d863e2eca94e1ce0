"""Mean and standard deviation per band, measured once."""

import dataclasses
import json
import logging
import os
import zipfile

import numpy as np
import pytest
import tifffile

from scaling.data.config import DataConfig
from scaling.data.sources.registry import open_source
from scaling.data.statistics import BandMoments, band_statistics
from tests.data.examples import truncate


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def images(tmp_path):
    (tmp_path / "set").mkdir()
    stack = np.random.default_rng(0).normal([4e4, 100, 5], [10, 50, 0], (7, 16, 20, 3)).astype(np.float32)
    for i, image in enumerate(stack):
        tifffile.imwrite(tmp_path / "set" / f"{i}.tif", image, photometric="minisblack", planarconfig="contig")
    return DataConfig(source=f"folder:{tmp_path / 'set'}"), stack


def test_agrees_with_numpy(images):
    config, stack = images
    mean, std = band_statistics(open_source(config.source), dataclasses.replace(config, bands=(0, 1)))
    flat = stack[..., :2].reshape(-1, 2).astype(np.float64)
    np.testing.assert_allclose(mean, flat.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(std, flat.std(axis=0), rtol=1e-4)


def test_parts_merge_to_the_whole():
    stack = np.random.default_rng(0).random((6, 4, 5, 2))
    whole, left, right = BandMoments(), BandMoments(), BandMoments()
    for i, image in enumerate(stack):
        whole.add(image)
        (left if i < 2 else right).add(image)
    left.merge(right.pixels, right.total, right.squares)
    np.testing.assert_allclose(left.statistics(), whole.statistics(), rtol=1e-12)


def test_bands_are_selected_after_the_cache(images):
    config, _ = images
    source = open_source(config.source)
    mean, _ = band_statistics(source, dataclasses.replace(config, bands=(0, 1)))
    assert band_statistics(source, dataclasses.replace(config, bands=(1, 0)))[0] == mean[::-1]


def test_constant_band_is_centred_not_scaled(images, caplog):
    config, _ = images
    with caplog.at_level(logging.WARNING):
        mean, std = band_statistics(open_source(config.source), config)
    assert (mean[2], std[2]) == (5.0, 1.0)
    assert "band [2] is constant" in caplog.text


def test_measured_once_and_again_if_the_cache_is_damaged(images, cache):
    config, _ = images
    source = open_source(config.source)
    measured = band_statistics(source, config)
    (file,) = cache.iterdir()
    known = json.loads(file.read_text())
    file.write_text(json.dumps(known | {"mean": [1.0, 2.0, 3.0]}))
    assert band_statistics(source, config)[0] == (1.0, 2.0, 3.0)
    file.write_text(file.read_text()[:20])
    assert band_statistics(source, config) == measured


def tiles(folder, level, count=4):
    folder.mkdir(exist_ok=True)
    for i in range(count):
        image = np.full((8, 8, 3), level, np.uint8)
        tifffile.imwrite(folder / f"{i}.tif", image, photometric="rgb")


def test_another_set_of_the_same_name_is_measured_by_itself(tmp_path, monkeypatch):
    found = []
    for place, level in (("a", 40), ("b", 200)):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        tiles(tmp_path / place / "data", level)
        found.append(band_statistics(open_source("folder:data"), DataConfig(source="folder:data"))[0])
    assert found == [(40.0,) * 3, (200.0,) * 3]


def test_files_of_the_same_size_and_time_are_told_apart(tmp_path, monkeypatch):
    found = []
    for place, level in (("a", 40), ("b", 200), ("b", 100)):
        (tmp_path / place).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / place)
        tiles(tmp_path / place / "data", level)
        for file in (tmp_path / place / "data").iterdir():
            os.utime(file, (1e9, 1e9))
        found.append(band_statistics(open_source("folder:data"), DataConfig(source="folder:data"))[0][0])
    assert found == [40, 200, 100]


def test_images_of_another_dtype_do_not_count(tmp_path):
    tiles(tmp_path / "set", 40)
    tifffile.imwrite(tmp_path / "set" / "0.tif", np.full((8, 8, 3), 60000, np.uint16), photometric="rgb")
    config = DataConfig(source=f"folder:{tmp_path / 'set'}")
    assert band_statistics(open_source(config.source), config)[0] == (40.0,) * 3


@pytest.mark.parametrize("split", ["train", "train[:100%]"])
def test_tiles_that_are_written_again_are_measured_again(tmp_path, split):
    config = DataConfig(source=f"folder:{tmp_path / 'set'}", split=split)
    for level in (40, 200):
        tiles(tmp_path / "set", level)
        assert band_statistics(open_source(config.source, split), config)[0] == (float(level),) * 3
    for i in range(4):  # another sensor
        tifffile.imwrite(
            tmp_path / "set" / f"{i}.tif",
            np.zeros((8, 8, 5), np.uint8),
            photometric="minisblack",
            planarconfig="contig",
        )
    assert len(band_statistics(open_source(config.source, split), config)[0]) == 5


def test_an_archive_that_is_packed_again_is_measured_again(tmp_path):
    config = DataConfig(source=f"zip:{tmp_path / 'set.zip'}")
    for level in (40, 200):
        tiles(tmp_path / "set", level)
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            for file in sorted((tmp_path / "set").iterdir()):
                archive.write(file, f"c/{file.name}")
        assert band_statistics(open_source(config.source), config)[0] == (float(level),) * 3


def test_given_values_are_used(images):
    config, _ = images
    config = dataclasses.replace(config, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))
    assert band_statistics(open_source(config.source), config) == ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))


def test_corrupt_images_do_not_count(images, tmp_path):
    config, stack = images
    truncate(tmp_path / "set" / "3.tif")
    mean, _ = band_statistics(open_source(config.source), config)
    kept = np.delete(stack, 3, axis=0).reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(mean, kept.mean(axis=0), rtol=1e-9)
