"""The command against all of its candidates, each made and measured by itself."""

import dataclasses
import itertools
import json
import shutil

import numpy as np
import pytest

from scaling.compute.counting import encoder_cost
from scaling.core.rows import read_rows
from scaling.data.config import DataConfig
from scaling.encoders.loading import load_encoder
from scaling.encoders.slimmed import slim
from scaling.encoders.splits import Split, gathered, labelled_features
from scaling.evaluation.knn import knn_probe
from scaling.models.variants import Architecture
from scaling.studies.search import latency, winner
from scaling.studies.search.budgets import Budget
from scaling.studies.search.run import candidate_row
from scaling.studies.search.space import Candidate, Space, Widths
from scaling.studies.search.winner import best_within
from scaling.training.config import TrainConfig
from tests.commands import call, command, error_of
from tests.slimming.encoders import structured

SOURCE, IMAGES = "scenes?size=8&count=100", 48
SPLITS = ("train", "test")
SETS = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
FLAGS = {"axes": "layers,embed", "widths": "0.5", "blocks": "any", "images": IMAGES, "batch": 1}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    e = structured(depth=3)
    data = DataConfig(source=SOURCE, mean=(100.0,) * 3, std=(50.0,) * 3)
    folder = tmp_path_factory.mktemp("encoder") / "whole"
    dataclasses.replace(e, train=TrainConfig(model=e.config, data=data)).save(folder)
    return folder


def by_itself(encoder, fitted, held_out, widths, blocks):
    """Cost and errors of one candidate, on the images that are chosen on and on the others."""
    small = slim(encoder, widths, ordering="svd", recovery="ridge", images=fitted, blocks=blocks)
    found = small.features(held_out, normalised=True).astype(np.float64)
    full = encoder.features(held_out, normalised=True).astype(np.float64)
    if "embed" in widths:  # the channels that are left, of the patches' bias, and what they say of the others
        whole, left = encoder.params["patch"]["bias"], small.params["patch"]["bias"]
        channels = [int(np.flatnonzero(np.asarray(whole) == x)[0]) for x in np.asarray(left)]
        known = encoder.features(fitted, normalised=True).astype(np.float64)
        centred = known - known.mean(0)
        own = centred[:, channels]
        damping = np.sqrt(1e-3 * np.mean(own.var(0)) * len(own)) * np.eye(len(channels))
        rows = np.concatenate([own, damping]), np.concatenate([centred, np.zeros((len(channels), full.shape[1]))])
        maps = np.linalg.lstsq(*rows, rcond=None)[0]
        predicted = known.mean(0) + (found - known.mean(0)[channels]) @ maps
        predicted[:, channels] = found
        found = predicted
    errors = [
        np.linalg.norm((found - full)[part]) / np.linalg.norm(full[part] - full[part].mean(0))
        for part in (slice(12), slice(12, None))
    ]
    return encoder_cost(encoder.architecture, small.config)[0], *errors


