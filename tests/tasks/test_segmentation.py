"""A head learns the class of every pixel from masks, and is scored by one confusion matrix."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from scaling.core.errors import TrainingError, UserError
from scaling.data.config import DataConfig
from scaling.evaluation.segmentation import SegmentationTotals, confusion_matrix
from scaling.evaluation.windows import Windows, sliding_classes
from scaling.models.config import ViTConfig, encoder_config
from scaling.models.heads.spatial import resize
from scaling.models.positions import resample_positions, sincos_2d
from scaling.objectives import Inputs
from scaling.parallel.mesh import MeshConfig
from scaling.tasks.classification import Labelling
from scaling.tasks.finetuning import Finetuning, finetune
from scaling.tasks.segmentation import Segmenting
from scaling.training.config import FinetuneConfig
from scaling.training.loop import Stopped
from scaling.training.optimizer import OptimizerConfig
from tests.encoders.examples import small_encoder
from tests.models.sizes import small
from tests.tasks.test_finetuning import Interruption
from tests.training.train_steps import BATCH, MESHES, images, on, train_step

TASK = Segmenting(channels=16, auxiliary_channels=8, norm_groups=8)
RECIPE = FinetuneConfig(
    epochs=8.0,
    warmup_epochs=1.0,
    batch_size=16,
    log_every=1,
    task=TASK,
    data=DataConfig(source="scenes?size=16&targets=mask", split="train[:64]", flips="dihedral"),
    test_split="test[:40]",
    optimizer=OptimizerConfig(base_lr=2e-2, layer_decay=0.75),
    mesh=MeshConfig(replica=1, fsdp=-1, min_shard_elements=0),
)


def masks(step):
    """Something to learn from the images of a step, with a part that does not count. [BATCH, 16, 16]"""
    bright = images(step).mean(-1)
    found = np.digitize(bright, [80, 110, 140]).astype(np.uint8)
    found[: BATCH // 2, :5] = 255
    return found


def steps(t, count=4):
    """The losses of some steps, and the state behind them."""
    state, losses = t.init(), []
    for step in range(count):
        state, metrics = t.step(state, on(t, image=images(step), mask=masks(step)))
        losses.append(float(metrics["loss"]))
    return losses, state


KNOWN = dataclasses.replace(TASK, classes=("a", "b", "c", "d"))


@pytest.mark.parametrize("norm", ["batch", pytest.param("group", marks=pytest.mark.long)])
@pytest.mark.parametrize("mesh", [pytest.param(m, marks=[] if m[2] > 1 else pytest.mark.long) for m in MESHES.values()])
def test_losses_and_statistics_are_those_of_the_global_batch_on_any_mesh(norm, mesh):
    task = dataclasses.replace(KNOWN, norm=norm)
    expected, state = steps(train_step(objective=task))
    assert expected[-1] < expected[0]
    assert bool(state.extra) == (norm == "batch")
    found, there = steps(train_step(mesh, objective=task))
    np.testing.assert_allclose(found, expected, rtol=2e-4)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-3, rtol=2e-3), state.extra, there.extra)


@pytest.mark.long
@pytest.mark.parametrize(
    ("mesh", "padding"),
    [
        ("fsdp 8", "zeros"),
        ("replica 2, fsdp 4", "zeros"),
        ("fsdp 4, tensor 2", "zeros"),
        ("fsdp 4, tensor 2", "masked"),
    ],
)
def test_blocks_with_windows_compute_the_same_on_any_mesh(mesh, padding):
    model = dataclasses.replace(
        encoder_config(small(branches=2, depth=3, class_token=False)),
        window=3,
        window_padding=padding,
        global_blocks=(3,),
    )
    expected, _ = steps(train_step(objective=KNOWN, model=model))
    assert expected[-1] < expected[0]
    found, _ = steps(train_step(MESHES[mesh], objective=KNOWN, model=dataclasses.replace(model, remat="full")))
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    everywhere = dataclasses.replace(model, window=0, global_blocks=())
    assert np.abs(np.subtract(steps(train_step(objective=KNOWN, model=everywhere))[0], expected)).max() > 1e-3


@pytest.mark.long
def test_microbatches_have_the_loss_of_the_whole_batch_where_norms_are_of_one_image():
    task = dataclasses.replace(KNOWN, norm="group")
    whole, parts = (steps(train_step(objective=task, accumulate=n))[0] for n in (1, 4))
    np.testing.assert_allclose(parts, whole, rtol=1e-4)
    with pytest.raises(UserError, match="accumulate=4: the loss of segmentation"):
        train_step(objective=KNOWN, accumulate=4)


def test_a_batch_without_a_pixel_that_counts_changes_no_kernel_by_its_gradient():
    t = train_step(objective=KNOWN)
    _, metrics = t.step(t.init(), on(t, image=images(0), mask=np.full((BATCH, 16, 16), 255, np.uint8)))
    assert (float(metrics["loss"]), float(metrics["grad_norm"])) == (0, 0)


@pytest.mark.parametrize("head", [*(pytest.param(x, marks=pytest.mark.long) for x in ("upernet", "mlp")), "linear"])
def test_it_learns_and_is_scored_on_every_test_image(head, tmp_path):
    optimizer = OptimizerConfig(base_lr=0.1, layer_decay=0.75)
    recipe = dataclasses.replace(RECIPE, task=dataclasses.replace(TASK, head=head), optimizer=optimizer)
    tuning = Finetuning(small_encoder(), recipe)
    assert (len(tuning.config.task.classes), tuning.config.task.ignore) == (8, 255)
    tuned = tuning.run(tmp_path)
    assert tuned.trained.metrics["eval_loss"] < 0.9 * math.log(8)
    cover = np.stack([tuning.test[i]["mask"] for i in range(40)])
    always = SegmentationTotals(tuned.config.task.classes)
    for truth in cover:
        always.add(np.full_like(truth, np.bincount(cover.ravel()).argmax()), truth)
    assert len(tuned.predictions.totals) == 40
    assert tuned.scores()["miou"] > always.scores().miou
    assert tuned.scores()["oa"] > always.scores().oa
    counted = "40 images, 10,240 pixels that count"
    for line in (counted, "miou", f"{tuned.scores()['oa']:.2%}", *tuned.config.task.classes):
        assert line in tuned.summary()


def test_predictions_are_counted_and_do_not_depend_on_what_else_is_in_the_batch():
    t = train_step(objective=KNOWN)
    _, state = steps(t)
    task, batch = t.objective, {"image": images(9), "mask": masks(9)}
    predict = jax.jit(task.predict)
    found = np.asarray(predict(state.params, state.extra, batch)["confusion"])
    np.testing.assert_array_equal(
        found[:3], predict(state.params, state.extra, {k: x[:3] for k, x in batch.items()})["confusion"]
    )
    tell = jax.jit(lambda params, extra, x: task.labels(task.logits(params, extra, x), (16, 16)))
    labels = tell(state.params, state.extra, batch["image"])
    for matrix, said, truth in zip(found, np.asarray(labels), batch["mask"], strict=True):
        np.testing.assert_array_equal(matrix, confusion_matrix(said, truth, 4)[:, :4])
    rows = jax.jit(task.evaluate)(state.params, state.extra, batch | {"weight": np.ones(BATCH, np.float32)})
    assert float(rows["weight"]) == (batch["mask"] != 255).sum() == found.sum()
    assert float(rows["accuracy"]) == np.trace(found.sum(0))


def test_logits_that_are_not_finite_are_not_the_first_class():
    t = train_step(objective=KNOWN)
    state, batch = t.init(), {"image": images(5), "mask": masks(5)}
    assert t.objective.predictions(jax.device_get(t.objective.predict(state.params, state.extra, batch)))
    broken = jax.tree.map(lambda x: x + np.inf, state.params["encoder"]["patch"])
    params = {**state.params, "encoder": {**state.params["encoder"], "patch": broken}}
    told = jax.device_get(t.objective.predict(params, state.extra, batch))
    with pytest.raises(TrainingError, match=f"returns NaN or infinity for {BATCH} of {BATCH} images: give images in"):
        t.objective.predictions(told)


def test_a_frozen_encoder_stays_what_it_was(tmp_path):
    encoder = small_encoder()
    task = dataclasses.replace(TASK, frozen=True, head="mlp")
    optimizer = OptimizerConfig(base_lr=2e-2, weight_decay=0.5)
    recipe = dataclasses.replace(RECIPE, epochs=1.0, task=task, optimizer=optimizer, test_split="test[:8]")
    tuned = Finetuning(encoder, recipe).run(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, tuned.trained.state.params["encoder"], encoder.params)
    assert tuned.trained.metrics["loss"] < math.log(8)


@pytest.mark.long
def test_images_of_another_size_have_their_positions_resampled(tmp_path):
    encoder = small_encoder()
    recipe = dataclasses.replace(RECIPE, epochs=1.0, image_size=24, test_split="test[:8]")
    tuning = Finetuning(encoder, recipe)
    c = tuning.config
    assert (c.model.image_size, c.model.position, c.model.fixed_positions) == (24, "learned", True)
    assert c.encoder == encoder.identity
    tuned = tuning.run(tmp_path)
    table = tuned.trained.state.params["encoder"]["position"]["embedding"]
    np.testing.assert_allclose(table, resample_positions(sincos_2d(4, 4, 32), (4, 4), (6, 6), antialias=False))
    with pytest.raises(UserError, match=r"is not divisible by model\.patch_size=4"):
        Finetuning(encoder, dataclasses.replace(recipe, image_size=18))


@pytest.mark.long
def test_images_that_are_not_square(tmp_path):
    recipe = dataclasses.replace(
        RECIPE, epochs=1.0, task=dataclasses.replace(TASK, head="mlp"), image_size=48, image_width=32,
        test_split="test[:8]",
    )  # fmt: skip
    tuning = Finetuning(small_encoder(), recipe)
    tuned = tuning.run(tmp_path)
    assert tuned.trained.metrics["loss"] < math.log(len(tuned.config.task.classes))
    table = tuned.trained.state.params["encoder"]["position"]["embedding"]
    np.testing.assert_allclose(table, resample_positions(sincos_2d(4, 4, 32), (4, 4), (12, 8), antialias=False))
    assert tuned.predictions.totals.matrix.sum() == 8 * 48 * 32  # every pixel of a scene has a class
    with pytest.raises(UserError, match=r"model\.image_width=30 is not divisible by model\.patch_size=4"):
        Finetuning(small_encoder(), dataclasses.replace(recipe, image_width=30))


def test_windows_are_of_patches_alone_and_written_down():
    encoder = small_encoder(depth=8, registers=1)
    task = dataclasses.replace(TASK, head="linear")
    recipe = dataclasses.replace(RECIPE, task=task, model=ViTConfig(window=3, window_padding="masked"))
    tuning = Finetuning(encoder, recipe)
    c = tuning.config
    assert (c.model.window, c.model.global_blocks, c.model.window_padding) == (3, (2, 4, 6, 8), "masked")
    assert (c.model.class_token, c.model.registers, c.model.patches) == (False, 0, c.model.tokens)
    assert c.encoder == encoder.identity
    for fields, message in (
        ({"window": -1}, r"model\.window=-1: must not be negative"),
        ({"window": 3, "global_blocks": (9,)}, "there is no block 9; name those from 1 to 8"),
        ({"global_blocks": (1,)}, "has no effect without windows; set model.window too"),
    ):
        with pytest.raises(UserError, match=message):
            Finetuning(encoder, dataclasses.replace(recipe, model=ViTConfig(**fields)))


@pytest.mark.long
def test_a_signal_stops_it_after_saving_and_it_resumes_to_the_same_bits(tmp_path):
    recipe = dataclasses.replace(RECIPE, epochs=1.0, test_split="test[:24]")
    stopped = Finetuning(small_encoder(), recipe).run(tmp_path / "run", watch=lambda *_: [Interruption()])
    assert isinstance(stopped, Stopped)
    resumed, straight = (finetune(small_encoder(), recipe, tmp_path / name) for name in ("run", "straight"))
    for part in ("params", "extra", "opt_state"):
        a, b = (jax.device_get(getattr(x.trained.state, part)) for x in (resumed, straight))
        jax.tree.map(np.testing.assert_array_equal, a, b)
    np.testing.assert_array_equal(resumed.predictions.totals.matrix, straight.predictions.totals.matrix)


@pytest.mark.long
def test_operations_are_those_that_xla_counts():
    model = small_encoder().config
    flops = train_step(objective=KNOWN, model=model).flops_per_image()
    group = dataclasses.replace(KNOWN, norm="group")
    task = dataclasses.replace(group, head="linear")
    head = (flops - train_step(objective=task, model=model).flops_per_image()) / 3  # forward, of upernet beyond linear
    counts = []
    for t in (group, task):
        made = t.make(model, Inputs((0.0,) * 3, (1.0,) * 3))
        p = jax.eval_shape(made.init, 0)
        x = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.uint8)
        forward = jax.jit(lambda p, x, made=made: made.logits(p, {}, x))
        counts.append(forward.lower(p, x).compile().cost_analysis()["flops"] / 2)
    assert head == pytest.approx(counts[0] - counts[1], rel=0.3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data": DataConfig(source="scenes?size=16", split="train[:64]")}, "has classes of images, but no masks"),
        ({"task": Segmenting(classes=("a", "b"))}, "task.classes follows from"),
        ({"task": Segmenting(head="fcn")}, "task.head='fcn': must be one of"),
        ({"task": Segmenting(layers=(1, 2, 3, 4))}, "there is no layer 3; name those from 1 to 2"),
        ({"task": Segmenting(dropout=1.0)}, "task.dropout=1.0"),
        ({"task": Segmenting(auxiliary_weight=-1.0)}, "task.auxiliary_weight=-1.0"),
        ({"image_size": -1}, "image_size=-1"),
        ({"image_width": -1}, "image_width=-1"),
        ({"image_width": 32}, "image_width=32: needs the height too; set image_size"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        Finetuning(small_encoder(), dataclasses.replace(RECIPE, **fields))


def pairs(root, sizes, split, seed=0):
    """Images of different sizes and their masks, as a folder of pairs."""
    rng = np.random.default_rng(seed)
    for i, (height, width) in enumerate(sizes):
        cover = rng.integers(3, size=(-(-height // 8), -(-width // 8))).repeat(8, 0).repeat(8, 1)[:height, :width]
        colours = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]])
        pixels = colours[cover] + rng.integers(-30, 30, (height, width, 3))
        cover[: height // 6, :3] = 255
        for kind, array in (("images", pixels), ("masks", cover)):
            file = root / split / kind / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(file)
    (root / "classes.csv").write_text("index,name\n0,red\n1,green\n2,blue\n255,void\n")
    return f"pairs:{root}"


SIZES = [(16, 16), (40, 25), (9, 30), (64, 16), (17, 50)]


def of_sizes(tmp_path, **fields):
    pairs(tmp_path / "set", [(48, 40)] * 8, "train")
    data = DataConfig(source=pairs(tmp_path / "set", SIZES, "test", 1), crop="ratio", flips="dihedral")
    recipe = dataclasses.replace(RECIPE, task=dataclasses.replace(TASK, head="linear"), data=data, batch_size=8)
    return dataclasses.replace(recipe, test_split="test", **fields)


def test_whole_test_images_of_any_size_are_told_through_windows_and_every_pixel_counts_once(tmp_path):
    tuning = Finetuning(small_encoder(), of_sizes(tmp_path))
    tuned = tuning.run(tmp_path / "run")
    state, task = jax.device_get(tuned.trained.state), tuned.task
    tell = jax.jit(lambda x: resize(task.logits(state.params, state.extra, x), x.shape[1:3]))
    expected = SegmentationTotals(tuned.config.task.classes)
    for i in range(len(SIZES)):
        example = tuning.test[i]
        expected.add(sliding_classes(example["image"], tell, Windows((16, 16), (12, 12))), example["mask"])
    totals = tuned.predictions.totals
    assert (len(totals), totals.matrix.sum()) == (len(SIZES), expected.matrix.sum())
    assert np.abs(totals.matrix - expected.matrix).sum() < 0.01 * expected.matrix.sum()  # ties
    assert tuned.scores()["oa"] > 0.6
    drawn = tuning.draw(tuned.trained.state, tmp_path / "pictures")
    assert [file.name for file in drawn] == ["0.png", "1.png", "2.png", "3.png"]
    assert all(np.asarray(Image.open(file)).std() > 10 for file in drawn)


@pytest.mark.long
def test_images_of_the_size_of_the_model_are_scored_as_before(tmp_path):
    recipe = dataclasses.replace(RECIPE, epochs=1.0, task=dataclasses.replace(TASK, head="linear"))
    resized = Finetuning(small_encoder(), recipe)
    tuned = resized.run(tmp_path)
    windowed = Finetuning(small_encoder(), dataclasses.replace(recipe, test_stride=16))
    again = windowed.run(tmp_path, change=("test_stride",))
    np.testing.assert_array_equal(again.predictions.totals.matrix, tuned.predictions.totals.matrix)
    for name, interval in tuned.predictions.intervals().items():
        assert again.predictions.intervals()[name] == interval  # the images are in the same order
    assert len(resized.draw(tuned.trained.state, tmp_path / "pictures")) == 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"test_stride": 17}, "test_stride=17: must not skip pixels; windows have 16"),
        ({"test_stride": -1}, "test_stride=-1: must not be negative"),
        (
            {"test_stride": 4, "task": Labelling(), "data": DataConfig(source="scenes?size=16", split="train[:64]")},
            "test_stride=4: classification has no windows; leave it out",
        ),
    ],
    ids=str,
)
def test_strides_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        Finetuning(small_encoder(), dataclasses.replace(RECIPE, **fields))
