"""Calibration images come from the pretraining data, unless another source is named."""

import dataclasses

import numpy as np
import pytest

from scaling.core.errors import UserError
from scaling.core.rows import config_hash
from scaling.encoders.splits import read_split
from scaling.studies.slimming.calibrating import calibration_images, check_calibration
from scaling.studies.slimming.cells import SlimmingStudyConfig
from scaling.studies.slimming.datasets import DatasetConfig
from tests.encoders.examples import small_encoder

PRETRAINED_ON = "scenes?size=16&count=96&seed=3"
REPAIR = SlimmingStudyConfig(
    recoveries=("ridge",), datasets={"probed": DatasetConfig("scenes?size=16&count=80")}, calibration=32
)


@pytest.fixture
def encoder():
    e = small_encoder()
    data = dataclasses.replace(e.train.data, source=PRETRAINED_ON, split="train[:80]")
    return dataclasses.replace(e, train=dataclasses.replace(e.train, data=data))


@pytest.fixture
def probed():
    return np.arange(50 * 16 * 16 * 3, dtype=np.float32).reshape(50, 16, 16, 3)


def as_set(images):
    return {image.tobytes() for image in images}


def test_they_are_pretraining_images_by_default_and_others_for_every_seed(encoder, probed):
    there = np.concatenate([images for images, _ in read_split(encoder, PRETRAINED_ON, "train[:80]")])
    first, second = (calibration_images(encoder, REPAIR, probed, seed) for seed in (0, 1))
    assert len(as_set(first)) == len(as_set(second)) == 32
    assert as_set(first) | as_set(second) <= as_set(there)
    assert not as_set(first) & as_set(second)
    np.testing.assert_array_equal(first, calibration_images(encoder, REPAIR, probed, 0))


def test_they_can_be_of_another_source_or_of_the_probed_set(encoder, probed):
    other = dataclasses.replace(REPAIR, calibration_source="scenes?size=16&count=96&seed=9", calibration_split="test")
    there = np.concatenate([images for images, _ in read_split(encoder, other.calibration_source, "test")])
    assert as_set(calibration_images(encoder, other, probed, 0)) <= as_set(there)
    mine = calibration_images(encoder, dataclasses.replace(REPAIR, calibration_source="probed"), probed, 1)
    chosen = np.sort(np.random.default_rng(1).permutation(50)[:32])  # as in the first studies
    np.testing.assert_array_equal(mine, probed[chosen])
    assert calibration_images(encoder, dataclasses.replace(REPAIR, calibration=0), probed, 0) is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"calibration": 81}, r"^calibration_source=pretraining: scenes.*, split train\[:80\], has 80 images, but"),
        ({"calibration_source": "folder:nowhere"}, r"^calibration_source=folder:nowhere: .*nowhere.*; give the spec"),
    ],
)
def test_a_source_that_does_not_do_is_found_before_anything_is_measured(encoder, fields, message):
    with pytest.raises(UserError, match=message):
        check_calibration(encoder, dataclasses.replace(REPAIR, **fields))


def test_a_study_that_calibrates_nothing_asks_for_no_source(encoder):
    plain = dataclasses.replace(REPAIR, recoveries=("none",), calibration_source="")
    assert plain.calibration_source == ""
    gone = dataclasses.replace(encoder.train.data, source="folder:nowhere")
    check_calibration(dataclasses.replace(encoder, train=dataclasses.replace(encoder.train, data=gone)), plain)


def test_only_a_study_whose_calibration_changed_has_another_hash():
    hashed = lambda c: config_hash(dataclasses.asdict(c))  # noqa: E731
    at_first = {k: v for k, v in dataclasses.asdict(REPAIR).items() if not k.startswith("calibration_")}
    assert hashed(dataclasses.replace(REPAIR, calibration_source="probed")) == config_hash(at_first)
    assert REPAIR.calibration_source == "pretraining"
    assert hashed(REPAIR) != config_hash(at_first)
