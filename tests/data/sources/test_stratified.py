"""Parts of every class, by the names of the images alone."""

import hashlib
import shutil

import numpy as np
import pytest

from scaling.core.errors import UserError
from scaling.data.config import DataConfig, check_source
from scaling.data.prepare import Preparation, convert
from scaling.data.sources import arrayrecord
from scaling.data.sources.arrayrecord import unpack
from scaling.data.sources.default_splits import default_splits
from scaling.data.sources.registry import open_source
from tests.data.examples import class_folders, jpeg, smooth

LEARNED, SCORED = "train[:80%,stratified]", "train[80%:,stratified]"
COUNTS = {"airport": 1, "beach": 2, "crop": 3, "forest": 12, "river": 25}


def uneven(root):
    for name, count in COUNTS.items():
        class_folders(root, count, (name,))
    return f"folder:{root}"


def names(spec, split):
    source = open_source(spec, split)
    return {source.name(i) for i in range(len(source))}


def test_every_class_is_in_both_parts_and_every_image_in_one(tmp_path, caplog):
    spec = uneven(tmp_path)
    with caplog.at_level("INFO", logger="scaling"):
        assert default_splits(spec, "train", "test") == (LEARNED, SCORED)
    learned, scored = names(spec, LEARNED), names(spec, SCORED)
    assert not learned & scored
    assert learned | scored == names(spec, "train")
    counted = {name: [sum(x.startswith(name) for x in part) for part in (learned, scored)] for name in COUNTS}
    assert counted == {"airport": [1, 0], "beach": [1, 1], "crop": [2, 1], "forest": [10, 2], "river": [20, 5]}
    said = "34 and 9 images (airport 1 + 0, beach 1 + 1, crop 2 + 1, forest 10 + 2, river 20 + 5)"
    assert caplog.messages[0].endswith(f"(always the same): {said}; too few to be in both: airport")
    source = open_source(spec, SCORED)
    assert [source[i]["label"] for i in range(9)] == source.labels.tolist() == [1, 2, 3, 3, 4, 4, 4, 4, 4]


def test_a_part_follows_from_names_and_not_from_the_other_images(tmp_path):
    spec = uneven(tmp_path / "images")
    before = names(spec, LEARNED)
    by_hand = sorted(
        (f"forest/{i:03d}.jpg" for i in range(12)),
        key=lambda name: hashlib.blake2b(name.encode(), digest_size=8).digest(),
    )
    assert {name for name in before if name.startswith("forest")} == set(by_hand[:10])
    (tmp_path / "images" / "forest" / "000b.jpg").write_bytes(jpeg(smooth(77)))
    (tmp_path / "images" / "river" / "024.jpg").unlink()
    after = names(spec, LEARNED)
    assert all(len({x for x in before ^ after if x.startswith(name)}) <= 2 for name in COUNTS)
    assert {x for x in before ^ after if x.startswith(("airport", "beach", "crop"))} == set()


def test_a_prepared_folder_has_the_same_parts(tmp_path):
    spec = uneven(tmp_path / "images")
    convert(Preparation(spec, ("train",), str(tmp_path / "prepared")), 1, lambda n: None, lambda n: None)
    prepared = f"arrayrecord:{tmp_path / 'prepared'}"
    assert default_splits(prepared, "train", "test") == (LEARNED, SCORED)
    assert names(prepared, SCORED) == names(spec, SCORED)
    part = open_source(prepared, SCORED)
    check_source(part, 3, DataConfig(source=prepared, split=SCORED))
    assert np.bincount([part[i]["label"] for i in range(len(part))]).tolist() == [0, 1, 1, 2, 5]


def test_folders_around_all_images_play_no_part(tmp_path):
    """The folder, the one around it, an archive of either, and the same with one class only."""
    top = tmp_path / "outer" / "top"
    bare = uneven(top)
    shutil.make_archive(str(tmp_path / "inner"), "zip", top)
    shutil.make_archive(str(tmp_path / "nested"), "zip", tmp_path / "outer")
    around = [f"folder:{tmp_path / 'outer'}", f"zip:{tmp_path / 'inner.zip'}", f"zip:{tmp_path / 'nested.zip'}"]
    for spec in around:
        assert {name.removeprefix("top/") for name in names(spec, SCORED)} == names(bare, SCORED)
    river = {name for name in names(bare, SCORED) if name.startswith("river/")}
    for name in COUNTS.keys() - {"river"}:
        shutil.rmtree(top / name)
    assert {name.removeprefix("top/") for name in names(around[0], SCORED)} == names(bare, SCORED) == river


def test_a_prepared_folder_is_read_once(tmp_path, monkeypatch):
    class_folders(tmp_path / "images")
    plan = Preparation(f"folder:{tmp_path / 'images'}", ("train",), str(tmp_path / "prepared"))
    convert(plan, 1, lambda n: None, lambda n: None)
    reads = []
    monkeypatch.setattr(arrayrecord, "unpack", lambda record: reads.append(1) or unpack(record))
    spec = f"arrayrecord:{tmp_path / 'prepared'}"
    parts = [open_source(spec, split) for split in default_splits(spec, "train", "test")]
    assert sum(map(len, parts)) == len({part.name(i) for part in parts for i in range(len(part))}) == len(reads) == 20
    shutil.rmtree(plan.output)
    for file in (tmp_path / "images" / "river").iterdir():
        file.rename(file.with_stem(f"new_{file.stem}"))
    convert(plan, 1, lambda n: None, lambda n: None)
    assert sum(name.startswith("river/new_") for split in (LEARNED, SCORED) for name in names(spec, split)) == 10


@pytest.mark.parametrize(
    ("spec", "split", "message"),
    [
        ("{}", "train[:3,stratified]", r"a stratified subset must be in percent, as in train\[:80%,stratified\]$"),
        ("{}", "train[90%:80%,stratified]", r"is empty; train has 20 images$"),
        ("{}", "train[:120%,stratified]", r"a subset must end at 100% at most$"),
        ("scenes?size=8&count=9", LEARNED, r"take a subset of all images as train\[:80%\]$"),
    ],
)
def test_other_parts_are_refused(tmp_path, spec, split, message):
    with pytest.raises(UserError, match=message):
        open_source(spec.format(f"folder:{class_folders(tmp_path)}"), split)


def test_images_without_classes_are_parted_as_they_are(tmp_path):
    class_folders(tmp_path, 10, ("only",))
    for file in (tmp_path / "only").iterdir():
        file.rename(tmp_path / file.name)
    (tmp_path / "only").rmdir()
    assert default_splits(f"folder:{tmp_path}", "train", "test") == ("train[:80%]", "train[80%:]")
