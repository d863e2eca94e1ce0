"""Unreadable images are named once and counted; too many end the run."""

import logging

import numpy as np
import pytest

from scaling.core.errors import TrainingError
from scaling.data.bad_images import BadImages
from scaling.data.sources.registry import open_source
from tests.data.examples import class_folders, truncate


@pytest.fixture
def source(tmp_path):
    root = class_folders(tmp_path / "set", 10)
    truncate(root / "river" / "003.jpg")
    return open_source(f"folder:{root}")


def batch(skipped: list[int], size: int = 50):
    return {"skipped": np.array(skipped + [-1] * (size - len(skipped)))}


def test_each_bad_image_is_logged_once_with_its_reason(source, caplog):
    bad = BadImages(0.5)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            bad.update(batch([13]), source)
    assert [record.getMessage().split(": ")[1] for record in caplog.records] == ["river/003.jpg"]
    assert "truncated" in caplog.text.lower()
    assert (bad.bad, bad.seen) == (3, 150)


def test_too_many_stop_the_run_with_counts_and_names(source):
    bad = BadImages(0.01)
    bad.update(batch([]), source)
    with pytest.raises(TrainingError, match=r"2 of 100 images are unreadable.*max_bad_share=0\.01.*river/003\.jpg"):
        bad.update(batch([13, 13]), source)


def test_one_bad_image_of_a_few_is_tolerated_and_most_of_them_are_not(source):
    bad = BadImages(0.01)
    for _ in range(3):
        bad.update(batch([13], size=10), source)
    with pytest.raises(TrainingError, match=r"6 of 40 images are unreadable"):
        bad.update(batch([11, 13, 14], size=10), source)


def test_few_bad_images_are_tolerated(source):
    bad = BadImages(0.02)
    for _ in range(10):
        bad.update(batch([13]), source)
    assert bad.seen == 500
