"""Splits and classes of folders in common layouts; an archive of them reads the same."""

import os
import zipfile

import pytest

from scaling.core.errors import UserError
from scaling.data.sources.registry import open_source
from tests.data.examples import jpeg, smooth

IMAGE = jpeg(smooth(0, 8, 8))


@pytest.fixture(params=["folder", "zip"])
def made(request, tmp_path):
    """Writes one image into each of the folders; returns the spec."""

    def make(*folders):
        files = [f"{folder}/{i}.jpg" if folder else f"{i}.jpg" for i, folder in enumerate(folders)]
        if request.param == "zip":
            with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
                for file in files:
                    archive.writestr(file, IMAGE)
            return f"zip:{tmp_path}/images.zip"
        for file in files:
            (tmp_path / "images" / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "images" / file).write_bytes(IMAGE)
        return f"folder:{tmp_path}/images"

    return make


def classes(spec, split="train"):
    """The class of every image, by its folder."""
    source = open_source(spec, split)
    names = (*source.info.classes, None)
    return {source.name(i).rpartition("/")[0]: names[source[i]["label"]] for i in range(len(source))}


def test_a_class_that_has_the_name_of_a_split(made):
    spec = made("airplane", "ship", "train")
    assert classes(spec) == {"airplane": "airplane", "ship": "ship", "train": "train"}


def test_a_class_below_a_split_that_has_the_name_of_a_split(made):
    spec = made("train/ship", "train/train", "test/train", "test/ship")
    assert classes(spec) == {"train/ship": "ship", "train/train": "train"}
    assert classes(spec, "test") == {"test/ship": "ship", "test/train": "train"}


def test_a_single_class_of_a_split_that_has_the_name_of_a_split(made):
    spec = made("train/ship", "train/train", "test/train")
    assert classes(spec, "test") == {"test/train": "train"}


@pytest.mark.parametrize("others", [("extras",), ("extras/a", "extras/b"), ("test", "ship")])
def test_splits_beside_other_folders_are_refused(made, others):
    spec = made("train/ship" if "ship" not in others else "train", *others)
    with pytest.raises(
        UserError, match=r"train look like splits, and the images in (extras|ship) beside them would be left out"
    ):
        open_source(spec)


def test_both_spellings_of_a_split_are_that_split(made):
    spec = made("train/a", "val/a", "Validation/b")
    assert classes(spec, "validation") == {"Validation/b": "b", "val/a": "a"}


@pytest.mark.parametrize("around", ["set", "set/images", "my set/v1.0"])
def test_folders_around_the_splits(made, around):
    spec = made(f"{around}/train/ship", f"{around}/train/car", f"{around}/test/ship")
    assert classes(spec) == {f"{around}/train/car": "car", f"{around}/train/ship": "ship"}
    assert classes(spec, "test") == {f"{around}/test/ship": "ship"}
    with pytest.raises(UserError, match="no split 'validation'; there is test, train"):
        open_source(spec, "validation")


def test_images_beside_the_splits_are_left_out_with_a_warning(made, caplog):
    spec = made("", "train/a", "test/a")
    assert classes(spec) == {"train/a": "a"}
    assert "left out, first 0.jpg" in caplog.text


def test_a_folder_around_the_classes_is_no_class(made):
    assert classes(made("set/ship", "set/car")) == {"set/car": "car", "set/ship": "ship"}


def test_equal_names_in_different_places_are_different_classes(made):
    spec = made("church/indoor", "shop/indoor", "shop/outdoor", "forest")
    assert classes(spec) == {
        "church/indoor": "church/indoor",
        "shop/indoor": "shop/indoor",
        "shop/outdoor": "outdoor",
        "forest": "forest",
    }


def test_equal_names_are_told_apart_in_every_split(made):
    spec = made("train/church/indoor", "train/shop/indoor", "train/forest", "test/shop/indoor")
    assert open_source(spec, "test").info.classes == ("church/indoor", "forest", "shop/indoor")
    assert classes(spec, "test") == {"test/shop/indoor": "shop/indoor"}


