"""A detector learns oriented boxes, on any mesh, whatever an image holds, and is scored by the official rules."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from PIL import Image

from scaling.boxes.convert import corners
from scaling.core.errors import TrainingError, UserError
from scaling.data.config import DataConfig
from scaling.data.sources.registry import open_source
from scaling.data.targets import Quadrilaterals
from scaling.evaluation.box_pictures import FoundBoxes
from scaling.evaluation.detection import RULES
from scaling.models.config import ViTConfig
from scaling.objectives.base import Inputs
from scaling.parallel.mesh import MeshConfig
from scaling.tasks import objects as objects_of_images
from scaling.tasks.detected import detected, rows_of
from scaling.tasks.detection import Detecting
from scaling.tasks.finding import check_scores
from scaling.tasks.finetuning import Finetuning, finetune
from scaling.training.config import FinetuneConfig
from scaling.training.loop import Stopped
from scaling.training.optimizer import OptimizerConfig
from tests.encoders.examples import small_encoder
from tests.tasks.test_finetuning import Interruption
from tests.training.train_steps import BATCH, MESHES, images, on, train_step

ROOM = 6
TASK = Detecting(
    channels=16, hidden=32, proposals=20, anchor_samples=16, roi_samples=16, detections=10, most=ROOM, least_side=0.5
)
KNOWN = dataclasses.replace(TASK, classes=("a", "b"))


def objects(step):
    """Objects of a step, none to six in an image of 16 x 16 pixels; some without area, or outside."""
    rng = np.random.default_rng(step)
    shape = (BATCH, ROOM)
    parts = rng.uniform(2, 14, (*shape, 2)), rng.uniform(2, 9, (*shape, 2)), rng.uniform(-1.5, 1.5, (*shape, 1))
    boxes = np.concatenate(parts, axis=-1).astype(np.float32)
    boxes[1, :2, 3] = 0
    boxes[2, 0, :2] = 40, -30
    there = np.arange(ROOM) < rng.integers(0, ROOM + 1, (BATCH, 1))
    there[:3], there[3] = [[True] * 3 + [False] * 3], False
    return {
        "boxes": np.where(there[..., None, None], corners(boxes), 0),
        "box_class": np.where(there, rng.integers(0, 2, shape), -1).astype(np.int32),
        "box_difficult": there & (rng.random(shape) < 0.2),
        "box_valid": there,
        "box_overflow": np.r_[2994, np.zeros(BATCH - 1)].astype(np.int32),
    }


def steps(t, count=3):
    """The metrics of some steps."""
    state, rows = t.init(), []
    for step in range(count):
        state, metrics = t.step(state, on(t, image=images(step), **objects(step)))
        rows.append(jax.device_get(metrics))
    return rows


@pytest.mark.parametrize("mesh", [pytest.param(m, marks=[] if m[2] > 1 else pytest.mark.long) for m in MESHES.values()])
def test_losses_and_draws_are_those_of_the_global_batch_on_any_mesh(mesh):
    expected = steps(train_step(objective=KNOWN))
    assert len({float(row["loss"]) for row in expected}) == len(expected)
    assert all(np.isfinite(list(row.values())).all() for row in expected)
    found = steps(train_step(mesh, objective=KNOWN))
    for row, other in zip(expected, found, strict=True):
        for name in row:
            np.testing.assert_allclose(other[name], row[name], rtol=5e-4, err_msg=name)


def test_objects_are_counted_and_what_cannot_be_learned_from_is_left_out():
    row = steps(train_step(objective=KNOWN), 1)[0]
    there = objects(0)
    assert row["objects_without_room"] == 2994
    assert row["objects_left_out"] == 2
    assert row["objects"] == there["box_valid"].sum() - 2


def test_a_batch_without_an_object_has_a_loss_of_the_background_alone():
    t = train_step(objective=KNOWN)
    nothing = {name: np.zeros_like(x) for name, x in objects(0).items()}
    _, row = t.step(t.init(), on(t, image=images(0), **nothing))
    assert (row["rpn_boxes_loss"], row["boxes_loss"], row["objects"]) == (0, 0, 0)
    assert row["loss"] > 0
    assert np.isfinite(row["grad_norm"])


@pytest.fixture(scope="module")
def predict():
    """What is predicted of images, as one program for all tests."""
    return jax.jit(train_step(objective=KNOWN).objective.predict)


def test_what_is_watched_and_predicted_of_an_image_does_not_depend_on_the_others(predict):
    t = train_step(objective=KNOWN)
    state, task = t.init(), t.objective
    batch = {"image": images(5), **objects(5), "index": np.arange(BATCH, dtype=np.int32)}
    evaluate = jax.jit(task.evaluate)
    # One program: another would round otherwise, and draw other proposals where scores are nearly equal.
    evens, odds, whole = (
        evaluate(state.params, {}, batch | {"weight": weight.astype(np.float32)})
        for weight in (np.arange(BATCH) % 2 == 0, np.arange(BATCH) % 2 == 1, np.ones(BATCH))
    )
    for name in whole:
        np.testing.assert_allclose(evens[name] + odds[name], whole[name], rtol=1e-5)
    assert float(whole["weight"]) == BATCH
    assert {"loss", "rpn_objects_loss", "rpn_boxes_loss", "classes_loss", "boxes_loss", "weight"} == set(whole)
    found = jax.device_get(predict(state.params, {}, batch))
    turned = jax.device_get(predict(state.params, {}, {name: x[::-1] for name, x in batch.items()}))
    shapes = {"boxes": (10, 5), "scores": (10,), "labels": (10,), "valid": (10,)}
    assert {name: x.shape for name, x in found.items()} == {name: (BATCH, *shape) for name, shape in shapes.items()}
    assert found["valid"].any()
    for name in found:
        np.testing.assert_allclose(turned[name][::-1], found[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("where", [("encoder", "patch", "bias"), ("head",), ("head", "deltas")], ids="/".join)
def test_an_image_of_a_network_that_is_not_finite_is_not_one_without_objects(where, predict):
    t = train_step(objective=KNOWN)
    state, batch = t.init(), {"image": images(5)}
    flat = flatten_dict(jax.device_get(state.params))
    broken = {name: x + np.inf if name[: len(where)] == where else x for name, x in flat.items()}
    assert any(name[: len(where)] == where for name in flat)
    assert np.isfinite(predict(state.params, {}, batch)["scores"]).all()
    scores = jax.device_get(predict(unflatten_dict(broken), {}, batch)["scores"])
    assert np.isnan(scores).all()
    with pytest.raises(TrainingError, match="the model returns NaN or infinity for an image: give images in the units"):
        check_scores(scores[0])


@pytest.mark.parametrize("head", ["oriented_rcnn", "rotated_retinanet"])
def test_boxes_and_losses_are_float32_where_products_are_bfloat16(head):
    task = dataclasses.replace(KNOWN, head=head).make(
        small_encoder().config, Inputs((0.0,) * 3, (1.0,) * 3, "bfloat16")
    )
    shapes, _ = task.task.abstract(small_encoder().config)
    batch = {name: jnp.asarray(x) for name, x in {"image": images(0), **objects(0)}.items()}
    batch = jax.eval_shape(lambda batch: task.inputs(0, jnp.int32(0), batch), batch)
    assert {x.dtype for x in jax.eval_shape(task._maps, shapes, batch["image"])} == {jnp.dtype("bfloat16")}
    found = jax.eval_shape(task.detections, shapes, {}, batch["image"])
    assert {found[name].dtype for name in ("boxes", "scores")} == {jnp.dtype("float32")}
    loss, (_, metrics) = jax.eval_shape(task.loss, shapes, {}, batch)
    assert {x.dtype for x in (loss, *metrics.values())} == {jnp.dtype("float32")}


def marked(root, split, count, seed, size=32):
    """Images with bright bars in any direction, as DOTA has them; every fourth without one. Returns the spec."""
    rng = np.random.default_rng(seed)
    for part in ("images", "labelTxt"):
        (root / split / part).mkdir(parents=True)
    y, x = np.mgrid[:size, :size] + 0.5
    for i in range(count):
        pixels, lines = rng.normal(90, 10, (size, size, 3)), []
        for _ in range(0 if i % 4 == 3 else rng.integers(1, 3)):
            kind, turn = rng.integers(2), rng.uniform(0, np.pi)
            at, sides = rng.uniform(8, size - 8, 2), (14, 6) if kind else (9, 9)
            along = (x - at[0]) * np.cos(turn) + (y - at[1]) * np.sin(turn)
            across = (y - at[1]) * np.cos(turn) - (x - at[0]) * np.sin(turn)
            pixels[(abs(along) < sides[0] / 2) & (abs(across) < sides[1] / 2)] = (
                (230, 60, 60) if kind else (60, 60, 230)
            )
            outline = corners(np.array([*at, *sides, turn])).ravel()
            lines.append(" ".join(f"{value:.2f}" for value in outline) + (" bar 0" if kind else " block 0"))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / split / "images" / f"{i}.png")
        (root / split / "labelTxt" / f"{i}.txt").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    """A source with two classes."""
    root = tmp_path_factory.mktemp("bars")
    marked(root, "train", 48, 0)
    marked(root, "test", 24, 1)
    return f"dota:{root}?classes=bar,block"


def recipe(source, **fields):
    whole = FinetuneConfig(
        epochs=2.0,
        warmup_epochs=0.5,
        batch_size=8,
        log_every=1,
        image_size=32,
        task=dataclasses.replace(TASK, proposals=60, anchor_samples=64, roi_samples=32, detections=20, least_side=1.0),
        data=DataConfig(source=source, eval_split="test", eval_examples=8, crop_scale=(1.0, 1.0), flips="dihedral"),
        optimizer=OptimizerConfig(base_lr=0.1, beta2=0.999, clip_norm=5.0),
        mesh=MeshConfig(fsdp=4, tensor=2, min_shard_elements=0),
    )
    return dataclasses.replace(whole, **fields)


@pytest.mark.long
def test_it_is_fine_tuned_and_scored_on_every_test_image(bars, tmp_path):
    tuning = Finetuning(small_encoder(), recipe(bars))
    assert tuning.config.task.classes == ("bar", "block")
    tuned = tuning.run(tmp_path)
    metrics = tuned.trained.metrics
    assert all(np.isfinite(metrics[name]) for name in ("loss", "eval_loss", "classes_loss", "eval_rpn_boxes_loss"))
    totals = tuned.predictions.totals
    assert (totals.images, totals.classes) == (24, ("bar", "block"))
    assert sum(map(totals.truths, totals.classes)) == sum(len(tuning.test[i]["boxes"].classes) for i in range(24))
    assert set(tuned.scores()) == {"map", "map_area", "map_50_95"}
    for line in ("24 images", "rules dota", "48 images to train on", "bar", "block"):
        assert line in tuned.summary()


@pytest.mark.long
def test_it_finds_what_it_has_learned(bars, tmp_path):
    tuned = Finetuning(small_encoder(), recipe(bars, epochs=60.0, warmup_epochs=5.0)).run(tmp_path)
    assert tuned.scores()["map"] > 0.6
    low, high = tuned.predictions.intervals()["map"]
    assert 0.4 < low < tuned.scores()["map"] < high


@pytest.mark.long
def test_whole_images_of_any_size_are_looked_at_in_tiles_and_drawn(bars, tmp_path):
    marked(tmp_path / "set", "train", 48, 0)
    marked(tmp_path / "set", "test", 8, 2, size=75)
    spec = f"dota:{tmp_path / 'set'}?classes=bar,block"
    data = dataclasses.replace(recipe(spec).data, crop="ratio", resize_ratio=(1.0, 1.0))
    tuning = Finetuning(small_encoder(), recipe(spec, epochs=60.0, warmup_epochs=5.0, data=data))
    tuned = tuning.run(tmp_path / "run")
    assert sum(map(tuned.predictions.totals.truths, ("bar", "block"))) == sum(
        len(tuning.test[i]["boxes"].classes) for i in range(8)
    )
    assert tuned.scores()["map"] > 0.5
    drawn = tuning.draw(tuned.trained.state, tmp_path / "pictures")
    assert [file.name for file in drawn] == ["0.png", "1.png", "2.png", "3.png"]
    assert all(np.asarray(Image.open(file)).std() > 10 for file in drawn)


@pytest.mark.long
def test_a_signal_stops_it_after_saving_and_it_resumes_to_the_same_bits(bars, tmp_path):
    short = recipe(bars, epochs=1.0)
    stopped = Finetuning(small_encoder(), short).run(tmp_path / "run", watch=lambda *_: [Interruption()])
    assert isinstance(stopped, Stopped)
    resumed, straight = (finetune(small_encoder(), short, tmp_path / name) for name in ("run", "straight"))
    for part in ("params", "opt_state"):
        a, b = (jax.device_get(getattr(x.trained.state, part)) for x in (resumed, straight))
        jax.tree.map(np.testing.assert_array_equal, a, b)
    assert resumed.scores() == straight.scores()


@pytest.mark.long
def test_a_frozen_encoder_stays_what_it_was(bars, tmp_path):
    encoder, task = small_encoder(), dataclasses.replace(recipe(bars).task, frozen=True)
    tuned = Finetuning(encoder, recipe(bars, epochs=1.0, task=task, image_size=0)).run(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, tuned.trained.state.params["encoder"], encoder.params)


@pytest.mark.long
def test_the_backbone_of_vitdet_has_windows_and_learns_relative_positions(bars, tmp_path):
    model = ViTConfig(window=4, relative=True, remat="full")
    tuned = Finetuning(small_encoder(depth=5), recipe(bars, model=model)).run(tmp_path)
    c = tuned.config.model
    assert (c.window, c.global_blocks, c.relative, c.class_token) == (4, (1, 2, 3, 5), True, False)
    tables = tuned.trained.state.params["encoder"]["blocks"]["relative"]
    assert {name: x.shape for name, x in tables.items()} == dict.fromkeys(("rows", "columns"), (5, 1, 15, 16))
    assert all(np.abs(np.asarray(x)).max() > 0 for x in tables.values())


def test_all_objects_of_a_whole_image_are_scored_however_many_a_batch_has_room_for(tmp_path, monkeypatch):
    marked(tmp_path, "train", 4, 0, size=75)
    for file in (tmp_path / "train" / "labelTxt").iterdir():
        file.write_text("".join(f"{x} 5 {x + 3} 5 {x + 3} 12 {x} 12 bar 0\n" for x in range(0, 70, 7)))
    monkeypatch.setattr(objects_of_images, "forward_of", lambda *_: lambda pixels: first_of_each(pixels))
    c = recipe(f"dota:{tmp_path}?classes=bar,block", test_split="train", test_stride=24)
    c = dataclasses.replace(c, model=dataclasses.replace(c.model, image_size=32, patch_size=4))
    task = dataclasses.replace(c.task, classes=("bar", "block"))
    stub = SimpleNamespace(
        objective=task.make(c.model, Inputs((0.0,) * 3, (1.0,) * 3)), arrays={"image": None}, formats=None
    )
    stub.arrays = stub.objective.abstract_batch(1)
    test = objects_of_images.ObjectTest(open_source(c.data.source, "train"), c, stub)
    totals = stub.objective.predictions(test.rows(None)).totals
    assert (totals.images, totals.truths("bar")) == (4, 40)
    right, wrong = totals.matches("bar").outcomes(RULES["dota"])
    # One in the left tiles alone is right: of the others some lie elsewhere, and what two tiles found is merged.
    assert right.sum() == 4
    assert len(right) == right.sum() + wrong.sum() == 4 * 9


def first_of_each(pixels):
    """A detector that finds the first bar of an image at that place of every tile."""
    box = np.array([1.5, 8.5, 7, 3, np.pi / 2], np.float32)
    count = len(pixels)
    return {
        "boxes": np.tile(box, (count, 2, 1)),
        "scores": np.tile([0.9, 0.8], (count, 1)),
        "labels": np.zeros((count, 2), np.int32),
        "valid": np.tile([True, False], (count, 1)),
    }


def test_what_is_found_is_matched_by_class_and_image():
    rng = np.random.default_rng(0)
    there = [Quadrilaterals.of(corners(boxes), [0, 1, 1]) for boxes in scattered(rng, 3)]
    found = [FoundBoxes(of.corners, np.array([0.9, 0.8, 0.7]), of.classes) for of in there]
    whole = detected(rows_of(found, there), ("a", "b"), RULES["dota"])
    assert whole.scores() == {"map": 1, "map_area": 1, "map_50_95": 1}
    assert whole.intervals() == {"map": (1, 1), "map_area": (None, None), "map_50_95": (None, None)}
    for other in (found[::-1], [of._replace(classes=1 - of.classes) for of in found]):  # of other images, or classes
        assert detected(rows_of(other, there), ("a", "b"), RULES["dota"]).scores()["map"] < 0.5
    nothing = [of.taken(slice(0)) for of in found]
    assert detected(rows_of(nothing, there), ("a", "b"), RULES["dota"]).scores()["map"] == 0
    with pytest.raises(UserError, match="no object of 3 images counts"):
        detected(rows_of(found, [of.taken(slice(0)) for of in there]), ("a", "b"), RULES["dota"]).scores()


@pytest.mark.parametrize(
    ("anchor_size", "head", "words"),
    [
        (1.0, "oriented_rcnn", []),
        (8.0, "oriented_rcnn", ["task.anchor_size=8: ", "; with task.anchor_size=2 it is 0"]),
        (0.02, "oriented_rcnn", ["task.anchor_size=0.02: ", "; with task.anchor_size="]),
        (8.0, "rotated_retinanet", []),
    ],
)
def test_objects_that_no_anchor_reaches_are_told_before_the_training(bars, caplog, anchor_size, head, words):
    task = dataclasses.replace(recipe(bars).task, anchor_size=anchor_size, head=head)
    Finetuning(small_encoder(), recipe(bars, task=task))
    said = [record.getMessage() for record in caplog.records if "of every anchor" in record.getMessage()]
    assert len(said) == bool(words)
    assert all(word in said[0] for word in words)


def scattered(rng, images):
    """Three boxes per image, none of which overlaps one of another image."""
    for image in range(images):
        at = np.array([[20, 20], [60, 20], [20, 60]]) + 100 * image
        yield np.concatenate((at, rng.uniform(5, 20, (3, 2)), rng.uniform(-1.5, 1.5, (3, 1))), axis=1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data": DataConfig(source="scenes?size=32")}, "has classes of images, but no boxes"),
        ({"task": Detecting(classes=("a", "b"))}, "task.classes follows from"),
        ({"task": Detecting(head="faster_rcnn")}, r"task\.head='faster_rcnn': must be one of oriented_rcnn"),
        ({"task": Detecting(rules="coco")}, "task.rules='coco': must be one of dota, dior, area"),
        ({"task": Detecting(most=0)}, "task.most=0: must be at least 1"),
        ({"task": Detecting(roi_samples=2)}, "task.roi_samples=2: must be at least 4"),
        ({"task": Detecting(proposals=0)}, "task.proposals=0: must be at least 1"),
        ({"task": Detecting(anchor_size=0.0)}, "task.anchor_size=0.0: must be above 0 and finite"),
        ({"task": Detecting(least_side=-1.0)}, "task.least_side=-1.0: must not be negative"),
        ({"task": Detecting(least_score=1.0)}, "task.least_score=1.0: must be at least 0 and below 1"),
        ({"image_size": 36}, "image_size=36: the pyramid halves the 9 patches of a side; set a multiple of 8"),
        ({"image_size": 30}, r"model\.image_size=30 is not divisible by model\.patch_size=4"),
        ({"accumulate": 2}, "accumulate=2: the loss of detection"),
        ({"test_stride": 40}, "test_stride=40: must not skip pixels; windows have 32"),
        (
            {"test_stride": 8, "image_width": 48},
            "image_width=48: whole images are processed in square tiles",
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(bars, fields, message):
    with pytest.raises(UserError, match=message):
        Finetuning(small_encoder(), recipe(bars, **fields))._run.train_step  # noqa: B018
