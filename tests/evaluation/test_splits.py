"""Labelled images of a split, in a fixed order, as the encoder takes them."""

import logging

import numpy as np
import pytest

from scaling.errors import UserError
from scaling.evaluation.encoder import load_encoder
from scaling.evaluation.splits import labelled_features, read_split
from tests.data.examples import class_folders, truncate

SCENES = "scenes?size=16&count=40"


@pytest.fixture(scope="module")
def encoder(straight):
    return load_encoder(straight[0])


def read(encoder, source=SCENES, split="test", **options):
    images, labels = zip(*read_split(encoder, source, split, **options), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def test_every_image_comes_once_normalised_and_with_its_label(encoder):
    images, labels = read(encoder, batch_size=16)
    assert images.shape == (40, 16, 16, 3)
    assert np.bincount(labels, minlength=8).min() >= 3  # the scenes take turns in their classes
    assert abs(images.mean()) < 1
    assert 0.3 < images.std() < 2


def test_the_order_is_fixed_and_does_not_depend_on_the_batches(encoder):
    for a, b in zip(read(encoder), read(encoder, batch_size=7), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_limit_draws_from_the_whole_split(encoder):
    images, labels = read(encoder, limit=24)
    assert len(images) == 24
    assert len(set(labels)) >= 6


def test_splits_differ(encoder):
    assert not np.array_equal(read(encoder, split="train")[0], read(encoder, split="test")[0])


def test_unreadable_images_are_left_out_and_named(encoder, tmp_path, caplog):
    root = class_folders(tmp_path / "set", 6)
    truncate(root / "river" / "003.jpg")
    with caplog.at_level(logging.WARNING):
        images, labels = read(encoder, f"folder:{root}", "train")
    assert (len(images), sorted(labels)) == (11, [0] * 6 + [1] * 5)
    assert "river/003.jpg" in caplog.text


def test_features_pixels_and_labels_belong_together(encoder):
    features, pixels, labels = labelled_features(encoder, SCENES, "test", limit=20)
    images, expected = read(encoder, limit=20)
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(pixels, images.reshape(20, -1))
    np.testing.assert_allclose(features, encoder.features(images), atol=1e-5)


def test_a_source_without_labels_cannot_be_probed(encoder, tmp_path):
    flat = class_folders(tmp_path / "set", 4, classes=("",))
    with pytest.raises(UserError, match="has no labels to probe with"):
        labelled_features(encoder, f"folder:{flat}", "train")


def test_a_source_with_other_bands_is_refused(encoder):
    with pytest.raises(UserError, match="the model takes 3"):
        read(encoder, "scenes:ms?size=16&count=8")
