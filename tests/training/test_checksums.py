"""A checkpoint that was changed after it was written is named; one without checksums is read as before."""

import json
import time

import numpy as np
import pytest

from scaling.core.errors import UserError
from scaling.encoders.loading import load_encoder
from scaling.encoders.writing import write_parameters
from scaling.training.checksums import FILE, damaged_file, write_checksums
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
    assert any(np.any(np.asarray(CHECKPOINT.read(run)[name]) != np.asarray(x)) for name, x in before.items())


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


@pytest.mark.long
def test_the_cost_of_checksums(tmp_path, capsys):
    """Seconds to write and to read a gibibyte with and without them; printed, not asserted."""
    from tests.encoders.examples import blank_encoder

    params = {"encoder": {"x": np.random.default_rng(0).random((1 << 28,), np.float32)}}
    began = time.perf_counter()
    write_parameters(params, 1, {"model": blank_encoder().config.__dict__}, tmp_path / "run")
    whole, began = time.perf_counter() - began, time.perf_counter()
    write_checksums(tmp_path / "run/checkpoints/1")
    with capsys.disabled():
        print(f"\nwriting 1 GiB took {whole:.1f} s, {time.perf_counter() - began:.1f} s of it for checksums")