def test_one_name_below_all_classes_is_left_out(made):
    spec = made("train/n01/images", "train/n02/images", "val/images")  # as Tiny ImageNet has it
    assert classes(spec) == {"train/n01/images": "n01", "train/n02/images": "n02"}
    assert classes(spec, "validation") == {"val/images": None}
    assert open_source(spec).info.classes == ("n01", "n02")


@pytest.mark.parametrize("test", ["test/images", "test/all/images", "test"])
def test_a_folder_below_the_classes_of_one_split_only_is_left_out(made, test):
    spec = made("train/n01/images", "train/n02/images", "val/n01", "val/n02", test)  # Tiny ImageNet, val put in order
    assert classes(spec) == {"train/n01/images": "n01", "train/n02/images": "n02"}
    assert classes(spec, "val") == {"val/n01": "n01", "val/n02": "n02"}
    assert classes(spec, "test") == {test: None}


def test_a_class_inside_others_stays_a_class(made):
    spec = made("train/church/indoor", "train/shop/indoor", "val/church/indoor", "val/church/outdoor")
    assert open_source(spec).info.classes == ("church/indoor", "outdoor", "shop/indoor")


@pytest.mark.parametrize("lone", ["test/images", "test/batch 1", "test/images/all", "test/test"])
def test_a_lone_folder_of_a_split_is_no_class_of_its_own(made, lone):
    spec = made("train/a", "train/b", "val/a", "val/b", lone)
    assert open_source(spec).info.classes == ("a", "b")
    assert classes(spec, "test") == {lone: None}


def test_a_lone_folder_that_is_a_class_elsewhere_is_that_class(made):
    assert classes(made("train/a", "train/b", "test/b"), "test") == {"test/b": "b"}


def test_lone_folders_of_all_splits_are_classes(made):
    assert open_source(made("train/one", "test/other")).info.classes == ("one", "other")


def test_split_names_below_classes_are_said(made, caplog):
    spec = made("ship/train", "ship/test", "car/train", "car/test")
    assert len(classes(spec)) == 4
    assert "test, train are below other folders" in caplog.text


def test_a_single_split_says_how_to_take_parts(made):
    spec = made("ship", "car")
    with pytest.raises(UserError) as error:
        open_source(spec, "test")
    assert "only train; parts of it are written train[:80%] and train[80%:]" in str(error.value)


def test_names_that_are_not_utf8(tmp_path):
    folder = os.fsencode(tmp_path) + b"/gr\xfcn"
    os.mkdir(folder)
    for name in (b"stra\xdfe.jpg", b"broken\xff.jpg"):
        with open(folder + b"/" + name, "wb") as file:
            file.write(IMAGE if name.startswith(b"s") else b"")
    source = open_source(f"folder:{tmp_path}")
    assert source.info.classes == (r"gr\xfcn",)
    assert [source.name(i) for i in range(2)] == [r"gr\xfcn/broken\xff.jpg", r"gr\xfcn/stra\xdfe.jpg"]
    assert source[1]["image"].shape == (8, 8, 3)
    assert source.state(1) != b""