@pytest.mark.parametrize("axes", [["embed"], pytest.param(["mlp", "embed"], marks=pytest.mark.long)])
def test_the_search_is_brute_force_over_all_candidates(axes, checkpoint, tmp_path):
    out, said = tmp_path / "out", tmp_path / "said.json"
    limit, flags = 4000, {**FLAGS, "axes": ",".join(["layers", *axes])}
    flags |= {"confirm": SOURCE}
    search = command("search", checkpoint=checkpoint, budget=f"params:{limit}", output=out, json=said, **flags)
    done = call(search)
    assert done.returncode == 0, done.stderr
    encoder = load_encoder(checkpoint)
    (images,) = gathered(((p.images,) for p in Split(encoder, SOURCE, "train", IMAGES).parts()), IMAGES)
    order = np.random.default_rng(0).permutation(IMAGES)
    fitted, selection, last = (images[np.sort(part)] for part in (order[:24], order[24:36], order[36:]))
    rows = read_rows(out / "rows.jsonl")
    metrics = "selection_error", "relative_error"
    measured = {metric: {row.mode: row for row in rows if row.metric == metric} for metric in metrics}
    every = {}
    for shares, blocks in itertools.product(itertools.product((0.5, 1), repeat=len(axes)), SETS):
        widths = {axis: s for axis, s in zip(axes, shares, strict=True) if s < 1}
        name = _named({"blocks": blocks, "widths": widths})
        every[name] = by_itself(encoder, fitted, np.concatenate([selection, last]), widths, blocks)
        for metric, error in zip(metrics, every[name][1:], strict=True):
            row = measured[metric][name]
            assert (row.params, row.value) == (every[name][0], pytest.approx(error, rel=5e-3, abs=1e-4)), name
            assert row.low <= row.value <= row.high
    assert [len(found) for found in measured.values()] == [len(every)] * 2
    best = min((error, name) for name, (cost, error, _) in every.items() if cost <= limit)[1]
    depth = min((error, name) for name, (cost, error, _) in every.items() if cost <= limit and "whole" in name)[1]
    content = json.loads(said.read_text())
    won = next(row for row in rows if row.metric == "winner_relative_error")
    assert won.mode == best
    assert content["winner"]["error"] == won.value == pytest.approx(every[best][2], rel=5e-3)
    gain = next(row for row in rows if row.metric == "gain_over_depth_alone")
    gains = every[depth][2] - every[best][2]
    assert (gain.mode, gain.value) == (depth, pytest.approx(gains, rel=5e-3, abs=1e-4))
    assert [_named(one) for one in content["front"]] == _front(every)
    small = load_encoder(out)
    assert sum(x.size for x in _leaves(small.params)) == every[best][0]
    assert small.cuts[-1].rule == "search"
    assert f"It gives up {won.value**2:.1%} of the variance of the features" in done.stdout
    assert (out / "figures" / "front.svg").exists()
    splits = [labelled_features(small, SOURCE, s, {"x": lambda x: small.features(x, normalised=True)}) for s in SPLITS]
    score = knn_probe(*((features["x"], labels) for features, labels in splits)).scores()["macro_accuracy"]
    (probed,) = (r.value for r in rows if (r.probe, r.metric, r.mode) == ("knn", "macro_accuracy", best))
    assert probed == pytest.approx(score)
    assert f"knn on {SOURCE}, winner: macro accuracy {score:.1%}" in done.stdout

    again = call(search)  # nothing is measured again
    assert again.returncode == 0, again.stderr
    assert read_rows(out / "rows.jsonl") == rows
    assert "candidates, " not in again.stdout.splitlines()[1]
    assert [small.cuts[-1].checkpoint, small.cuts[-1].calibration_images] == [str(checkpoint), 24]
    other = call(command("search", checkpoint=checkpoint, budget="params:5000", output=out, **flags))
    assert "has a checkpoint of something else; choose another folder" in error_of(other, 2)


def _named(candidate):
    """The name of a candidate in rows."""
    blocks = ",".join(map(str, candidate["blocks"]))
    blocks = {"0,1": "0-1", "1,2": "1-2", "0,1,2": "0-2"}.get(blocks, blocks)
    return f"blocks {blocks} of 3, " + (
        ", ".join(f"{a} {s:g}" for a, s in candidate["widths"].items()) or "whole width"
    )


def _front(every):
    """Names of the non-dominated candidates, by cost."""
    found, best = [], np.inf
    for name, (_, error, _) in sorted(every.items(), key=lambda item: item[1]):
        if error < best:
            best = error
            found.append(name)
    return found


def _leaves(tree):
    return [x for value in tree.values() for x in (_leaves(value) if isinstance(value, dict) else [value])]


def test_a_latency_is_that_of_the_winner_as_it_is_measured_whole(checkpoint, tmp_path, monkeypatch):
    """By the table two blocks take 21 ms; measured they take 26, so that one is left."""
    monkeypatch.setattr(latency, "seconds", lambda c, batch: (1e-3 * batch, 1e-3 * batch + 1e-2 * c.depth))
    monkeypatch.setattr(winner, "seconds", lambda c, batch: (0.0, 1.3e-2 * c.depth))
    flags = {**FLAGS, "axes": "layers", "blocks": "prefix", "budget": "latency:22ms"}
    done = call(command("search", checkpoint=checkpoint, output=tmp_path / "out", json=tmp_path / "said", **flags))
    assert done.returncode == 0, done.stderr
    assert "blocks 0-1 of 3, whole width takes 26ms, but 21ms was predicted; trying the next candidate" in done.stderr
    said = json.loads((tmp_path / "said").read_text())
    assert (said["winner"]["blocks"], said["winner"]["latency"]) == ([0], 1.3e-2)
    assert [one["cost"] for one in said["front"]] == pytest.approx([1.1e-2, 2.1e-2, 3.1e-2])
    assert load_encoder(tmp_path / "out").config.depth == 1
    assert "Measured whole it takes 13ms on this device." in done.stdout
    flags["budget"] = "latency:12ms"
    done = call(command("search", checkpoint=checkpoint, output=tmp_path / "less", **flags))
    assert "no candidate meets it; the cheapest that was measured, blocks 0 of 3, whole width, costs 13ms" in error_of(
        done, 2
    )
    monkeypatch.setattr(latency, "computer", lambda: {"processor": "another"})
    other = call(
        command("search", checkpoint=checkpoint, output=tmp_path / "out", **flags | {"budget": "latency:22ms"})
    )
    assert "has a checkpoint of something else" in error_of(other, 2)


