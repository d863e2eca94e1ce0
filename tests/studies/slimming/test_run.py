"""A sweep measures every cell once, beside the full encoder, and resumes where it stopped."""

import dataclasses

import numpy as np
import pytest

from scaling.core.errors import UserError
from scaling.core.rows import config_hash, read_rows
from scaling.data.config import DataConfig
from scaling.data.prepare import Preparation, convert
from scaling.encoders.controls import random_weights
from scaling.encoders.handmade import floor_features
from scaling.encoders.loading import load_encoder
from scaling.encoders.slimmed import slim
from scaling.evaluation.knn import knn_probe
from scaling.models.config import ViTConfig
from scaling.studies.checking import recompute
from scaling.studies.grid import Grid, part
from scaling.studies.journal import Journal
from scaling.studies.slimming import measure as measuring
from scaling.studies.slimming.cells import SlimmingStudyConfig
from scaling.studies.slimming.datasets import DatasetConfig, load
from scaling.studies.slimming.measure import Bench, cut_plan
from scaling.studies.slimming.run import cells, complete, study_jobs
from scaling.tasks.finetuning import Finetuning
from scaling.training.config import FinetuneConfig
from scaling.training.optimizer import OptimizerConfig
from tests.data.examples import class_folders, jpeg, png, smooth

SCENES = DatasetConfig(source="scenes?size=16&count=80")
CONFIG = SlimmingStudyConfig(
    widths=(0.25, 1.0),
    orderings=("first", "svd"),
    recoveries=("none", "ridge"),
    controls=("band_statistics", "random_weights"),
    floors=("handmade",),
    datasets={"scenes": SCENES},
    calibration=32,
    components=4,
    draws=50,
)
PUBLISHED = ("first", "none", "pretrained")
ABOUT = {"model": "tiny", "objective": "mae", "step": 40, "samples_seen": 640, "config_hash": "h"}


@pytest.fixture(scope="module")
def encoder(uninterrupted_run):
    return load_encoder(uninterrupted_run[0])


