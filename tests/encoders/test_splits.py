"""Labelled images of a split, in a fixed order, as the encoder takes them."""

import functools
import logging

import numpy as np
import pytest

from scaling.core.errors import UserError
from scaling.data.config import DataConfig
from scaling.encoders.splits import Split, labelled_features, read_split
from tests.data.examples import class_folders, truncate
from tests.data.sources import test_geobench, test_tfds
from tests.encoders.examples import blank_encoder, small_encoder

SCENES = "scenes?size=16&count=40"


@pytest.fixture(scope="module")
def encoder():
    return blank_encoder()


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
    assert "river/003.jpg: " in caplog.text
    assert "truncated" in caplog.text.lower()


def test_of_an_image_that_does_not_fit_the_others_it_is_said_how(encoder, tmp_path, caplog):
    for i, image in enumerate([np.full((16, 16, 3), 90, np.uint8)] * 5 + [np.ones((16, 16, 3), np.float32)]):
        np.save(tmp_path / f"{i}.npy", image)
    with caplog.at_level(logging.WARNING):
        assert len(read(encoder, f"folder:{tmp_path}", "train")[0]) == 5
    said = "skipped an unreadable image: 5.npy: has 3 bands of float32, the others 3 bands of uint8"
    assert said in [record.getMessage() for record in caplog.records]


def test_the_image_with_too_many_bands_is_named(encoder, tmp_path):
    np.save(tmp_path / "odd.npy", np.zeros((3, 16, 16), np.uint8))
    np.save(tmp_path / "sound.npy", np.full((16, 16, 3), 90, np.uint8))
    message = (
        r"has 16 bands, but the model takes 3.* \(odd.npy is of 3 x 16 pixels of 16 bands; were the bands the first "
        "axis"
    )
    with pytest.raises(UserError, match=message):
        read(encoder, f"folder:{tmp_path}", "train")


FUNCTIONS = {"features": lambda images: images.reshape(len(images), -1)}


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({}, "give images in the units of the training data$"),
        ({"own": "--normalise=source"}, "in the units of the training data, or --normalise=source"),
    ],
)
def test_whole_numbers_beyond_the_eight_bits_of_the_training_are_refused(encoder, options, advice):
    units = "pixels up to .*, of mean .*: the training had 8 bits .*, of mean 100: these are other units"
    with pytest.raises(UserError, match=f"^scenes:ms.size=16&count=300, split test: {units} .*{advice}"):
        labelled_features(encoder, "scenes:ms?size=16&count=300", "test", FUNCTIONS, bands=(0, 1, 2), **options)


def test_statistics_that_are_not_of_the_images_are_said_once(encoder, caplog):
    own = {"statistics": ((9.0,) * 3, (2.0,) * 3)}
    with caplog.at_level(logging.WARNING):
        labelled_features(encoder, "scenes:ms?size=16&count=300", "test", FUNCTIONS, bands=(0, 1, 2), **own)
    (said,) = [record.getMessage() for record in caplog.records if "about 0 and 1" in record.getMessage()]
    assert said.startswith("scenes:ms?size=16&count=300, split test: normalised, the images are of mean ")
    assert "mean and std are not of these pixels, whose mean is" in said


def test_eight_bits_for_an_encoder_of_reflectances_are_said_once(caplog):
    encoder = blank_encoder(DataConfig(mean=(2200.0,) * 3, std=(1900.0,) * 3))
    with caplog.at_level(logging.WARNING):
        read(encoder, "scenes?size=16&count=300", "test")
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("scenes?size=16&count=300, split test: pixels from ")
    assert said.endswith("; if they are, give images in the units of the training data")


@pytest.mark.parametrize(
    ("options", "advice"),
    [({}, "images that are normalised already, as .npy"), ({"own": "--normalise=source"}, "--normalise=source")],
)
def test_without_the_normalisation_of_the_training_a_source_is_not_opened(options, advice):
    encoder = blank_encoder(DataConfig())
    with pytest.raises(UserError, match=f"the checkpoint does not say how its images are normalised; give {advice}$"):
        Split(encoder, SCENES, "test", **options)


def test_nothing_is_said_of_images_in_the_units_of_the_training(encoder, caplog):
    with caplog.at_level(logging.WARNING):
        read(encoder)
    assert not caplog.records


def flat(images):
    return images.reshape(len(images), -1)


def test_features_by_every_function_and_labels_belong_together():
    encoder = small_encoder()
    functions = {"encoded": functools.partial(encoder.features, normalised=True), "pixels": flat}
    features, labels = labelled_features(encoder, SCENES, "test", functions, limit=20)
    images, expected = read(encoder, limit=20)
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(features["pixels"], flat(images))
    np.testing.assert_allclose(features["encoded"], encoder.features(images, normalised=True), atol=1e-5)


def test_every_image_is_read_once_for_all_functions(encoder):
    seen = {name: [] for name in "ab"}
    functions = {name: lambda images, name=name: seen[name].append(images) or flat(images) for name in seen}
    labelled_features(encoder, SCENES, "test", functions, limit=20)
    assert all(one is other for one, other in zip(*seen.values(), strict=True))


