"""The command: a decision that is said whole, and a checkpoint like any other."""

import json

import jax
import numpy as np
import pytest

from scaling.core.rows import read_rows
from scaling.encoders.controls import random_weights
from scaling.encoders.loading import load_encoder
from scaling.encoders.pruned import decide, prune
from scaling.encoders.similarity import measure
from scaling.encoders.splits import Split, gathered
from scaling.encoders.unlabelled import pixels
from tests.commands import call, command, error_of
from tests.encoders.examples import small_encoder

SOURCE = {"source": "scenes?size=16&count=400", "images": 360}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Not the weights that the command compares with, which are drawn by seed 0."""
    folder = tmp_path_factory.mktemp("encoder") / "deep"
    random_weights(small_encoder(depth=5), 3).save(folder)
    return folder


def decided(encoder, rule, blocks=0):
    found = measure([encoder], pixels([Split(encoder, SOURCE["source"], "train", SOURCE["images"])]))
    return decide(found, rule, blocks, "debiased", False)


@pytest.mark.parametrize("rule", ["simpler", pytest.param("shortgpt", marks=pytest.mark.long)])
def test_the_decision_is_written_and_said(rule, checkpoint, tmp_path):
    flags = {"rule": rule, "json": tmp_path / "d.json", **({} if rule == "simpler" else {"blocks": 3})}
    done = call(command("prune", checkpoint=checkpoint, output=tmp_path / "out", **flags, **SOURCE))
    assert done.returncode == 0, done.stderr
    decision = decided(load_encoder(checkpoint), rule, 3)
    said = json.loads((tmp_path / "d.json").read_text())
    assert (said["rule"], tuple(said["keep"])) == (rule, decision.keep)
    assert said["scores"] == decision.scores.tolist()
    random = decided(random_weights(load_encoder(checkpoint), 0), rule, 3)
    assert (tuple(said["random_encoder"]["keep"]), said["random_encoder"]["scores"]) == (
        random.keep,
        pytest.approx(random.scores.tolist(), rel=1e-4),
    )
    same = {tuple(one["keep"]): one["count"] for one in said["halves"]}
    assert sum(same.values()) == 50
    assert f"{same.get(decision.keep, 0)} of 50 random halves" in done.stdout
    assert [one["images"] for one in said["first_images"]] == [60, 120, 240]
    small = load_encoder(tmp_path / "out")
    assert small.config.depth == len(decision.keep)
    assert small.cuts[0].rule == rule
    assert small.cuts[0].calibration_images == 360  # six batches of 60
    x = np.zeros((1, 16, 16, 3), np.float32)
    expected = prune(load_encoder(checkpoint), decision.keep).features(x, normalised=True)
    np.testing.assert_array_equal(small.features(x, normalised=True), expected)
    rows = {row.metric: row.value for row in read_rows(tmp_path / "out" / "rows.jsonl")}
    assert [rows[f"score/{at}"] for at in decision.candidates] == decision.scores.tolist()
    assert "random halves of the images decide the same" in done.stdout
    assert "an encoder of random weights would keep" in done.stdout
    assert (tmp_path / "out" / "figures" / "depth.svg").exists()


def test_every_command_reads_what_is_left(checkpoint, tmp_path):
    done = call(command("prune", checkpoint=checkpoint, output=tmp_path / "out", rule="keep", keep="0,2,4"))
    assert done.returncode == 0, done.stderr
    params = [sum(x.size for x in jax.tree.leaves(load_encoder(f).params)) for f in (tmp_path / "out", checkpoint)]
    assert f"{params[0]:,} parameters, {params[0] / params[1]:.1%} of {params[1]:,}" in done.stdout
    source, split = "scenes?size=16&count=80", {"train_split": "train", "test_split": "test"}
    probed = call(command("probe", checkpoint=tmp_path / "out", source=source, probe="knn", **split))
    assert probed.returncode == 0, probed.stderr
    cut = command("convert", checkpoint=tmp_path / "out", width_ratio=0.5, output=tmp_path / "narrow")
    assert call(cut).returncode == 0
    again = load_encoder(tmp_path / "narrow")
    assert (again.config.depth, again.config.head_dim) == (3, 8)
    assert [str(one) for one in again.cuts] == ["blocks 0,2,4 of 5, keep", "width 0.5 inner"]


def test_a_linear_map_does_the_part_of_blocks_that_are_gone(checkpoint, tmp_path):
    flags = {"rule": "keep", "keep": "0,1,4", "recover": "linear", **SOURCE, "images": 144}
    done = call(command("prune", checkpoint=checkpoint, output=tmp_path / "out", **flags))
    assert done.returncode == 0, done.stderr
    whole, small = load_encoder(checkpoint), load_encoder(tmp_path / "out")
    assert str(small.cuts[0]) == "blocks 0,1,4 of 5, keep, linear"
    (images,) = gathered(((p.images,) for p in Split(whole, SOURCE["source"], "train", 144).parts()), 144)
    held_out = np.arange(144) % 4 == 3
    assert small.cuts[0].calibration_images == 96
    plain = prune(whole, (0, 1, 4))
    repaired = prune(whole, (0, 1, 4), images=images[~held_out])
    changed = [
        jax.tree_util.keystr(path)
        for (path, x), y in zip(jax.tree.leaves_with_path(repaired.params), jax.tree.leaves(plain.params), strict=True)
        if not np.array_equal(x, y)
    ]
    assert changed == ["['blocks']['mlp_out']['bias']", "['blocks']['mlp_out']['kernel']"]
    both = (np.asarray(e.params["blocks"]["mlp_out"]["kernel"]) for e in (repaired, plain))
    assert [not np.array_equal(*pair) for pair in zip(*both, strict=True)] == [False, True, False]
    x = images[held_out]
    full, near, far = (e.features(x, normalised=True) for e in (whole, small, plain))
    np.testing.assert_allclose(near, repaired.features(x, normalised=True), atol=1e-5)
    errors = [np.linalg.norm(y - full) / np.linalg.norm(full - full.mean(0)) for y in (near, far)]
    assert f"features of 36 others: {errors[0]:.3f} of their spread from the whole encoder's" in done.stdout
    assert f"without it {errors[1]:.3f}" in done.stdout
    assert errors[0] < 0.7 * errors[1]
    rows = read_rows(tmp_path / "out" / "rows.jsonl")
    assert [(row.metric, row.probe, row.recovery) for row in rows] == [
        ("relative_error", "features", recovery) for recovery in ("linear", "none")
    ]
    np.testing.assert_allclose([row.value for row in rows], errors, rtol=1e-4)
    assert all(row.low < row.value < row.high for row in rows)
    assert rows[0].compute < 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            {"rule": "keep", "keep": "1,2", "recover": "linear"},
            "recover=linear: removed block 0 has no MLP before it",
        ),
        ({"rule": "keep"}, "--keep is needed for --rule=keep"),
        ({"rule": "simpler", "keep": "0,1"}, "--keep is needed for --rule=keep, and only for that"),
        ({"rule": "keep", "keep": "0,5"}, "there is no block 5; the encoder has 0 to 4"),
        ({"rule": "keep", "keep": "2,1"}, "name every block once, in increasing order"),
        ({"rule": "keep", "keep": "a"}, "must be the indices of blocks, from 0"),
        ({"rule": "keep", "keep": "0,1,2,3,4"}, "keeps all 5 blocks; leave some out"),
        ({"rule": "shortgpt"}, "--blocks=0: must be the number of blocks that shortgpt keeps, from 1 to 4 of 5"),
        (
            {"rule": "angular", "blocks": 5},
            "--blocks=5: must be the number of blocks that angular keeps, from 1 to 4 of 5",
        ),
        ({"rule": "simpler", "blocks": 2}, "simpler chooses the number of blocks"),
        ({"rule": "simpler", "source": "nothing:here"}, "nothing"),
        ({"rule": "keep", "keep": "0", "source": "scenes"}, "--rule=keep uses no images"),
    ],
)
def test_wrong_input_is_one_line_before_anything_is_read(checkpoint, tmp_path, flags, message):
    done = call(command("prune", checkpoint=checkpoint, output=tmp_path / "out", **flags))
    assert message in error_of(done, 2)
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_what_is_there_is_not_written_over(checkpoint):
    done = call(command("prune", checkpoint=checkpoint, output=checkpoint, rule="keep", keep="0"))
    assert "has checkpoints already; choose another folder" in error_of(done, 2)