def test_names_in_an_archive_that_does_not_say_how_they_are_encoded(tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("größe.jpg", IMAGE)
    data = (tmp_path / "images.zip").read_bytes()
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.index(signature) + flags
        data = data[:place] + b"\0\0" + data[place + 2 :]
    (tmp_path / "images.zip").write_bytes(data)
    (tmp_path / "labels.csv").write_text("name,label\ngröße.jpg,a\n")
    source = open_source(f"zip:{tmp_path}/images.zip")
    assert (source.name(0), source[0]["label"]) == ("größe.jpg", 0)
    (tmp_path / "labels.csv").unlink()
    assert open_source(f"zip:{tmp_path}/images.zip").name(0) == "größe.jpg"


def test_names_that_end_lines_are_one_line(tmp_path):
    (tmp_path / "a\nb").mkdir()
    (tmp_path / "a\nb" / "1\r2.jpg").write_bytes(IMAGE)
    source = open_source(f"folder:{tmp_path}")
    assert (source.name(0), source.info.classes) == (r"a\nb/1\r2.jpg", (r"a\nb",))
    assert source[0]["image"].shape == (8, 8, 3)


def test_hidden_entries_of_an_archive_are_left_out_as_on_disk(tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for name in ("set/train/a/1.jpg", "set/test/a/1.jpg", "set/train/a/._1.jpg", "set/.thumbs/1.jpg"):
            archive.writestr(name, IMAGE)
    assert classes(f"zip:{tmp_path}/images.zip") == {"set/train/a": "a"}
    assert len(open_source(f"zip:{tmp_path}/images.zip", "train+test")) == 2


@pytest.mark.parametrize("system", [0, 3])
def test_an_archive_that_separates_folders_as_windows_does(tmp_path, system):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for name in (r"train\a\1.jpg", r"train\b\2.jpg", r"test\b\3.jpg"):
            entry = zipfile.ZipInfo(name)
            entry.create_system = system
            archive.writestr(entry, IMAGE)
    spec = f"zip:{tmp_path}/images.zip"
    assert classes(spec) == {"train/a": "a", "train/b": "b"}
    assert classes(spec, "test") == {"test/b": "b"}
    (tmp_path / "labels.csv").write_text("name,label\ntrain\\a\\1.jpg,x\ntest/b/3.jpg,y\n")
    assert classes(spec) == {"train/a": "x", "test/b": "y"}


def test_links_are_followed_but_not_in_circles(tmp_path):
    root, elsewhere = tmp_path / "images", tmp_path / "elsewhere"
    for folder in (root / "ship", root / "car", elsewhere / "tree"):
        folder.mkdir(parents=True)
        (folder / "1.jpg").write_bytes(IMAGE)
    (root / "ship" / "up").symlink_to(root)
    (root / "ship" / "here").symlink_to(".")
    (root / "car" / "further_up").symlink_to(tmp_path)
    (root / "car" / "itself").symlink_to("itself")
    (root / "car" / "ships").symlink_to(root / "ship")
    (root / "linked").symlink_to(elsewhere / "tree")
    (root / "car" / "2.jpg").symlink_to(root / "ship" / "1.jpg")
    source = open_source(f"folder:{root}")
    found = [source.name(i) for i in range(len(source))]
    assert found == ["car/1.jpg", "car/2.jpg", "car/ships/1.jpg", "linked/1.jpg", "ship/1.jpg"]


@pytest.fixture
def table(tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for name in ("grün.jpg", "b.jpg", "c.jpg"):
            archive.writestr(name, IMAGE)
    return tmp_path / "labels.csv"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tables_in_every_encoding(table, encoding, end):
    table.write_bytes(end.join(["name,label", "grün.jpg,Grün", "b.jpg,", ""]).encode(encoding))
    source = open_source(f"zip:{table.with_name('images.zip')}")
    assert source.info.classes == ("Grün",)
    assert source.labels.tolist() == [0, -1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("b.jpg,x,train\nc.jpg\n", "row 3 does not fit the columns name, label, split"),
        ("b.jpg,x,train\nc.jpg,y,train,7\n", "row 3 does not fit"),
        ("b.jpg,x,train\nc.jpg,y,train\nb.jpg,z,train\n", "row 4: 'b.jpg' stands in split train already"),
        ("b.jpg,x,train\nb.jpg,x,train\n", "row 3: 'b.jpg' stands in split train already"),
    ],
)
def test_rows_that_do_not_fit_are_named(table, rows, message):
    table.write_text(f"name,label,split\n{rows}")
    with pytest.raises(UserError) as error:
        open_source(f"zip:{table.with_name('images.zip')}")
    assert message in str(error.value)


def test_an_image_may_be_in_several_splits(table):
    table.write_text("name,label,split\nb.jpg,x,train\nc.jpg,y,train\nb.jpg,x,few\n")
    assert len(open_source(f"zip:{table.with_name('images.zip')}", "few")) == 1
