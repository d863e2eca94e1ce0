"""A prepared folder says what is wrong with it before training starts."""

import json
import pickle

import numpy as np
import pytest

from scaling.core.errors import UserError
from scaling.data.images import CorruptImage
from scaling.data.prepare import Plan, convert
from scaling.data.sources.arrayrecord import pack, unpack
from scaling.data.sources.registry import open_source
from tests.data.examples import class_folders


@pytest.fixture
def prepared(tmp_path):
    source = class_folders(tmp_path / "images", 6)
    plan = Plan(f"folder:{source}", ("train",), str(tmp_path / "out"), shard_size=5)
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
    with pytest.raises(UserError, match="9 records, the manifest says 12"):
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
