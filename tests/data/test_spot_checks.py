"""Masks given as images are noticed, and real images are not taken for masks."""

import numpy as np
import pytest
from PIL import Image

from scaling.data.config import DataConfig, check_source, checked_sources
from scaling.data.sources.registry import open_source
from scaling.data.spot_checks import few_images, warn_of_masks
from scaling.encoders.splits import Split
from tests.data.examples import shared, smooth
from tests.encoders.examples import small_encoder


def said(images, caplog):
    caplog.clear()
    warn_of_masks("set", images)
    return caplog.messages


def labels(count, size=40):
    """Squares of labels 0 … count - 1."""
    return (np.add.outer(np.arange(size) // 8, np.arange(size) // 8) % count).astype(np.uint8)[..., None]


def test_flat_images_of_few_colours_are_taken_for_masks(caplog):
    grey, coloured = labels(5), np.eye(3, dtype=np.uint8)[labels(3)[..., 0]] * 255
    for images, colours in (([grey], 5), ([coloured], 3), ([grey * 0, grey], 5)):
        (message,) = said(images, caplog)
        assert message.startswith(f"set: should be images, and looks like masks of labels: at most {colours} different")


def test_images_are_not_taken_for_masks(caplog):
    noise = np.random.default_rng(0).integers(0, 20, (40, 40, 1), np.uint8)
    specks = np.zeros((40, 40, 1), np.uint8)
    specks[:3, :5, 0] = np.arange(1, 6)
    gradient = np.repeat(np.arange(200, dtype=np.uint8), 40).reshape(200, 40, 1)
    for images in (
        [],
        [np.zeros((40, 40, 3), np.uint8)],
        [noise],
        [gradient],
        [smooth(0)],
        [labels(5), smooth(0)[..., :1]],
        [labels(5).astype(np.float32)],
        [specks],  # a nearly empty tile
        [specks, specks, labels(2)],
    ):
        assert said(images, caplog) == []


@pytest.mark.parametrize(
    ("path", "are_masks"),
    [("roads/masks.zip", 1), ("dubai/masks.zip", 1), ("obb/ssdd/test.zip", 0), ("eurosat/images.zip", 0)],
)
def test_of_real_files_masks_are_told_from_images(path, are_masks, caplog):
    source = open_source(f"zip:{shared(path)}")
    assert len(said(few_images(source), caplog)) == are_masks
    assert not any(said([image], caplog) for image in few_images(source)) or are_masks


def test_a_folder_of_masks_is_said_to_be_one_before_it_is_encoded(tmp_path, caplog):
    for i in range(4):
        Image.fromarray(np.repeat(labels(3 + i), 3, axis=2)).save(tmp_path / f"{i}.png")
    Split(small_encoder(), f"folder:{tmp_path}", "train", statistics=((1.0,) * 3, (1.0,) * 3))
    assert f"folder:{tmp_path}, split train: should be images, and looks like masks of labels" in caplog.text


def test_the_source_and_the_split_that_look_like_masks_are_named(tmp_path, caplog):
    for i in range(4):
        Image.fromarray(np.repeat(labels(3 + i), 3, axis=2)).save(tmp_path / f"{i}.png")
    checked_sources(
        DataConfig(source="scenes?size=16&count=8", eval_source=f"folder:{tmp_path}", eval_split="train"), 3
    )
    (message,) = caplog.messages
    assert message.startswith(f"folder:{tmp_path}, split train: should be images, and looks like masks")


def test_few_images_are_read_once_and_compared_up_to_the_first_that_is_not_a_mask(monkeypatch):
    source, config = open_source("scenes?size=16&count=8"), DataConfig(source="scenes?size=16&count=8")
    read, compared = [], []
    get, unique = type(source).__getitem__, np.unique
    monkeypatch.setattr(type(source), "__getitem__", lambda self, i: read.append(i) or get(self, i))
    monkeypatch.setattr(np, "unique", lambda *args, **options: compared.append(1) or unique(*args, **options))
    check_source(source, 3, config)
    assert sorted(read) == list(range(8))
    assert len(compared) == 1