def test_a_source_without_labels_cannot_be_probed(encoder, tmp_path):
    unnamed = class_folders(tmp_path / "set", 4, classes=("",))
    with pytest.raises(UserError, match=r"folder:.*, split train: 4 of 4 images have no label, first 000.jpg"):
        labelled_features(encoder, f"folder:{unnamed}", "train", {"pixels": flat})


def test_a_source_of_one_class_cannot_be_probed(encoder, tmp_path):
    root = class_folders(tmp_path / "set", 4, classes=("only",))
    with pytest.raises(UserError, match="all 4 images have the same class; a score needs at least two classes"):
        labelled_features(encoder, f"folder:{root}", "train", {"pixels": flat})


def test_a_source_without_a_readable_image_cannot_be_probed(encoder, tmp_path):
    root = class_folders(tmp_path / "set", 1)
    for file in root.rglob("*.jpg"):
        truncate(file)
    with pytest.raises(UserError, match="no readable image"):
        labelled_features(encoder, f"folder:{root}", "train", {"pixels": flat})


def test_rows_with_several_labels(tmp_path):
    encoder = blank_encoder(DataConfig(mean=(900.0,) * 2, std=(500.0,) * 2), bands=2)
    folder = test_geobench.multi_label_set(tmp_path)
    images, labels = read(encoder, f"geobench:{folder}?bands=B04,B08", "test")
    assert images.shape == (4, 16, 16, 2)
    assert labels.shape == (4, 43)
    assert set(np.unique(labels)) == {0, 1}


def test_slices_of_a_folder_are_disjoint_cover_it_and_mix_its_classes(encoder, tmp_path):
    # as EuroSAT, UC Merced and RESISC45 are downloaded: one split, listed class by class
    source = f"folder:{class_folders(tmp_path / 'set', 20)}"
    parts = [read(encoder, source, split) for split in ("train[:75%]", "train[75%:]", "train")]
    (first, one), (rest, other), (whole, labels) = parts
    assert (len(first), len(rest), len(whole)) == (30, 10, 40)
    assert min(np.bincount(one, minlength=2)) >= 10
    assert min(np.bincount(other, minlength=2)) >= 2
    both = np.concatenate([first, rest])
    assert sorted(map(np.sum, both)) == pytest.approx(sorted(map(np.sum, whole)))
    np.testing.assert_array_equal(np.bincount([*one, *other]), np.bincount(labels))
    with pytest.raises(UserError, match=r"split 'train\[40:\]' is empty; train has 40 images"):
        read(encoder, source, "train[40:]")


def test_a_part_of_a_split_with_several_labels(tmp_path):
    folder = test_geobench.multi_label_set(tmp_path)
    _, labels = read(
        blank_encoder(DataConfig(mean=(900.0,), std=(500.0,)), bands=1), f"geobench:{folder}?bands=B04", "test[:3]"
    )
    assert labels.shape == (3, 43)


def test_slices_of_a_tfds_split_are_disjoint_and_cover_it(encoder, tmp_path):
    source = test_tfds.write_colours(tmp_path)
    whole, first, rest = (read(encoder, source, split)[0] for split in ("train", "train[:60%]", "train[60%:]"))
    assert (len(whole), len(first), len(rest)) == (5, 3, 2)
    both = np.concatenate([first, rest])
    assert sorted(map(np.sum, both)) == pytest.approx(sorted(map(np.sum, whole)))


def test_bands_of_the_training_are_indices_into_its_own_source_only(tmp_path):
    # trained on bands 2, 1, 0 of one source; another, of which three bands are chosen by name, keeps their order
    trained = DataConfig(source="scenes:ms?size=16&count=8", bands=(2, 1, 0), mean=(0,) * 3, std=(1,) * 3)
    encoder = blank_encoder(data=trained)
    folder = test_geobench.multi_label_set(tmp_path)
    by_name = read(encoder, f"geobench:{folder}?bands=B02,B03,B04", "test")[0]
    by_index = read(encoder, f"geobench:{folder}", "test", bands=(1, 2, 3))[0]
    np.testing.assert_array_equal(by_name, by_index)
    same = read(encoder, trained.source, "test")[0]
    np.testing.assert_array_equal(same, read(encoder, trained.source, "test", bands=(2, 1, 0))[0])


def test_a_source_in_other_units_is_normalised_by_its_own_statistics(encoder):
    images, _ = read(encoder, statistics=((10.0, 20.0, 30.0), (1.0, 2.0, 4.0)))
    plain, _ = read(encoder, statistics=((0.0,) * 3, (1.0,) * 3))
    np.testing.assert_allclose(images, (plain - [10, 20, 30]) / [1, 2, 4], rtol=1e-5, atol=1e-4)


def test_a_source_with_other_bands_is_refused(encoder):
    with pytest.raises(UserError, match="but the model takes 3"):
        read(encoder, "scenes:ms?size=16&count=8")
