"""Archives of images as they were downloaded, and tables of their labels."""

import csv
import io
import pickle
import struct
import zipfile

import numpy as np
import pytest

from scaling.core.errors import UserError
from scaling.data.images import CorruptImage
from scaling.data.sources.archives import _check_count
from scaling.data.sources.registry import open_source
from tests.data.examples import class_folders, png, shared, smooth, truncate


def names(source):
    return [source.name(i) for i in range(len(source))]


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