@pytest.fixture(scope="module")
def finished(encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    return folder / "rows.jsonl", measure(encoder, CONFIG, folder)


def grid_of(encoder, c, folder, task=0, tasks=1):
    journal = Journal(folder, task, tasks, complete)
    return Grid(part(study_jobs(encoder, c, ABOUT), task, tasks), journal), journal


def measure(encoder, c, folder, task=0, tasks=1):
    """Measures the remaining cells; returns their number."""
    (grid, journal), ended = grid_of(encoder, c, folder, task, tasks), []
    with journal.open():
        outcome = grid.run(ended=ended.append)
    outcome.check("cells", "measured")
    return len(ended)


def only(rows, **fields):
    (row,) = [r for r in rows if all(getattr(r, name) == value for name, value in fields.items())]
    return row


def test_depth_is_an_axis_like_others(encoder):
    c = dataclasses.replace(CONFIG, modes=("layers",), widths=(0.5, 1.0), controls=(), floors=())
    rows = {job.template.depth_ratio: job.template for job in study_jobs(encoder, c, ABOUT)}
    assert set(rows) == {0.5, 1.0}
    assert {(row.mode, row.ordering, row.recovery) for row in rows.values()} == {("layers", "first", "none")}
    assert rows[0.5].flops < 0.6 * rows[1.0].flops


def test_every_cell_has_its_rows(finished):
    path, measured = finished
    assert measured == len(list(cells(CONFIG, 2))) == 2 + 2 * 4 + 2
    rows = read_rows(path)
    assert len({row.identity for row in rows}) == len(rows)
    assert {row.metric for row in rows if row.probe == "knn"} == {
        f"{score}{kind}"
        for score in ("accuracy", "macro_accuracy")
        for kind in ("", "_retention", "_retention_above_chance", "_gain")
    }


def test_a_gain_is_over_the_published_cut_of_the_same_width(finished):
    rows = [row for row in read_rows(finished[0]) if row.model == "tiny" and row.width_ratio == 0.25]
    for metric in ("accuracy", "macro_accuracy"):
        published = only(rows, ordering="first", recovery="none", metric=metric).value
        assert not [r for r in rows if (r.ordering, r.recovery, r.metric) == ("first", "none", f"{metric}_gain")]
        for ordering, recovery in (("first", "ridge"), ("svd", "none"), ("svd", "ridge")):
            gain = only(rows, ordering=ordering, recovery=recovery, metric=f"{metric}_gain")
            score = only(rows, ordering=ordering, recovery=recovery, metric=metric).value
            assert gain.value == pytest.approx(score - published)
            assert gain.low <= gain.value <= gain.high


def test_every_interval_of_a_study_follows_from_the_outcomes_in_its_rows(finished):
    rows = read_rows(finished[0])
    found = list(recompute(rows, CONFIG.draws))
    assert all(one.agrees for one in found)
    assert {one.row.identity for one in found} == {row.identity for row in rows if row.probe == "knn"}
    assert [row.probe for row in rows].count("labels") == 1


def test_hand_made_features_are_a_control(encoder, finished):
    splits = load(encoder, SCENES)
    features = floor_features("handmade", {name: split.images for name, split in splits.items()})
    expected = knn_probe(*((features[name], splits[name].labels) for name in ("train", "test"))).scores()
    row = only(read_rows(finished[0]), ordering="handmade", metric="macro_accuracy")
    assert row.value == pytest.approx(expected["macro_accuracy"])
    assert (row.mode, row.flops, row.params, row.compute) == ("control", 0, 0, 0.0)


def test_scores_are_those_of_the_cut_encoder(encoder, finished):
    splits = load(encoder, SCENES)
    small = slim(encoder, 0.25)
    features = {name: small.features(split.images, normalised=True) for name, split in splits.items()}
    train, test = ((features[name], splits[name].labels) for name in ("train", "test"))
    expected = knn_probe(train, test).scores()
    rows = [r for r in read_rows(finished[0]) if (r.width_ratio, r.ordering, r.recovery) == (0.25, "first", "none")]
    row = only(rows, model="tiny", metric="macro_accuracy")
    assert row.value == pytest.approx(expected["macro_accuracy"])
    assert row.low <= row.value <= row.high
    full = encoder.features(splits["test"].images, normalised=True)
    error = np.linalg.norm(features["test"] - full) / np.linalg.norm(full - full.mean(0))
    assert only(rows, model="tiny", metric="relative_error").value == pytest.approx(error, rel=1e-4)


def test_what_is_kept_of_a_score_that_is_not_above_chance_is_not_defined(encoder, tmp_path):
    rng = np.random.default_rng(0)
    for split, counts in (("train", (72, 8)), ("test", (54, 6))):  # nothing to learn, one class in ten images
        for name, count in zip("ab", counts, strict=True):
            folder = tmp_path / "set" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                folder.joinpath(f"{i:03d}.png").write_bytes(png(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)))
    noise = DatasetConfig(source=f"folder:{tmp_path / 'set'}")
    one = dataclasses.replace(CONFIG, widths=(0.5,), neighbours=1, controls=(), datasets={"noise": noise}, draws=200)
    path = tmp_path / "rows.jsonl"
    measure(encoder, one, path.parent)
    rows = [r for r in read_rows(path) if r.metric == "accuracy_retention_above_chance"]
    assert rows
    assert {(r.value, r.low, r.high) for r in rows} == {(None, None, None)}
    assert "NaN" not in path.read_text()


def test_a_cell_that_fails_is_named_when_the_others_are_measured(encoder, tmp_path, monkeypatch):
    def broken(self, cell, template):
        if cell.width == 0.5 and cell.mode != "control":
            raise UserError("training features must be finite")
        return measured(self, cell, template)

    measured = Bench.measure
    monkeypatch.setattr(Bench, "measure", broken)
    two = dataclasses.replace(CONFIG, probes=("knn",), widths=(0.5, 1.0), controls=("depth_0",), draws=20)
    path = tmp_path / "rows.jsonl"
    with pytest.raises(UserError, match=r"cells could not be measured, but all others were; the first: .*width=0.5"):
        measure(encoder, two, path.parent)
    assert {r.width_ratio for r in read_rows(path) if r.mode != "control"} == {1.0}
    assert any(r.ordering == "depth_0" for r in read_rows(path))


def test_a_data_set_that_cannot_be_read_ends_the_study_at_once(encoder, tmp_path, monkeypatch):
    opened = []

    def counted(encoder, c):
        opened.append(c.test_split)
        return load(encoder, c)

    monkeypatch.setattr(measuring, "load", counted)
    mistyped = dataclasses.replace(SCENES, test_split="tset")
    with pytest.raises(UserError, match=r"^(?!\d+ cells).*'tset'"):
        measure(encoder, dataclasses.replace(CONFIG, datasets={"scenes": mistyped}), tmp_path)
    assert opened == ["tset"]
    assert "failed" not in (tmp_path / "jobs.jsonl").read_text()


