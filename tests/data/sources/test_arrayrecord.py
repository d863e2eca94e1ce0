"""Faults of a prepared folder are reported before training starts."""

import dataclasses
import json
import pickle

import jax
import numpy as np
import pytest

from scaling.core.errors import TrainingError, UserError
from scaling.data.images import CorruptImage
from scaling.data.prepare import Preparation, convert
from scaling.data.sources.arrayrecord import pack, unpack
from scaling.data.sources.base import Info
from scaling.data.sources.registry import open_source
from scaling.data.sources.united import United
from scaling.data.targets import Boxes, Masks, Quadrilaterals
from tests.data.examples import class_folders


@pytest.fixture
def prepared(tmp_path):
    source = class_folders(tmp_path / "images", 6)
    plan = Preparation(f"folder:{source}", ("train",), str(tmp_path / "out"), shard_size=5)
    convert(plan, 1, lambda done: None, lambda total: None)
    return tmp_path / "out"


@pytest.mark.parametrize("image", [b"\xff\xd8 bytes", np.arange(24, dtype=np.float32).reshape(2, 3, 4)])
def test_record_round_trip(image):
    found = unpack(pack(image, -1, "größe.jpg"))
    np.testing.assert_array_equal(found["image"], image)
    assert (found["label"], found["name"]) == (-1, "größe.jpg")


def test_reads_the_same_after_pickling(prepared):
    source = open_source(f"arrayrecord:{prepared}")
    before = source[7]["image"]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))[7]["image"], before)


@pytest.mark.parametrize("code", [403, 404])
def test_a_record_that_a_bucket_refuses_is_not_a_corrupt_image(prepared, bucket, code):
    """Which training would skip: the run would continue with another image."""
    for file in prepared.iterdir():
        bucket.put(f"data/{file.name}", file.read_bytes())
    source = open_source("arrayrecord:gs://bucket/data")
    assert source[0]["label"] == 0
    bucket.refuses = code
    for read in (lambda: source[3], lambda: source.name(3), source.listed):
        with pytest.raises(TrainingError, match=rf"gs://bucket/data record \d+: cannot be read .*{code}"):
            read()


def test_unknown_split(prepared):
    with pytest.raises(UserError, match="no split 'test'; there is train"):
        open_source(f"arrayrecord:{prepared}", "test")


def test_missing_shard(prepared):
    (prepared / "train-00001-of-00003.arrayrecord").unlink()
    with pytest.raises(UserError, match=r"1 shards are missing.*00001-of-00003"):
        open_source(f"arrayrecord:{prepared}")


@pytest.mark.parametrize(("change", "message"), [("", "damaged"), (json.dumps({"format": 9}), "of format 9")])
def test_unusable_manifest(prepared, change, message):
    (prepared / "manifest.json").write_text(change)
    with pytest.raises(UserError, match=message):
        open_source(f"arrayrecord:{prepared}")


def test_swapped_shards_of_another_length(prepared):
    shard, other = (prepared / f"train-0000{i}-of-00003.arrayrecord" for i in (0, 2))
    shard.write_bytes(other.read_bytes())
    with pytest.raises(UserError, match=r"00000-of-00003[.]arrayrecord is not the file that was written"):
        open_source(f"arrayrecord:{prepared}")
    manifest = json.loads((prepared / "manifest.json").read_text())
    earlier = {name: value for name, value in manifest.items() if name != "checksum"}  # without checksums
    earlier["splits"] = {k: {n: x for n, x in v.items() if n != "starts"} for k, v in manifest["splits"].items()}
    (prepared / "manifest.json").write_text(json.dumps(earlier))
    with pytest.raises(UserError, match="9 records, but the manifest lists 12"):
        open_source(f"arrayrecord:{prepared}")[0]


def test_damaged_record_is_corrupt_not_fatal(prepared):
    shard = prepared / "train-00000-of-00003.arrayrecord"
    data = bytearray(shard.read_bytes())
    start = next(i for i in range(0, len(data), 8) if any(data[i : i + 400 : 50]) and i > 200)
    data[start : start + 400] = bytes(400)
    shard.write_bytes(data)
    source = open_source(f"arrayrecord:{prepared}")
    outcomes = []
    for i in range(len(source)):
        try:
            outcomes.append(source[i]["image"].shape)
        except CorruptImage as error:
            outcomes.append(str(error)[:11])
    assert outcomes.count((40, 48, 3)) == 11, outcomes


