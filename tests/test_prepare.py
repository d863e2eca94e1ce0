"""Any source becomes sharded ArrayRecord; after an interruption the same command resumes."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile

from scaling.core.errors import UserError
from scaling.data import prepare
from scaling.data.config import DataConfig
from scaling.data.sources.registry import open_source
from scaling.data.statistics import band_statistics
from scaling.parallel.claim import Claim
from scaling.prepare import main
from tests.commands import command, error_of
from tests.commands import run as run_command
from tests.data.examples import class_folders, jpeg, smooth, truncate


@pytest.fixture
def images(tmp_path):
    root = tmp_path / "images"
    class_folders(root / "train", 13)
    class_folders(root / "test", 3)
    return root


def run(source, output, **options):
    flags = {"source": source, "output": output, "workers": 2} | options
    given = [f"--{name}={','.join(x) if isinstance(x, list) else x}" for name, x in flags.items()]
    main(*main.parsed(["prepare", *given]))
    return json.loads((output / "manifest.json").read_text())


def contents(spec, split="train"):
    source = open_source(spec, split)
    return {source.name(i): (source.stored(i), source[i]["image"]) for i in range(len(source))}


def test_images_come_back_byte_for_byte(images, tmp_path):
    out = tmp_path / "out"
    manifest = run(f"folder:{images}", out, split=["train", "test"], shard_size=10)
    for split in ("train", "test"):
        before, after = contents(f"folder:{images}", split), contents(f"arrayrecord:{out}", split)
        assert list(before) == list(after)
        for name in before:
            assert before[name][0] == after[name][0]
            np.testing.assert_array_equal(before[name][1], after[name][1])
    assert sorted(file.name for file in out.iterdir()) == [
        "manifest.json",
        "test-00000-of-00001.arrayrecord",
        *(f"train-0000{i}-of-00003.arrayrecord" for i in range(3)),
    ]
    assert (manifest["bands"], manifest["dtype"], manifest["class_names"]) == (3, "uint8", ["forest", "river"])
    assert [manifest["splits"][split]["count"] for split in ("train", "test")] == [26, 6]


def test_band_statistics_are_written_and_used(images, tmp_path):
    run(f"folder:{images}", tmp_path / "out")
    pixels = np.stack([image for _, image in contents(f"folder:{images}").values()]).reshape(-1, 3) / 1.0
    config = DataConfig(source=f"arrayrecord:{tmp_path / 'out'}")
    found = band_statistics(open_source(config.source), config)
    np.testing.assert_allclose(found, (pixels.mean(axis=0), pixels.std(axis=0)), rtol=1e-9)


def test_band_statistics_are_of_all_classes_whatever_the_order_of_the_records(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "_SAMPLE", 40)  # of records whose classes take turns, ten of them
    source = "scenes?size=16&count=400"
    manifest = run(source, tmp_path / "out", shard_size=150)["splits"]["train"]
    scenes = open_source(source)
    pixels = np.stack([scenes[i]["image"] for i in range(400)]).reshape(-1, 3)
    np.testing.assert_allclose(manifest["mean"], pixels.mean(0), atol=0.2 * pixels.std())
    np.testing.assert_allclose(manifest["std"], pixels.std(0), rtol=0.15)


def test_band_statistics_are_those_of_the_source_itself(tmp_path, monkeypatch):
    source = "scenes:ms?size=8&count=1200"
    monkeypatch.setenv("SCALING_CACHE", str(tmp_path / "cache"))
    manifest = run(source, tmp_path / "out", shard_size=1000)["splits"]["train"]
    found = band_statistics(open_source(source), DataConfig(source=source))
    np.testing.assert_allclose((manifest["mean"], manifest["std"]), found, rtol=1e-9)


def test_a_part_of_every_class_is_one_split(images, tmp_path):
    parts = ["train[:80%,stratified]", "train[80%:,stratified]+test"]
    spec, prepared = f"folder:{images}", f"arrayrecord:{tmp_path / 'out'}"
    assert list(run(spec, tmp_path / "out", split=parts)["splits"]) == parts
    assert [contents(prepared, split).keys() for split in parts] == [contents(spec, split).keys() for split in parts]


def test_splits_of_two_dtypes_are_refused(images, tmp_path):
    for file in sorted((images / "test").rglob("*.jpg")):
        tifffile.imwrite(file.with_suffix(".tif"), np.zeros((40, 48, 3), np.uint16), photometric="rgb")
        file.unlink()
    with pytest.raises(UserError, match="its splits are uint16 and uint8"):
        run(f"folder:{images}", tmp_path / "out", split=["train", "test"])


def test_the_dtype_is_that_of_most_images_even_if_the_first_is_odd(images, tmp_path):
    odd = np.zeros((40, 48, 3), np.uint16)
    tifffile.imwrite(images / "train" / "forest" / "000.tif", odd, photometric="rgb")
    (images / "train" / "forest" / "000.jpg").unlink()
    manifest = run(f"folder:{images}", tmp_path / "out")
    assert manifest["splits"]["train"]["bad"] == ["train/forest/000.tif: is uint16, the others are uint8"]
    assert (manifest["dtype"], manifest["splits"]["train"]["count"]) == ("uint8", 25)


def test_a_set_has_one_dtype_whichever_of_its_images_are_larger(tmp_path):
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    for i, size in enumerate((64, 40, 64, 40, 40, 64)):
        image = rng.integers(0, 65536, (size, size, 4), dtype=np.uint16)
        tifffile.imwrite(tmp_path / "images" / f"{i}.tif", image, photometric="minisblack", planarconfig="contig")
    manifest = run(f"folder:{tmp_path / 'images'}", tmp_path / "out", size=48)
    source = open_source(f"arrayrecord:{tmp_path / 'out'}")
    assert {(str(source[i]["image"].dtype), min(source[i]["image"].shape[:2])) for i in range(6)} == {
        ("uint16", 48),
        ("uint16", 40),
    }
    assert manifest["dtype"] == "uint16"


def test_an_image_of_another_dtype_is_left_out_and_named(images, tmp_path):
    odd = np.zeros((40, 48, 3), np.uint16)
    tifffile.imwrite(images / "train" / "forest" / "odd.tif", odd, photometric="rgb")
    part = run(f"folder:{images}", tmp_path / "out")["splits"]["train"]
    assert part["bad"] == ["train/forest/odd.tif: is uint16, the others are uint8"]
    assert part["count"] == 26


def test_large_images_shrink_and_small_ones_keep_their_bytes(tmp_path):
    for size in (30, 60):
        (tmp_path / "images" / str(size)).mkdir(parents=True)
        (tmp_path / "images" / str(size) / "a.jpg").write_bytes(jpeg(smooth(size, size, 2 * size)))
    run(f"folder:{tmp_path / 'images'}", tmp_path / "out", size=40)
    before, after = contents(f"folder:{tmp_path / 'images'}"), contents(f"arrayrecord:{tmp_path / 'out'}")
    assert after["30/a.jpg"][0] == before["30/a.jpg"][0]
    shrunk = after["60/a.jpg"]
    assert shrunk[0][0].startswith(b"\xff\xd8")
    assert shrunk[1].shape == (40, 80, 3)


def test_corrupt_images_are_left_out_and_named(images, tmp_path, capsys):
    truncate(images / "train" / "river" / "004.jpg")
    manifest = run(f"folder:{images}", tmp_path / "out")
    assert manifest["splits"]["train"]["count"] == 25
    (line,) = manifest["splits"]["train"]["bad"]
    assert "train/river/004.jpg" in line
    assert "25 images in 1 shards, 1 unreadable left out" in capsys.readouterr().out


def test_multi_band_and_rendered_images(tmp_path):
    (tmp_path / "images").mkdir()
    image = np.random.default_rng(0).integers(0, 9000, (20, 24, 5), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "images" / "a.tif", image, photometric="minisblack", planarconfig="contig")
    manifest = run(f"folder:{tmp_path / 'images'}", tmp_path / "out")
    assert (manifest["bands"], manifest["dtype"]) == (5, "uint16")
    np.testing.assert_array_equal(open_source(f"arrayrecord:{tmp_path / 'out'}")[0]["image"], image)
    run("scenes:ms?size=16&count=4", tmp_path / "scenes")
    rendered, stored = open_source("scenes:ms?size=16&count=4"), open_source(f"arrayrecord:{tmp_path / 'scenes'}")
    np.testing.assert_array_equal(stored[3]["image"], rendered[3]["image"])
    assert dataclasses.replace(stored.info, statistics=None) == rendered.info
    assert stored.name(3) == rendered.name(3)


def test_a_finished_folder_is_not_overwritten(images, tmp_path):
    run(f"folder:{images}", tmp_path / "out")
    with pytest.raises(UserError, match="already finished"):
        run(f"folder:{images}", tmp_path / "out")


def test_a_foreign_folder_is_not_touched(images, tmp_path):
    with pytest.raises(UserError, match="holds other files"):
        run(f"folder:{images}", images)
    assert sorted(child.name for child in images.iterdir()) == ["test", "train"]


KILLED = """
import sys
from scaling.data import prepare
prepare.convert(
    prepare.Preparation(sys.argv[1], ("train",), sys.argv[2], shard_size=5),
    1,
    lambda done: print(done, flush=True),
    print,
)
"""


def killed_after(images: Path, out: Path, done: int) -> None:
    """Starts a conversion in another process and kills it when `done` examples are written."""
    command = [sys.executable, "-c", KILLED, f"folder:{images}", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as process:
        for _ in range(done + 1):
            assert process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)


def test_killed_at_any_moment_it_goes_on_where_it_stopped(images, tmp_path):
    out = tmp_path / "out"
    killed_after(images, out, 12)
    first = out / "train-00000-of-00006.arrayrecord"
    finished, written = first.stat().st_mtime_ns, first.read_bytes()
    assert not (out / "manifest.json").exists()
    with pytest.raises(UserError, match=r"was started with .*shard_size 5 \(now 6\)"):
        run(f"folder:{images}", out, shard_size=6)
    run(f"folder:{images}", out, shard_size=5)
    assert first.stat().st_mtime_ns == finished
    assert first.read_bytes() == written
    assert list(contents(f"arrayrecord:{out}")) == list(contents(f"folder:{images}"))
    assert all(file.name == "manifest.json" or file.suffix == ".arrayrecord" for file in out.iterdir())


def test_ctrl_c_ends_all_workers_and_what_is_finished_is_kept(images, tmp_path):
    out, done = tmp_path / "out", []
    plan = prepare.Preparation(f"folder:{images}", ("train",), str(out), shard_size=5)
    first, before = out / "train-00000-of-00006.arrayrecord", threading.active_count()

    def progress(number):
        done.append(number)
        if len(done) == 7:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        prepare.convert(plan, 1, progress, lambda total: None)
    assert threading.active_count() == before
    assert not (out / "manifest.json").exists()
    finished = first.stat().st_mtime_ns
    run(f"folder:{images}", out, shard_size=5)
    assert first.stat().st_mtime_ns == finished
    assert list(contents(f"arrayrecord:{out}")) == list(contents(f"folder:{images}"))


def test_one_process_at_a_time_writes_a_set(images, tmp_path):
    out = tmp_path / "out"
    killed_after(images, out, 12)
    before = sorted(file.name for file in out.iterdir())
    with Claim(out), pytest.raises(UserError, match="out is being written to by another process"):
        run(f"folder:{images}", out, shard_size=5)
    assert sorted(file.name for file in out.iterdir()) == before
    run(f"folder:{images}", out, shard_size=5)
    assert list(contents(f"arrayrecord:{out}")) == list(contents(f"folder:{images}"))


def test_a_set_can_be_in_a_folder_of_any_name(images, tmp_path):
    out = tmp_path / "lr[1]*"
    run(f"folder:{images}", out)
    assert list(contents(f"arrayrecord:{out}")) == list(contents(f"folder:{images}"))


def test_a_finished_shard_that_was_cut_short_is_written_again(images, tmp_path):
    out = tmp_path / "out"
    killed_after(images, out, 12)
    truncate(out / "train-00000-of-00006.arrayrecord")
    run(f"folder:{images}", out, shard_size=5)
    assert list(contents(f"arrayrecord:{out}")) == list(contents(f"folder:{images}"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"source": ""}, "--source"), ({"split": ["val"]}, "no split 'val'"), ({"shard_size": 0}, "--shard_size")],
)
def test_wrong_flags(images, tmp_path, wrong, message):
    with pytest.raises(UserError, match=message):
        run(**{"source": f"folder:{images}", "output": tmp_path / "out"} | wrong)


def test_words_beside_the_flags_are_refused():
    message = "train: is not a flag; write it as --flag=value"
    assert error_of(run_command(command("prepare", "train", source="scenes")), 2) == message
