"""Folders of images as they were downloaded."""

import zipfile

import imagecodecs
import numpy as np
import pytest

from scaling.core.errors import UserError
from scaling.data.images import CorruptImage
from scaling.data.sources.registry import open_source
from tests.data.examples import class_folders, jpeg, smooth, truncate


def names(source):
    return [source.name(i) for i in range(len(source))]


def test_leaf_folders_at_any_depth_are_the_classes(tmp_path):
    class_folders(tmp_path / "natural", 2, ("river", "forest"))
    class_folders(tmp_path / "built" / "transport", 1, ("runway",))
    (tmp_path / "natural" / "river" / "readme.txt").write_text("no image")
    (tmp_path / "natural" / "river" / "UPPER.JPEG").write_bytes(jpeg(smooth(9)))
    source = open_source(f"folder:{tmp_path}")
    assert source.info.classes == ("forest", "river", "runway")
    assert names(source) == [
        "built/transport/runway/000.jpg",
        "natural/forest/000.jpg",
        "natural/forest/001.jpg",
        "natural/river/000.jpg",
        "natural/river/001.jpg",
        "natural/river/UPPER.JPEG",
    ]
    assert [source[i]["label"] for i in range(6)] == [2, 0, 0, 1, 1, 1]


def test_formats_may_be_mixed_and_arrays_beside_pictures_are_not_images(tmp_path, caplog):
    image = smooth(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "0.jp2").write_bytes(imagecodecs.jpeg2k_encode(image, level=0, reversible=True))
    (tmp_path / "a" / "1.webp").write_bytes(imagecodecs.webp_encode(image, lossless=True))
    (tmp_path / "a" / "2.BMP").write_bytes(imagecodecs.bmp_encode(image))
    np.save(tmp_path / "a" / "features.npy", np.zeros((5, 7)))
    np.save(tmp_path / "b" / "3.npy", image)
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for file in sorted(tmp_path.glob("?/*")):
            archive.write(file, file.relative_to(tmp_path))
    for spec in (f"folder:{tmp_path}", f"zip:{tmp_path}/images.zip"):
        caplog.clear()
        source = open_source(spec)
        assert names(source) == ["a/0.jp2", "a/1.webp", "a/2.BMP", "b/3.npy"]
        for i in range(4):
            np.testing.assert_array_equal(source[i]["image"], image)
        assert [record.getMessage() for record in caplog.records] == [
            f"{spec}: arrays beside pictures are not read as images, first a/features.npy"
        ]


def test_flat_folder_has_no_labels(tmp_path):
    (tmp_path / "größe.jpg").write_bytes(jpeg(smooth(0)))
    source = open_source(f"folder:{tmp_path}")
    assert (names(source), source.info.classes, source[0]["label"]) == (["größe.jpg"], (), -1)


def test_split_folders_share_their_classes(tmp_path):
    class_folders(tmp_path / "train", 2, ("a", "b", "c"))
    class_folders(tmp_path / "val", 1, ("b", "c"))
    (tmp_path / "test" / "test").mkdir(parents=True)  # as MillionAID has it
    (tmp_path / "test" / "test" / "P1.jpg").write_bytes(jpeg(smooth(0)))
    train, validation, test = (open_source(f"folder:{tmp_path}", split) for split in ("train", "validation", "test"))
    assert train.info.classes == validation.info.classes == test.info.classes == ("a", "b", "c")
    assert (len(train), len(validation), len(test)) == (6, 2, 1)
    assert [validation[i]["label"] for i in range(2)] == [1, 2]
    assert test[0]["label"] == -1


def test_unknown_split_lists_what_there_is(tmp_path):
    class_folders(tmp_path / "with" / "train", 1)
    class_folders(tmp_path / "with" / "test", 1)
    class_folders(tmp_path / "without", 1)
    with pytest.raises(UserError, match="no split 'validation'; there is test, train"):
        open_source(f"folder:{tmp_path / 'with'}", "validation")
    with pytest.raises(UserError, match="no split 'test'; there is only train"):
        open_source(f"folder:{tmp_path / 'without'}", "test")


def test_empty_folder(tmp_path):
    with pytest.raises(UserError, match="no images"):
        open_source(f"folder:{tmp_path}")


def test_unreadable_files_are_named(tmp_path):
    class_folders(tmp_path, 2)
    source = open_source(f"folder:{tmp_path}")
    truncate(tmp_path / "river" / "001.jpg")
    (tmp_path / "river" / "000.jpg").unlink()
    for index, name in ((2, "river/000.jpg"), (3, "river/001.jpg")):
        with pytest.raises(CorruptImage, match=name):
            source[index]