def test_the_best_that_fits_measured_whole():
    """Measured times are twice those of the table, and three times if most blocks are kept."""
    some = [winner.Measured(Candidate(Widths(), tuple(range(n)), 30), 1.0 * n, 1.0 / n, 0.0) for n in range(1, 31)]
    calls = []

    def whole(candidate):
        calls.append(n := len(candidate.blocks))
        return 2.0 * n if n < 25 else 3.0 * n

    found = best_within(some, Budget("latency", 26.0, ""), whole)
    assert (len(found.candidate.blocks), calls) == (13, [26, 8, 13])
    assert best_within(some, Budget("latency", 1.5, ""), whole) is None
    assert best_within(some[:0], Budget("latency", 1.5, ""), whole) is None
    assert len(best_within(some, Budget("flops", 13.5, "")).candidate.blocks) == 13


def test_axes_with_one_share_are_one_cut():
    c = [Candidate(Widths(w), (0, 1), 3) for w in ((("mlp", 0.5), ("embed", 0.5)), (("mlp", 0.5), ("embed", 0.25)))]
    how = [[(cut.mode, cut.width_ratio) for cut in winner.cuts_of(one, "svd", {})] for one in c]
    assert how == [[("mlp+embed", 0.5), ("layers", 1.0)], [("mlp", 0.5), ("embed", 0.25), ("layers", 1.0)]]
    space = Space(Architecture(structured(depth=3).config), ("layers", "mlp", "embed"), (0.25, 0.5))
    about = dict.fromkeys(("model", "objective", "dataset", "split"), "")
    assert [candidate_row(space, one, "svd", about).width_ratio for one in c] == [0.5, 0.125]


def test_a_winner_that_was_not_written_whole_is_written_again(checkpoint, tmp_path):
    """As after a kill during saving, or if another checkpoint is there."""
    out = tmp_path / "out"
    flags = {**FLAGS, "axes": "layers", "blocks": "prefix", "budget": "flops:0.7"}
    search = command("search", checkpoint=checkpoint, output=out, **flags)
    assert call(search).returncode == 0
    rows, small, (step,) = read_rows(out / "rows.jsonl"), load_encoder(out), (out / "checkpoints").glob("[0-9]*")
    kept = step.stat().st_ctime_ns
    assert call(search).returncode == 0
    assert step.stat().st_ctime_ns == kept
    step.rename(step.with_name(f"{step.name}.orbax-checkpoint-tmp"))
    for _ in range(2):
        assert call(search).returncode == 0
        assert (load_encoder(out).cuts, read_rows(out / "rows.jsonl")) == (small.cuts, rows)
        shutil.rmtree(out / "checkpoints")
        shutil.copytree(checkpoint / "checkpoints", out / "checkpoints")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"budget": "watts:3"}, "--budget=watts:3: must be KIND:AMOUNT; give one such as latency:20ms, flops:0.2"),
        ({"budget": "latency:20"}, "--budget=latency:20: must be a positive number of us, ms, s; give one such as"),
        ({"budget": "params:20G"}, "--budget=params:20G: must be a positive number, with K, M, B behind it or nothing"),
        ({"budget": "flops:-1"}, "--budget=flops:-1: must be a positive number; give one such as flops:0.2"),
        ({"budget": "flops:1.5"}, "--budget=flops:1.5: the whole encoder costs only 1; set a smaller budget"),
        (
            {"budget": "params:100"},
            "params:100: no candidate meets it; the cheapest, blocks 0 of 3, embed 0.5, costs 0.001676M: give that",
        ),
        ({"budget": "flops:0.3", "axes": "depth"}, "unknown slimming mode 'depth'"),
        ({"budget": "flops:0.3", "widths": "2"}, "--widths=2: must be fractions of an axis, above 0 and at most 1"),
        ({"budget": "flops:0.3", "confirm": "nothing:here"}, "--confirm=nothing:here: "),
        ({"budget": "flops:0.3", "images": 4}, "--images=4: at least 32 are needed"),
        ({"budget": "latency:30s"}, "--budget=latency:30s: the whole encoder costs only"),
    ],
)
def test_wrong_input_is_one_line(checkpoint, tmp_path, flags, message):
    done = call(command("search", checkpoint=checkpoint, output=tmp_path / "out", **{**FLAGS, **flags}))
    assert message in error_of(done, 2)
    assert not (tmp_path / "out" / "checkpoints").exists()
