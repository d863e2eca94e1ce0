"""A checkpoint that was changed after it was written is named; one without checksums is read as before."""

import contextlib
import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from scaling.core.errors import TemporaryError, UserError
from scaling.encoders.loading import load_encoder
from scaling.training import checksums
from scaling.training.checksums import FILE, damaged_file, write_checksums
from scaling.training.reading import opened_to_read
from tests.drills.rot import KEPT

CHECKPOINT = next(kept for kept in KEPT if kept.name == "checkpoint")


@pytest.fixture
def run(tmp_path):
    CHECKPOINT.write(tmp_path / "run", 0)
    return tmp_path / "run"


def largest(run):
    return max((run / "checkpoints/3/params").rglob("d/*"), key=lambda file: file.stat().st_size)


def test_one_bit_of_a_weight_is_not_another_weight(run):
    before = CHECKPOINT.read(run)
    data = bytearray(largest(run).read_bytes())
    data[len(data) // 2] ^= 1
    largest(run).write_bytes(data)
    with pytest.raises(UserError, match=r"checkpoints.*3"):
        load_encoder(run)
    (run / "checkpoints/3" / FILE).unlink()  # as written before there were checksums
    assert another_weight(run, before)


def another_weight(run, before):
    """Whether it is read with another number, or with one that no weight has: which bit it is varies with the order in
    which the arrays are written.
    """
    try:
        found = CHECKPOINT.read(run)
    except UserError as error:
        return "all numbers must be finite" in str(error)
    return any(np.any(np.asarray(found[name]) != np.asarray(x)) for name, x in before.items())


def test_a_configuration_of_another_run_is_named(run):
    file = run / "checkpoints/3/config/metadata"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "seed": config["seed"] + 1}))
    with pytest.raises(UserError, match=r"checkpoints.*3"):
        load_encoder(run)


def test_files_are_named_by_part(tmp_path):
    for name in ("params/a", "params/b", "optimizer/c", "root"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode() * 1000)
    assert damaged_file(tmp_path, ["params"]) == ""
    write_checksums(tmp_path)
    assert damaged_file(tmp_path, ["params", "optimizer"]) == ""
    (tmp_path / "optimizer/c").write_bytes(b"x")
    (tmp_path / "params/b").unlink()
    assert damaged_file(tmp_path, ["params/a"]) == ""
    assert damaged_file(tmp_path, ["params"]) == "params/b"
    assert damaged_file(tmp_path, ["optimizer"]) == "optimizer/c"
    (tmp_path / FILE).write_text("{")
    assert damaged_file(tmp_path, ["params"]) == FILE


@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES, errno.EMFILE, errno.ESTALE], ids=os.strerror)
def test_a_file_that_cannot_be_read_now_is_not_damage(run, monkeypatch, error):
    opened = Path.open

    def failing(path, *mode, **options):
        if path.name == "_METADATA" and mode == ("rb",):
            raise OSError(error, os.strerror(error), str(path))
        return opened(path, *mode, **options)

    monkeypatch.setattr(Path, "open", failing)
    said = rf"_METADATA: cannot be read \({os.strerror(error)}\).* same command again"
    with pytest.raises(TemporaryError, match=said):
        load_encoder(run)


def test_a_cut_reading_verifies_metadata_alone_and_no_file_twice(run, monkeypatch):
    seen, checksum = [], checksums._checksum
    monkeypatch.setattr(checksums, "_checksum", lambda path: seen.append(path) or checksum(path))
    load_encoder(run, width_ratio=0.5)
    params = run / "checkpoints/3/params"
    assert sorted(path for path in seen if path.is_relative_to(params)) == [
        params / "_METADATA",
        params / "manifest.ocdbt",
    ]
    seen.clear()
    load_encoder(run)
    assert largest(run) in seen
    assert len(seen) == len(set(seen))
    with opened_to_read(run) as checkpoints:
        seen.clear()
        extra = {"ema": {}}
        with contextlib.suppress(Exception):  # there is none
            checkpoints.restore_extra(3, extra, extra)
    assert seen
    assert {path.name for path in seen} <= {"_METADATA", "manifest.ocdbt"}
