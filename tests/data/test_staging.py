"""Data in a bucket, copied to this machine before it is read, and read many images at a time where it is not."""

import logging
import shutil

import numpy as np
import pytest

from scaling.core.config import config_dict
from scaling.core.errors import UserError
from scaling.core.rows import config_hash
from scaling.data.config import DataConfig, open_sources
from scaling.data.pipeline import train_batches
from scaling.data.staging import staged
from scaling.training.config import TrainConfig
from tests.commands import call, command
from tests.data.examples import class_folders

BUCKET = "arrayrecord:gs://bucket/data"


@pytest.fixture
def prepared(tmp_path, bucket):
    class_folders(tmp_path / "images", 25)
    flags = {"source": f"folder:{tmp_path}/images", "output": "gs://bucket/data", "shard_size": 10}
    assert call(command("prepare", **flags)).returncode == 0
    bucket.requests.clear()
    return bucket


def batches(config, count=3):
    source, _ = open_sources(config)
    feed = train_batches(source, config, image_size=8, seed=1, batch_size=16)
    found = [next(feed) for _ in range(count)]
    feed.close()
    return found


def test_the_same_batches_from_the_bucket_and_from_its_copy(tmp_path, prepared):
    here = batches(DataConfig(source=BUCKET, stage=str(tmp_path / "stage"), threads=0))
    shards = {name: n for name, n in prepared.requests.items() if "manifest" not in name}
    assert set(shards.values()) == {1}  # each shard once, whole
    assert len(shards) == 5
    for one, other in zip(batches(DataConfig(source=BUCKET)), here, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_what_is_there_in_its_size_is_not_copied_again(tmp_path, prepared, caplog):
    caplog.set_level(logging.INFO)
    place = staged(BUCKET, "train[:50%]", str(tmp_path / "stage"))
    folder = tmp_path / "stage" / place.rpartition("/")[2]
    first, *_ = sorted(path for path in folder.iterdir() if "record" in path.name)
    whole = first.read_bytes()
    first.write_bytes(whole[:-1])
    prepared.requests.clear()
    assert staged(BUCKET, "train", str(tmp_path / "stage")) == place
    assert first.read_bytes() == whole
    assert [name for name in prepared.requests if "manifest" not in name] == [f"data/{first.name}"]
    assert caplog.text.count("copied 5 shards") == caplog.text.count("copied 1 shards") == 1


def test_a_disk_without_room_is_an_error_before_anything_is_copied(tmp_path, prepared, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(UserError, match=r"would be copied there, but only 0.0 are free; name a larger disk"):
        staged(BUCKET, "train", str(tmp_path / "stage"))


@pytest.mark.parametrize(
    ("spec", "folder", "message"),
    [
        ("tfds:eurosat/rgb?data_dir=gs://b/d", "/tmp/x", "copies only the files of `scaling.prepare`"),
        (BUCKET, "gs://b/stage", "must be a folder of this machine"),
    ],
)
def test_what_cannot_be_copied_is_refused(spec, folder, message):
    with pytest.raises(UserError, match=message):
        staged(spec, "train", folder)


def test_local_data_stays_where_it_is_and_hashes_stay_what_they_were():
    assert staged("folder:/data", "train", "/tmp/x") == "folder:/data"
    plain, threads = (config_dict(TrainConfig(data=DataConfig(threads=n))).to_dict() for n in (8, 0))
    assert config_hash(plain) == config_hash(threads)
    older = {**plain, "data": {k: v for k, v in plain["data"].items() if k != "stage"}}
    older.pop("checkpoint_minutes")
    assert config_hash(older) == config_hash(plain)
