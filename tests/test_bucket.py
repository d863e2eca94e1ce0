"""Data and working directory in a bucket, which is where a pod has them."""

import json
import random
import signal
import time

import numpy as np
import pytest
from etils import epath

from scaling.core.rows import Results, read_rows
from scaling.data.sources.registry import open_source
from tests import commands
from tests.commands import (
    command,
    error_of,
    finish,
    interrupt_together,
    optimised_programs,
    rows_of,
    run,
    start,
    train,
    train_command,
)
from tests.data.examples import class_folders
from tests.rows import ROW

WORKDIR = "gs://bucket/run"
SAVED = {"checkpoint_every": 10, "checkpoint.keep_last": 2}


def rows_in(bucket):
    return [json.loads(line) for line in bucket.read("run/metrics.jsonl").splitlines()]


def computed(rows):
    return [{name: row.get(name) for name in ("step", "loss", "grad_norm", "eval_loss")} for row in rows]


def steps_saved(bucket):
    """Steps with their last file: Orbax writes it after everything else."""
    done = [name.split("/") for name in list(bucket.objects) if name.startswith("run/checkpoints/")]
    return sorted({int(parts[2]) for parts in done if parts[3:] == ["commit_success.txt"]})


def interrupt(bucket, how):
    """Trains until the first checkpoint is complete and some rows more are written, then sends a signal."""
    rows, process = random.randint(11, 33), start(train_command(WORKDIR, SAVED))
    while process.poll() is None and (not steps_saved(bucket) or len(rows_in(bucket)) < rows):
        time.sleep(0.002)
    process.send_signal(how)
    return finish(process)


@pytest.mark.long
def test_a_killed_run_goes_on_from_its_bucket_to_the_last_bit(uninterrupted_run, bucket):
    with optimised_programs():  # as the run that it is compared with
        killed = interrupt(bucket, signal.SIGKILL)
        assert killed.returncode == -9, killed.stderr
        newest = max(steps_saved(bucket))
        resumed = train(WORKDIR, SAVED)
    assert f"steps   {newest} to 40 " in resumed.stdout
    assert computed(rows_in(bucket)) == computed(rows_of(uninterrupted_run[0]))
    assert steps_saved(bucket) == [30, 40]
    names = [name.split("/")[1] for name in bucket.objects]
    assert {"config.json", "tensorboard", "figures"} <= set(names)
    features = command("probe", checkpoint=WORKDIR, source="scenes?size=16&count=512", limit=100)
    assert "5-NN accuracy" in run(features).stdout


@pytest.mark.long
def test_processes_that_are_stopped_save_the_same_step_in_a_bucket(uninterrupted_run, bucket):
    stopped = interrupt_together(epath.Path(WORKDIR), 12, signal.SIGTERM, which=1, processes=2, devices=2)
    assert [done.returncode for done in stopped] == [143, 143], stopped[0].stderr
    assert max(steps_saved(bucket)) == rows_in(bucket)[-1]["step"]
    train(WORKDIR)
    np.testing.assert_allclose(
        [row["loss"] for row in rows_in(bucket)], [row["loss"] for row in rows_of(uninterrupted_run[0])], rtol=1e-5
    )


def test_images_come_back_from_a_bucket_byte_for_byte(tmp_path, bucket):
    class_folders(tmp_path, 25)
    done = run(command("prepare", source=f"folder:{tmp_path}", output="gs://bucket/data", shard_size=10))
    assert done.returncode == 0, done.stderr
    local, there = open_source(f"folder:{tmp_path}", "train"), open_source("arrayrecord:gs://bucket/data", "train")
    assert [there.name(i) for i in range(len(there))] == [local.name(i) for i in range(len(local))]
    for i in range(len(local)):
        assert there.stored(i) == local.stored(i)
    bucket.requests.clear()
    for i in range(len(there)):
        there[i]
    assert sum(bucket.requests.values()) == len(there)  # the shards are open: one request an image
    again = run(command("prepare", source=f"folder:{tmp_path}", output="gs://bucket/data", shard_size=10))
    assert "gs://bucket/data is already finished" in error_of(again, 2)


@pytest.mark.long
def test_what_was_compiled_and_measured_is_there_for_the_next_machine(tmp_path, bucket, monkeypatch):
    monkeypatch.setattr(commands, "cache_folder", lambda: "gs://bucket/cache")
    train(tmp_path / "first", {"steps": 2})
    kept = dict(bucket.objects)  # with their generations: what is written again has another
    assert {name.split("/")[1].split("_")[0] for name in kept} == {"xla", "band"}
    train(tmp_path / "second", {"steps": 2})
    assert bucket.objects == kept


def test_rows_are_added_to_a_file_in_a_bucket(bucket):
    Results("gs://bucket/study/rows.jsonl").add([ROW])
    assert read_rows("gs://bucket/study/rows.jsonl") == Results("gs://bucket/study/rows.jsonl").rows == [ROW]
    assert list(bucket.objects) == ["study/rows.jsonl"]
