"""The command: which layers of an encoder, or of two, are alike."""

import dataclasses

import numpy as np
import pytest

from scaling.core.rows import read_rows
from scaling.data.config import DataConfig
from scaling.encoders.loading import load_encoder
from scaling.encoders.similarity import measure
from scaling.encoders.splits import Split
from scaling.encoders.unlabelled import pixels
from scaling.training.config import TrainConfig
from tests.commands import call, command, error_of
from tests.encoders.examples import small_encoder

SOURCE = {"source": "scenes?size=16&count=128", "images": 120}


def kept(folder, **fields):
    small_encoder(**fields).save(folder)
    return folder


def test_rows_and_figures_of_one_encoder(tmp_path):
    line = command("similarity", checkpoint=kept(tmp_path / "e", depth=3), output=tmp_path / "out", **SOURCE)
    done = call(line)
    assert done.returncode == 0, done.stderr
    rows = {row.metric: row for row in read_rows(tmp_path / "out" / "rows.jsonl")}
    assert len(rows) == 3 * 6  # pairs of four states
    encoder = load_encoder(tmp_path / "e")
    expected = measure([encoder], pixels([Split(encoder, SOURCE["source"], "train", 120)]))
    assert rows["cka/1/3"].value == np.float64(expected.cka()[1, 3])
    assert rows["angle/0/2"].value == np.float64(expected.states().angle[0, 2])
    assert rows["cka/0/1"].probe == "debiased of all"
    assert {path.name for path in (tmp_path / "out" / "figures").iterdir()} == {
        f"{name}.{kind}" for name in ("cka", "cosine", "angle") for kind in ("png", "svg")
    }
    assert "state   3  CKA" in done.stdout


@pytest.mark.long
def test_two_encoders_on_the_same_images(tmp_path):
    first, second = kept(tmp_path / "a", depth=3), kept(tmp_path / "b", depth=2, width=48)
    line = command("similarity", checkpoint=first, other=second, output=tmp_path / "out", tokens="mean", **SOURCE)
    done = call(line)
    assert done.returncode == 0, done.stderr
    assert len(read_rows(tmp_path / "out" / "rows.jsonl")) == 4 * 3
    assert "of the other, CKA" in done.stdout


def test_an_encoder_beside_itself_has_all_pairs_and_what_is_like_nothing_is_said(tmp_path):
    first = kept(tmp_path / "a")
    line = command("similarity", checkpoint=first, other=first, output=tmp_path / "out", tokens="cls", **SOURCE)
    done = call(line)
    rows = {row.metric: row.value for row in read_rows(tmp_path / "out" / "rows.jsonl")}
    assert len(rows) == 9
    assert rows["cka/0/1"] is None
    assert abs(rows["cka/2/2"] - 1) < 1e-6
    assert "state   0  like none of the other" in done.stdout
    assert "state   2  most like state   2 of the other, CKA 1.000" in done.stdout


def test_each_encoder_sees_the_images_as_it_takes_them(tmp_path):
    """Normalised by mean and deviation of its own."""
    first = small_encoder()
    data = DataConfig(mean=(40.0,) * 3, std=(90.0,) * 3)
    first.save(tmp_path / "a")
    dataclasses.replace(first, train=TrainConfig(data=data)).save(tmp_path / "b")
    opened = [Split(load_encoder(tmp_path / name), SOURCE["source"], "train", 120) for name in "ab"]
    seen = next(iter(pixels(opened)))
    np.testing.assert_allclose(seen[0] * 50 + 100, seen[1] * 90 + 40, rtol=1e-4, atol=1e-3)


def test_exact_measures(tmp_path):
    checkpoint = kept(tmp_path / "e")
    line = command("similarity", checkpoint=checkpoint, output=tmp_path / "out", estimator="exact", **SOURCE)
    assert call(line).returncode == 0
    metrics = {row.metric.split("/")[0] for row in read_rows(tmp_path / "out" / "rows.jsonl")}
    assert metrics == {"cka", "cca"}
    both = [*line, f"--other={checkpoint}"]
    assert (
        error_of(call(both), 2)
        == "--estimator=exact is only for one encoder; to compare two, choose debiased or biased"
    )


def test_what_is_needed_is_named(tmp_path):
    said = error_of(call(command("similarity")), 2)
    assert said == "--checkpoint: is missing; give --checkpoint=DIR and --output=DIR"