def test_images_without_a_label_are_no_class(encoder, tmp_path):
    root = class_folders(tmp_path / "set", 4)
    (root / "preview.jpg").write_bytes(jpeg(smooth(1)))
    message = "1 of 9 images have no label, first preview.jpg; move unlabelled images out"
    with pytest.raises(UserError, match=message):
        load(encoder, DatasetConfig(source=f"folder:{root}", train_split="train", test_split="train"))
    prepared = tmp_path / "prepared"  # which does not know its labels before it has read them
    convert(Preparation(f"folder:{root}", ("train",), str(prepared)), 1, lambda n: None, lambda n: None)
    with pytest.raises(UserError, match=r"an image has no label, first preview.jpg"):
        load(encoder, DatasetConfig(source=f"arrayrecord:{prepared}", test_split="train"))


def test_the_full_encoder_keeps_everything(finished):
    rows = [r for r in read_rows(finished[0]) if r.model == "tiny" and r.width_ratio == 1 and r.mode == "inner"]
    for row in rows:
        if row.metric.endswith("_retention") and row.ordering == "first":
            assert (row.value, row.low, row.high) == (1, 1, 1)
        if row.metric == "relative_error":
            assert row.value < 1e-3
    assert {row.compute for row in rows} == {1.0}


def test_what_a_row_cost_is_what_is_left(finished):
    rows = read_rows(finished[0])
    small, full = (
        only(rows, model="tiny", ordering="first", recovery="none", metric="accuracy", width_ratio=w) for w in (0.25, 1)
    )
    assert small.params < full.params
    assert small.flops / full.flops == pytest.approx(small.compute)
    assert only(rows, ordering="band_statistics", metric="accuracy").flops == 0


def test_a_finished_sweep_does_nothing_and_a_torn_one_repeats_one_cell(encoder, finished, tmp_path):
    rows = finished[0].read_bytes()
    assert not grid_of(encoder, CONFIG, finished[0].parent)[0].todo()
    path = tmp_path / "rows.jsonl"
    path.write_bytes(rows[:-40])
    assert measure(encoder, CONFIG, tmp_path) == 1
    assert path.read_bytes() == rows


def test_two_tasks_measure_what_one_does(encoder, finished, tmp_path):
    assert measure(encoder, CONFIG, tmp_path, 1, 2) + measure(encoder, CONFIG, tmp_path, 0, 2) == finished[1]
    assert {row.identity: row for row in read_rows(tmp_path / "rows.jsonl")} == {
        row.identity: row for row in read_rows(finished[0])
    }
    assert measure(encoder, CONFIG, tmp_path) == 0


def test_seeds_are_for_what_depends_on_them():
    c = dataclasses.replace(CONFIG, floors=(), seeds=(0, 1, 2), orderings=("first", "random"), recoveries=("none",))
    seeds = {}
    for cell in cells(c, 2):
        seeds.setdefault((cell.ordering, cell.weights), set()).add(cell.seed)
    assert seeds == {
        ("band_statistics", "pretrained"): {0},
        ("first", "pretrained"): {0},
        ("random", "pretrained"): {0, 1, 2},
        ("first", "random_weights"): {0, 1, 2},
    }


def test_chosen_pairs_replace_every_pair_and_the_full_width_is_measured_once():
    every = SlimmingStudyConfig(widths=(0.25, 1.0), controls=(), floors=())
    c = dataclasses.replace(every, pairs=("first+none", "svd+ridge"))
    assert [(cell.width, cell.ordering, cell.recovery) for cell in cells(c, 2)] == [
        (0.25, "first", "none"),
        (1.0, "first", "none"),
        (0.25, "svd", "ridge"),
    ]
    assert (every.calibrates, c.calibrates) == (False, True)
    assert config_hash(dataclasses.asdict(every)) == "84e84938bedc"  # as before there was the field
    assert config_hash(dataclasses.asdict(c)) != "84e84938bedc"
    for wrong in ("svd", "ridge+svd"):
        with pytest.raises(UserError, match=rf"pairs: '{wrong[:4]}.*' is not ORDERING\+RECOVERY; write for example"):
            dataclasses.replace(CONFIG, pairs=(wrong,)).check()
    with pytest.raises(UserError, match=r"pairs=\('svd\+ridge',\): must begin with first\+none, the published cut"):
        dataclasses.replace(CONFIG, pairs=("svd+ridge",)).check()
    with pytest.raises(UserError, match=r"orderings=\('first', 'svd'\), .*: are not used beside pairs="):
        dataclasses.replace(CONFIG, pairs=("first+none", "svd+ridge")).check()


