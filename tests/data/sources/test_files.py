"""Folders and archives as they were downloaded."""

import csv
import io
import pickle
import struct
import zipfile

import imagecodecs
import numpy as np
import pytest

from scaling.core.errors import UserError
from scaling.data.images import CorruptImage
from scaling.data.sources.files import _check_count
from scaling.data.sources.registry import open_source
from tests.data.examples import class_folders, jpeg, png, shared, smooth, truncate


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


@pytest.fixture
def archive(tmp_path):
    folders = class_folders(tmp_path / "images", 4)
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as packed:
        for i, file in enumerate(sorted(folders.rglob("*.jpg"))):
            method = zipfile.ZIP_DEFLATED if i % 2 else zipfile.ZIP_STORED
            packed.write(file, str(file.relative_to(folders)), compress_type=method)
    return tmp_path / "images.zip"


def test_archive_reads_as_the_folder_it_was_made_from(archive):
    packed, folder = open_source(f"zip:{archive}"), open_source(f"folder:{archive.with_suffix('')}")
    assert packed.info.classes == folder.info.classes
    assert names(packed) == names(folder)
    for i in range(len(folder)):
        np.testing.assert_array_equal(packed[i]["image"], folder[i]["image"])
        assert packed[i]["label"] == folder[i]["label"]


def test_table_beside_the_archive_decides(archive):
    archive.with_name("labels.csv").write_text(
        "name,label,split\nriver/001.jpg,wet,test\nforest/000.jpg,dry,train\nriver/000.jpg,wet,train\nforest/001.jpg,,train\n"
    )
    train, test = open_source(f"zip:{archive}"), open_source(f"zip:{archive}", "test")
    assert train.info.classes == test.info.classes == ("dry", "wet")
    assert names(train) == ["forest/000.jpg", "river/000.jpg", "forest/001.jpg"]
    assert names(test) == ["river/001.jpg"]
    assert [train[i]["label"] for i in range(3)] == [0, 1, -1]
    with pytest.raises(UserError, match="no split 'val'; there is test, train"):
        open_source(f"zip:{archive}", "val")


def test_another_table_chooses_other_images(archive, tmp_path):
    archive.with_name("labels.csv").write_text("name,label\nriver/000.jpg,wet\nforest/000.jpg,dry\n")
    table = tmp_path / "few.csv"
    table.write_text("name,label\nriver/001.jpg,water\n")
    source = open_source(f"zip:{archive}?labels={table}")
    assert names(source) == ["river/001.jpg"]
    assert source.info.classes == ("water",)
    with pytest.raises(UserError, match="no such table"):
        open_source(f"zip:{archive}?labels={tmp_path / 'none.csv'}")


@pytest.mark.parametrize(
    ("table", "message"),
    [("file,label\na,b\n", "no column name; it has file, label"), ("name,label\nx.jpg,b\n", "not in .*'x.jpg'")],
)
def test_table_that_does_not_fit(archive, table, message):
    archive.with_name("labels.csv").write_text(table)
    with pytest.raises(UserError, match=message):
        open_source(f"zip:{archive}")


def test_damage_inside_an_archive_is_found_by_its_checksum(archive):
    data = bytearray(archive.read_bytes())
    source = open_source(f"zip:{archive}")
    with zipfile.ZipFile(archive) as packed:
        data[packed.getinfo("forest/000.jpg").header_offset + 200] ^= 255
    archive.write_bytes(data)
    with pytest.raises(CorruptImage, match=r"forest/000\.jpg.*checksum"):
        source[0]
    assert source[1]["image"].shape == (40, 48, 3)


def test_half_downloaded_archive(archive):
    truncate(archive)
    with pytest.raises(UserError, match="is the download complete"):
        open_source(f"zip:{archive}")


@pytest.mark.parametrize("other", [b"a/2.png", b"./.png.", b".a1.png"])
def test_an_image_that_the_directory_gives_another_name_is_not_left_out_in_silence(tmp_path, other):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as packed:
        for i in range(3):
            packed.writestr(f"a/{i}.png", png(smooth(i)))
    data = (tmp_path / "set.zip").read_bytes()
    before, _, after = data.rpartition(b"a/1.png")
    (tmp_path / "set.zip").write_bytes(before + other + after)
    with pytest.raises(UserError, match="has two names; is the download complete"):
        open_source(f"zip:{tmp_path}/set.zip")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_image_packed_again_takes_the_place_of_the_first(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as packed:
        for i in (0, 1, 2):
            packed.writestr(f"a/{i % 2}.png", png(smooth(i)))
    source = open_source(f"zip:{tmp_path}/set.zip")
    assert names(source) == ["a/0.png", "a/1.png"]
    np.testing.assert_array_equal(source[0]["image"], smooth(2))


def test_a_count_of_entries_may_be_kept_in_16_bits_alone():
    end = io.BytesIO(b"PK\5\6" + struct.pack("<4H2IH", 0, 0, 4, 4, 0, 0, 0))
    _check_count(end, 4)
    _check_count(end, 65_540)  # as by the archiver of macOS
    with pytest.raises(zipfile.BadZipFile, match="its directory has 65,541 of 4 entries"):
        _check_count(end, 65_541)


def test_real_archive():
    file = shared("hurricane/images.zip")
    with open(file.with_name("labels.csv"), newline="") as table:
        rows = [row for row in csv.DictReader(table) if row["split"] == "test"]
    source = pickle.loads(pickle.dumps(open_source(f"zip:{file}", "test")))
    assert names(source) == [row["name"] for row in rows]
    assert source[7]["image"].shape == (128, 128, 3)
    assert source.info.classes[source[7]["label"]] == rows[7]["label"]
