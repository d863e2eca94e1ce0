"""Examples as they are augmented for segmentation and detection: what moves with the pixels, and what does not."""

import dataclasses
import itertools

import numpy as np
import pytest

from scaling.core.errors import UserError
from scaling.data.config import DataConfig, open_sources
from scaling.data.pipeline import train_batches
from tests.data.batches import assert_same, take


def of_segmentation(count=4, **fields):
    """Batches of rendered scenes with masks, cropped as segmentation is trained."""
    config = DataConfig(source="scenes?size=64&count=64&targets=mask", eval_split="test", crop="ratio", **fields)
    source, _ = open_sources(config)
    batches = train_batches(source, config, image_size=32, seed=3, batch_size=16, targets=source.info.targets)
    try:
        return list(itertools.islice(batches, count))
    finally:
        batches.close()


def test_crops_of_segmentation_seldom_show_one_class():
    def most(batches):
        """Share of the most frequent class of every mask."""
        masks = [mask[mask != 255] for batch in batches for mask in batch["mask"]]
        return np.array([np.bincount(mask).max() / mask.size for mask in masks])

    any_class, few = most(of_segmentation(max_class_share=1.0)), most(of_segmentation())
    assert (few >= 0.75).mean() < 0.7 * (any_class >= 0.75).mean()


def test_padding_of_a_crop_of_segmentation_does_not_count():
    for batch in of_segmentation(resize_ratio=(0.25, 0.25), max_class_share=1.0):
        beyond = batch["mask"] == 255
        assert beyond.mean() == 0.75
        assert (batch["image"][beyond] == 0).mean() > 0.9  # but for where the filter reaches the image


def test_brightness_and_colour_change_and_masks_and_crops_do_not():
    for plain, other in zip(of_segmentation(), of_segmentation(photometric="rgb"), strict=True):
        np.testing.assert_array_equal(plain["mask"], other["mask"])
        moved = np.abs(plain["image"].astype(int) - other["image"]).mean((1, 2, 3))
        assert (moved > 3).mean() > 0.5
        assert np.corrcoef(plain["image"].ravel(), other["image"].ravel())[0, 1] > 0.5


def test_augmentation_of_segmentation_is_the_same_whoever_makes_it():
    config = DataConfig(source="scenes?size=40&count=60", threads=2, crop="ratio", photometric="rgb")
    straight = take(5, config)
    assert_same(straight[3:], take(2, config, start=3))
    assert_same(straight, take(5, dataclasses.replace(config, threads=7)))


def test_colours_are_wanted_where_colours_are_changed():
    config = DataConfig(source="scenes:ms?size=16&count=8", photometric="rgb")
    with pytest.raises(UserError, match=r"data.photometric=rgb: .* not 6 bands of uint16; bands is for any bands"):
        take(1, config)
    assert take(1, dataclasses.replace(config, photometric="bands"))[0]["image"].dtype == np.float32


def of_detection(count=2, **fields):
    """Batches of rendered scenes with boxes, cropped and rotated as detection is trained."""
    fields = {"crop": "ratio", **fields}
    fields |= {"source": "scenes?size=64&count=54&targets=boxes", "eval_split": "test"}
    config = DataConfig(**fields, threads=1, prefetch=1)
    source, _ = open_sources(config)
    (boxes,) = source.info.targets
    batches = train_batches(source, config, image_size=48, seed=3, batch_size=18, targets=(boxes,))
    try:
        return list(itertools.islice(batches, count)), boxes.classes
    finally:
        batches.close()


def directions(batch, of):
    """Directions of the first sides of boxes of some classes: distance to the next quarter turn. [n, 4, 2] -> [n]"""
    chosen = np.isin(batch["box_class"], of) & batch["box_valid"]
    x, y = (batch["boxes"][:, :, 1] - batch["boxes"][:, :, 0])[chosen].T
    turns = np.arctan2(y, x) / (np.pi / 2)
    return np.abs(turns - np.rint(turns))


def test_images_with_round_objects_are_rotated_by_quarters_and_others_by_any_angle():
    plain, classes = of_detection(flips="dihedral", resize_ratio=(0.8, 1.2))
    tank, others = [classes.index("storage-tank")], [classes.index("tennis-court"), classes.index("plane")]
    upright = {"flips": "dihedral", "resize_ratio": (0.8, 1.2), "rotate_upright": ("storage-tank",)}
    rotated, _ = of_detection(rotate=1.0, **upright)
    anyhow, _ = of_detection(rotate=1.0, **{**upright, "rotate_upright": ()})
    off = {
        name: np.concatenate([directions(b, tank) for b in found])
        for name, found in (("plain", plain), ("rotated", rotated), ("anyhow", anyhow))
    }
    assert min(map(len, off.values())) > 10
    assert max(off["plain"].max(), off["rotated"].max()) < 1e-3
    assert np.median(off["anyhow"]) > 0.1
    before, after = (np.concatenate([directions(b, others) for b in found]) for found in (plain, rotated))
    assert not np.isin(np.round(after, 4), np.round(before, 4)).all()


def test_rectangles_stay_rectangles_in_crops_of_a_part():
    """Sides at right angles, whatever was cut out: no axis is stretched."""
    batches, _ = of_detection(crop="area", crop_scale=(0.3, 1.0))
    for batch in batches:
        corners = batch["boxes"][batch["box_valid"]]
        first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 1]
        lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
        there = lengths > 9
        assert there.sum() > 20
        cosines = (first * second).sum(1)[there] / lengths[there]
        assert np.abs(cosines).max() < 0.02


def test_a_share_of_the_images_is_rotated_and_the_rest_stays_as_it_was():
    plain, some, again = (of_detection(1, rotate=share)[0] for share in (0.0, 0.5, 0.5))
    assert_same(some, again)
    changed = np.concatenate([(a["image"] != b["image"]).any((1, 2, 3)) for a, b in zip(plain, some, strict=True)])
    assert 0.2 < changed.mean() < 0.8
    for a, b in zip(plain, some, strict=True):
        for key in ("index", "id", "label"):
            np.testing.assert_array_equal(a[key], b[key])


def test_a_class_that_stays_upright_is_one_of_the_boxes():
    with pytest.raises(
        UserError, match=r"data.rotate_upright: unknown class 'storage-tanks'; did you mean storage-tank?"
    ):
        of_detection(rotate=0.5, rotate_upright=("storage-tanks",))