class Town:
    """Images with a mask that is the image, and boxes of half their size in their middle."""

    info = Info(("one", "two"), targets=(Masks(("a", "b"), 9), Boxes(("house",))), bands=("pan",), units="counts")

    def __len__(self):
        return 6

    def __getitem__(self, index):
        image = np.kron(np.random.default_rng(index).integers(0, 2, (10, 15)), np.ones((4, 4))).astype(np.uint8)
        corners = [[(15, 10), (45, 10), (45, 30), (15, 30)]] * index
        boxes = Quadrilaterals.of(corners, [0] * index, [1] * index)
        mask = image if index != 2 else image + 1  # a class that there is not
        return {"image": image[..., None], "label": index % 2, "mask": mask, "boxes": boxes}

    def name(self, index):
        return f"town {index}"


@pytest.mark.parametrize("size", [0, 20])
def test_masks_and_boxes_are_kept_without_loss(tmp_path, monkeypatch, size):
    monkeypatch.setattr("scaling.data.prepare.open_source", lambda spec, split: Town())
    plan = Preparation("town", ("train",), str(tmp_path / "out"), size=size, shard_size=4)
    manifest = convert(plan, 1, lambda done: None, lambda total: None)
    assert manifest["format"] == 2
    (bad,) = manifest["splits"]["train"]["bad"]
    assert bad.startswith("town 2: its mask has values beyond 2 classes and ignored 9: 2 (")
    monkeypatch.undo()
    source = open_source(f"arrayrecord:{tmp_path / 'out'}")
    assert source.info == dataclasses.replace(Town.info, statistics=source.info.statistics)
    assert unpack(source._records[0])["format"] == 2
    for found, index in zip(map(source.__getitem__, range(5)), (0, 1, 3, 4, 5), strict=True):
        expected = Town()[index]
        if size:  # blocks of 4 x 4 pixels become blocks of 2 x 2
            expected["mask"] = expected["mask"][::2, ::2]
            expected["boxes"] = expected["boxes"]._replace(corners=expected["boxes"].corners / 2)
            assert found.pop("image").shape == (20, 30, 1)
            del expected["image"]
        assert found["label"] == expected["label"]
        jax.tree.map(np.testing.assert_array_equal, {name: found[name] for name in expected}, expected)
    record = source._unpacked(0)
    monkeypatch.setattr(source, "_unpacked", lambda index: record | {"mask": record["mask"][:20]})
    assert source[0]["image"].shape[2] == 1  # whoever does not ask for the mask does not hear that it is damaged
    with pytest.raises(CorruptImage, match="its mask cannot be read"):
        source[0]["mask"]
    monkeypatch.undo()
    part = open_source(f"arrayrecord:{tmp_path / 'out'}", "train[:50%]+train[50%:]")
    assert part.info == source.info
    assert len(part[0]["boxes"].classes) in range(6)
    assert isinstance(part.kept(0)["image"], bytes)


def test_folders_of_labels_alone_are_written_as_they_were(prepared):
    manifest = json.loads((prepared / "manifest.json").read_text())
    assert manifest["format"] == 1
    record = open_source(f"arrayrecord:{prepared}")._records[0]
    assert unpack(record).keys() == {"image", "label", "name"}
    old = {key: value for key, value in manifest.items() if key not in ("targets", "band_names", "units")}
    assert old == manifest


@pytest.mark.parametrize("kind", ["mask", "boxes"])
def test_targets_of_the_built_in_scenes_are_prepared(tmp_path, kind):
    plan = Preparation(f"scenes?size=16&targets={kind}", ("train[:5]", "test[:3]"), str(tmp_path / "out"))
    convert(plan, 1, lambda done: None, lambda total: None)
    rendered = open_source(f"scenes?size=16&targets={kind}", "train[:5]+test[:3]")
    stored = open_source(f"arrayrecord:{tmp_path / 'out'}", "train[:5]+test[:3]")
    assert stored.info.targets == rendered.info.targets
    for i in range(8):
        expected, found = rendered[i], stored[i]
        jax.tree.map(np.testing.assert_array_equal, {name: found[name] for name in expected}, expected)
    with pytest.raises(UserError, match="differ in masks or boxes"):
        United([open_source("scenes?targets=mask"), open_source("scenes", "test")], ["x", "y"])