def test_every_depth_is_a_cell_of_its_own():
    c = dataclasses.replace(
        CONFIG, modes=("inner", "layers"), every_depth=True, floors=(), controls=("random_weights",)
    )
    c.check()
    whole = ViTConfig(depth=6)
    for weights in ("pretrained", "random_weights"):
        of = [cell for cell in cells(c, 6) if (cell.mode, cell.weights) == ("layers", weights)]
        assert [cut_plan(whole, "layers", cell.width)["layers"] for cell in of] == [1, 2, 3, 4, 5, 6]
    assert {cell.width for cell in cells(c, 6) if cell.mode == "inner"} == set(c.widths)
    with pytest.raises(UserError, match=r"every_depth=True: is only for the mode layers; set modes=\('layers',\)"):
        dataclasses.replace(c, modes=("inner",)).check()


def test_the_score_of_a_depth_is_that_of_the_encoder_cut_to_it(encoder, tmp_path):
    c = dataclasses.replace(CONFIG, modes=("layers",), every_depth=True, floors=())
    measure(encoder, c, tmp_path)
    rows, images = read_rows(tmp_path / "rows.jsonl"), load(encoder, SCENES)
    for name, whole in (("tiny", encoder), ("random_weights", random_weights(encoder, 0))):
        for share in (0.5, 1.0):
            cut = slim(whole, share, "layers")
            train, test = ((cut.encode(images[split].images), images[split].labels) for split in ("train", "test"))
            expected = knn_probe(train, test, k=c.neighbours, metric=c.distance).scores()["macro_accuracy"]
            where = {"model": name, "depth_ratio": share, "mode": "layers", "probe": "knn", "metric": "macro_accuracy"}
            assert only(rows, **where).value == expected


@pytest.mark.parametrize(("probes", "seeds"), [(("knn",), {0}), (("knn", "linear"), {0, 1}), (("finetune",), {0, 1})])
def test_what_gains_are_over_is_measured_with_every_seed_that_its_probe_depends_on(probes, seeds):
    c = dataclasses.replace(CONFIG, probes=probes, seeds=(0, 1))
    published = [cell for cell in cells(c, 2) if (cell.ordering, cell.recovery, cell.weights) == PUBLISHED]
    assert {(cell.width, cell.seed) for cell in published} == {(width, seed) for width in c.widths for seed in seeds}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"orderings": ("best",)}, "orderings: unknown 'best'; choose from: first"),
        ({"modes": ("depth",)}, "unknown slimming mode 'depth'"),
        ({"datasets": {}}, "datasets is empty"),
        ({"pool": "max"}, "pool='max'"),
    ],
    ids=str,
)
def test_wrong_settings_are_one_sentence(fields, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(CONFIG, **fields).check()


@pytest.mark.long
def test_fine_tuning_is_a_probe_of_whatever_has_blocks(encoder, tmp_path):
    optimizer = OptimizerConfig(base_lr=1e-2)
    recipe = FinetuneConfig(epochs=2.0, warmup_epochs=0.0, batch_size=16, optimizer=optimizer)
    c = dataclasses.replace(
        CONFIG,
        widths=(1.0,),
        orderings=("first",),
        recoveries=("none",),
        controls=("band_statistics",),
        floors=(),
        probes=("finetune",),
        finetune=recipe,
    )
    path = tmp_path / "rows.jsonl"
    measure(encoder, c, path.parent)
    rows = read_rows(path)
    assert {row.ordering for row in rows if row.probe == "features"} == {"band_statistics", "first"}
    data = DataConfig(source=SCENES.source)
    alone = Finetuning(encoder, dataclasses.replace(recipe, data=data)).run(tmp_path / "run")
    assert only(rows, probe="finetune", metric="macro_accuracy").value == pytest.approx(
        alone.scores()["macro_accuracy"]
    )
