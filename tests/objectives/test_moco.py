"""Momentum contrast is the published one, on any mesh, and what it pretrains is an encoder like any other."""

import dataclasses
import functools
import re
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.compute.counting import flops, step_flops, whole_image
from scaling.core.config import config_dict
from scaling.core.errors import UserError
from scaling.data.config import DataConfig
from scaling.encoders.loading import load_encoder
from scaling.models.config import ViTConfig
from scaling.models.moco import init_heads
from scaling.models.variants import encoder
from scaling.models.vit import abstract_vit, position_embedding
from scaling.objectives import Inputs
from scaling.objectives.moco import MomentumContrast
from scaling.training.config import TrainConfig
from scaling.training.notes import notes
from scaling.training.optimizer import OptimizerConfig
from scaling.training.parametrization import ParametrizationConfig, initial
from tests.commands import command, finish, finish_together, free_port, rows_of, start
from tests.objectives import contrast_reference as published
from tests.objectives.resuming import resumed_to_the_last_bit
from tests.training.train_steps import BATCH, MESHES, assert_trees_equal, images, on, train_step
from tpu.compiler import table

TINY = MomentumContrast(hidden=6, outputs=4)
STEPS = 3


def tiny(**fields) -> ViTConfig:
    sizes = {"image_size": 4, "patch_size": 2, "width": 4, "depth": 1, "heads": 2, "head_dim": 2, "mlp": 6}
    return encoder("vit_ti", **{"position": "sincos_rows", **sizes, **fields})


def views(step, count=6):
    return np.random.default_rng(step).integers(0, 256, (2, count, 4, 4, 3), dtype=np.uint8)


def doubles(tree):
    return jax.tree.map(lambda x: np.array(x, np.float64), tree)


@functools.cache
def both():
    """Three steps of gradient descent in float64, on each side by its own gradients: our results, the published
    ones, and the state from which the latter began each step.
    """
    with jax.enable_x64():
        inputs = Inputs((128.0,) * 3, (64.0,) * 3, jnp.float64, STEPS)  # exact in float32 too
        objective = TINY.make(tiny(), inputs)
        start = doubles(jax.jit(objective.init)(0))
        start["encoder"]["cls"]["token"] += np.random.default_rng(9).normal(size=4)
        for layer in (start["projector"]["layer_0"], start["predictor"]["layer_0"]):
            layer["bias"] += np.random.default_rng(5).normal(size=6)

        @jax.jit
        def found(params, extra, batch, step):
            def loss(p):
                return objective.loss(p, extra, objective.inputs(0, step, batch))

            return jax.value_and_grad(loss, has_aux=True)(params)

        params, extra, ours = start, objective.init_extra(start), []
        for step in range(STEPS):
            batch = dict(zip(("image", "image_1"), views(step), strict=True))
            (loss, (extra, _)), gradient = found(params, extra, batch, jnp.int32(step))
            ours.append((float(loss), doubles(gradient), doubles(extra["momentum"])))
            params = jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient)
    c, theirs, given = published.Published(2, STEPS), [], []
    params, momentum = start, {part: start[part] for part in ("encoder", "projector")}
    for step in range(STEPS):
        pair = (views(step).astype(float) - 128) / 64
        given.append((params, momentum, pair))
        loss, keys, momentum = published.step_of(params, momentum, pair, step, c)
        gradient = published.gradients(params, keys, pair, c)
        theirs.append((loss.real, gradient, momentum))
        params = jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient)
    return ours, theirs, given


def test_three_steps_are_those_of_the_published_formulas_to_1e_9():
    ours, theirs, _ = both()
    for (loss, gradient, momentum), (their_loss, their_gradient, their_momentum) in zip(ours, theirs, strict=True):
        assert loss == pytest.approx(their_loss, rel=1e-9)
        for mine, other in ((gradient, their_gradient), (momentum, their_momentum)):
            assert jax.tree.structure(mine) == jax.tree.structure(other)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11), mine, other)
    moving = [np.abs(g).max() for path, g in published.leaves(theirs[-1][1]) if "patch" not in path]
    assert min(moving) > 1e-6 or sum(m > 1e-6 for m in moving) >= len(moving) - 1  # no key has a gradient by its bias


@pytest.mark.parametrize(
    "mistake",
    [{"keys_first": True}, {"one_sided": True}, {"local_batches": 2}, {"factor": 1.0}, {"momentum": 0.9}],
    ids=str,
)
def test_the_comparison_finds_a_mistake(mistake):
    """For each step, from the same parameters and the same previous momentum encoder."""
    ours, _, given = both()
    c = published.Published(2, STEPS, **mistake)
    far = [
        abs(published.step_of(params, momentum, pair, step, c)[0].real / loss - 1)
        for step, ((loss, _, _), (params, momentum, pair)) in enumerate(zip(ours, given, strict=True))
    ]
    assert max(far) > 1e-7


def test_parameters_are_drawn_as_published():
    model = encoder("vit_ti", image_size=32, patch_size=4, width=96, depth=2, heads=3, head_dim=32, mlp=384)
    drawn = jax.jit(MomentumContrast(hidden=64).make(model, Inputs((0.0,) * 3, (1.0,) * 3)).init)(0)
    qkv, token = drawn["encoder"]["blocks"]["qkv"]["kernel"], drawn["encoder"]["cls"]["token"]
    bounds = {
        "qkv": (qkv, (6 / (96 + 96)) ** 0.5),
        "mlp": (drawn["encoder"]["blocks"]["mlp_in"]["kernel"], (6 / (96 + 384)) ** 0.5),
        "patch": (drawn["encoder"]["patch"]["kernel"], (6 / (48 + 96)) ** 0.5),
        "projector": (drawn["projector"]["layer_0"]["kernel"], 96**-0.5),
        "predictor": (drawn["predictor"]["layer_1"]["kernel"], 64**-0.5),
    }
    for kernel, bound in bounds.values():
        assert 0.99 * bound < np.abs(kernel).max() <= bound * (1 + 1e-6)
        assert np.std(kernel) == pytest.approx(bound / 3**0.5, rel=0.05)
    assert np.std(token) == pytest.approx(1e-6, rel=0.3)
    assert (
        set(drawn["projector"]["layer_2"]) == set(drawn["predictor"]["layer_1"]) == {"kernel"}
    )  # no affine at the end


def test_fixed_positions_are_the_published_ones():
    table = position_embedding({}, tiny(image_size=12, width=16))
    np.testing.assert_allclose(table, published.positions(6, 16), atol=1e-6)


def contrast_step(mesh):
    """No size equals that of a batch, so that collectives can be recognised by shape."""
    sizes = {"width": 48, "depth": 2, "heads": 4, "head_dim": 12, "mlp": 56, "branches": 2}
    model = encoder("vit_ti", image_size=16, patch_size=4, **sizes)
    fields = {"objective": MomentumContrast(hidden=40, outputs=24), "optimizer": OptimizerConfig(base_lr=2e-3)}
    return train_step(mesh, model=model, steps=6, **fields)


def pair_of(step):
    """Two views of images that differ in colour, contrast and place: the second is mirrored and darker."""
    colours = np.random.default_rng(step).uniform(0.1, 1, (BATCH, 1, 1, 3))
    image = (images(step) * colours).astype(np.uint8)
    return {"image": image, "image_1": image[:, :, ::-1] // 4 * 3}


@functools.cache
def some_steps(mesh, steps=3):
    t = contrast_step(mesh)
    state, rows = t.init(), []
    for step in range(steps):
        state, metrics = t.step(state, on(t, **pair_of(step)))
        rows.append([float(metrics[name]) for name in ("loss", "contrast_accuracy", "grad_norm")])
    return t, state, np.array(rows)


def same_as_alone(mesh):
    """Losses and gradients, and of all activations the keys alone are gathered over the batch."""
    (losses, shares, gradients), alone = some_steps(mesh)[2].T, some_steps((1, 1, 1))[2].T
    np.testing.assert_allclose(losses, alone[0], rtol=1e-5)
    np.testing.assert_array_equal(shares, alone[1])
    np.testing.assert_allclose(gradients, alone[2], rtol=1e-4)

    t, state, _ = some_steps(mesh)
    assert t.shardings.extra["momentum"]["projector"] == t.shardings.params["projector"]
    program = t.step.lower(state, on(t, **pair_of(0))).compile().as_text()
    sent = [tuple(map(int, shape.split(","))) for shape in re.findall(r"\[([\d,]+)\]\S* all-gather", program)]
    assert [shape for shape in sent if {BATCH, 2 * BATCH} & {*shape}] == [(BATCH, 2, 24)]


def test_the_mesh_changes_nothing_and_sends_no_activations_but_the_keys():
    same_as_alone(MESHES["fsdp 4, tensor 2"])


@pytest.mark.long
@pytest.mark.parametrize("mesh", ["fsdp 8", "replica 2, fsdp 4"])
def test_other_meshes_change_nothing(mesh):
    same_as_alone(MESHES[mesh])


def test_held_out_images_are_contrasted_among_themselves():
    """Padding is excluded from statistics and keys: ten images of sixteen give the same as ten alone."""
    t, state, _ = some_steps((1, 1, 1))
    pair = pair_of(9)

    def found(pair, weight):
        return jax.jit(t.objective.evaluate)(state.params, t.beside(state), {**pair, "weight": weight})

    padded = found({**pair, "image": np.where(np.arange(BATCH)[:, None, None, None] < 10, pair["image"], 0)}, TEN)
    alone = found({name: x[:10] for name, x in pair.items()}, TEN[:10])
    for name, value in alone.items():
        assert float(padded[name]) == pytest.approx(float(value), rel=1e-5)
    nothing = found(pair, 0 * TEN)
    assert {name: float(x) for name, x in nothing.items()} == dict.fromkeys(nothing, 0.0)


TEN = (np.arange(BATCH) < 10).astype(np.float32)
RUN = TrainConfig(
    steps=4, batch_size=16, checkpoint_every=2, log_every=1, eval_every=4,
    model=tiny(image_size=16, patch_size=8, width=16, mlp=32, heads=2, head_dim=8, depth=2),
    objective=MomentumContrast(hidden=24, outputs=8),
    data=DataConfig(source="scenes?size=16&count=128", photometric="byol", threads=2),
    optimizer=OptimizerConfig(base_lr=0.02, warmup=1, weight_decay=0.1),
)  # fmt: skip


@pytest.mark.long
def test_a_run_resumes_to_the_last_bit_and_leaves_an_encoder(tmp_path):
    names = ("loss", "contrast_accuracy", "eval_loss", "eval_contrast_accuracy")
    done = resumed_to_the_last_bit(RUN, tmp_path, names)
    params, momentum = done.state.params, done.state.extra["momentum"]
    for kept in (momentum["encoder"]["patch"], load_encoder(tmp_path / "a").params["patch"]):
        assert_trees_equal(kept, params["encoder"]["patch"])
    first = load_encoder(tmp_path / "b", step=2)
    assert_trees_equal(first.params["patch"], params["encoder"]["patch"])  # frozen: neither trained nor decayed
    assert np.abs(first.params["blocks"]["qkv"]["kernel"] - params["encoder"]["blocks"]["qkv"]["kernel"]).max() > 1e-4
    pixels = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype(np.float32)
    assert first.objective == "moco"
    assert load_encoder(tmp_path / "a").features(pixels, "cls", normalised=True).shape == (3, 16)
    assert load_encoder(tmp_path / "a", width_ratio=0.5, mode="token").features(pixels, normalised=True).shape == (3, 8)


def get_config():  # this file is a config file too
    return config_dict(RUN)


def run_command(workdir, **fields):
    overrides = {"steps": 30, "checkpoint_every": 5, "mesh.min_shard_elements": 0, **fields}
    flags = {name: value for name, value in overrides.items() if name in ("coordinator", "processes", "process")}
    of_config = {f"config.{name}": value for name, value in overrides.items() if name not in flags}
    return command("train", config=__file__, workdir=workdir, **of_config, **flags)


@pytest.mark.long
def test_a_killed_run_resumes_to_the_last_bit_on_a_mesh(tmp_path):
    mesh = {"mesh.fsdp": 4, "mesh.tensor": 2}
    finish_together([start(run_command(tmp_path / "straight", **mesh), devices=8)])
    process, log = start(run_command(tmp_path / "killed", **mesh), devices=8), tmp_path / "killed" / "metrics.jsonl"
    while process.poll() is None and (not log.exists() or log.read_text().count("\n") < 12):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert finish(process).returncode == -signal.SIGKILL
    finish_together([start(run_command(tmp_path / "killed", **mesh), devices=8)])
    for name in ("loss", "contrast_accuracy", "eval_loss", "eval_contrast_accuracy"):
        rows = [[row[name] for row in rows_of(tmp_path / run) if name in row] for run in ("straight", "killed")]
        assert rows[0] == rows[1]


@pytest.mark.long
def test_two_processes_contrast_with_the_images_of_both(tmp_path):
    few = {"steps": 4, "optimizer.base_lr": 2e-3}
    together = {"coordinator": f"localhost:{free_port()}", "processes": 2}
    finish_together([start(run_command(tmp_path / "two", **few, **together, process=k), devices=4) for k in range(2)])
    finish_together([start(run_command(tmp_path / "one", **few))])
    losses = [[row["loss"] for row in rows_of(tmp_path / run)] for run in ("one", "two")]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("objective", "model", "message"),
    [
        ({"hidden": 0}, {}, r"objective\.hidden=0: must be at least 1"),
        ({"temperature": 0.0}, {}, r"objective\.temperature=0\.0: must be above 0"),
        ({"momentum": 1.5}, {}, r"objective\.momentum=1\.5: must be at least 0 and at most 1"),
        (
            {"pool": "cls"},
            {"class_token": False},
            r"objective\.pool=cls: must be mean, or cls if the encoder has a class token",
        ),
        ({"pool": "tokens"}, {}, r"objective\.pool=tokens"),
        ({"initialisation": "x"}, {}, r"objective\.initialisation=x: must be one of moco, mae"),
        ({}, {"position": "sincos_columns"}, r"model\.position='sincos_columns': must be one of sincos, sincos_rows"),
    ],
)
def test_wrong_input_is_named(objective, model, message):
    with pytest.raises(UserError, match=message):
        TrainConfig(objective=MomentumContrast(**objective), model=tiny(**model)).check()


def test_what_cannot_be_contrasted_is_named():
    with pytest.raises(UserError, match=r"accumulate=2: the loss of moco needs the whole batch.* set accumulate=1"):
        train_step(model=tiny(), objective=TINY, accumulate=2)
    t = train_step(model=tiny(), objective=TINY, batch_size=1)
    with pytest.raises(UserError, match=r"batch_size=1: contrast and batch statistics need several images"):
        jax.eval_shape(t.objective.inputs, 0, jnp.int32(0), t.objective.abstract_batch(1))


@pytest.mark.parametrize("frozen", [True, False])
def test_operations_are_those_of_both_views_and_of_their_keys(frozen):
    model, c = tiny(depth=2, mlp=10), MomentumContrast(hidden=6, outputs=4, frozen_patches=frozen)
    shapes, names = c.abstract(model)
    found = step_flops(names, shapes, c.tokens(model))["full"]
    patches, tokens, width, inner = 4, 5, 4, 4
    queries_and_keys = 2 * 3 + 2  # passes: of two views, with gradients, and of two keys
    assert found["stem"] == (4 if frozen else queries_and_keys) * patches * 2 * 12 * width
    products = 2 * tokens * tokens * inner
    assert found["attention"] == queries_and_keys * 2 * 2 * (tokens * 4 * width * inner + products)
    assert found["mlp"] == queries_and_keys * 2 * 2 * tokens * 2 * width * 10
    assert found["projector"] == queries_and_keys * 2 * (width * 6 + 6 * 6 + 6 * 4)
    assert found["predictor"] == 2 * 3 * 2 * (4 * 6 + 6 * 4)


@pytest.mark.parametrize("name", ["moco_b", "moco_ti8"])
def test_shipped_configs_are_of_the_published_recipe(name):
    c = table.load(f"{name}.py")
    c.check()
    assert (c.model.position, c.objective.initialisation, c.objective.frozen_patches) == ("sincos_rows", "moco", True)
    assert (c.objective.temperature, c.objective.momentum, c.data.photometric) == (0.2, 0.99, "byol")
    assert (c.optimizer.beta2, c.optimizer.weight_decay) == (0.999, 0.1)
    assert notes(c) == []


def test_a_parametrization_scales_the_projector_from_its_base():
    """Drawn by its inputs alone, 1 / sqrt(3 in), and then as any kernel whose inputs grew twice: half of the base's."""
    c, heads = ParametrizationConfig("mup", width=32, heads=2, mlp=64), MomentumContrast(hidden=40)
    model, objective = c.resolve(tiny(width=64, heads=4, head_dim=16, mlp=128), heads)
    drawn = jax.eval_shape(objective.make(model, Inputs((0.0,) * 3, (1.0,) * 3)).init, 0)
    kernels = {"projector": init_heads(0, 64, objective)["projector"]}
    params = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), drawn) | kernels
    found = initial(params, c, model, objective)["projector"]["layer_0"]["kernel"]
    assert np.std(found) == pytest.approx((3 * 32) ** -0.5 / 2, rel=0.05)


def test_the_coordinate_check_sees_encoder_and_heads():
    objective = TINY.make(tiny(), Inputs((128.0,) * 3, (64.0,) * 3))
    params = doubles(jax.jit(objective.init)(0))
    sizes = jax.jit(objective.coordinates)(params, {"image": views(0)[0]})
    layers = {"projector_0", "projector_1", "projector_2", "predictor_0", "predictor_1"}
    assert set(sizes) == {"stem", "tokens", "attention", "mlp"} | layers
    token = published.encode(params["encoder"], (views(0)[0] / 64.0) - 2, 2)
    first = np.abs(token.real @ params["projector"]["layer_0"]["kernel"]).mean()
    assert float(sizes["projector_0"]) == pytest.approx(first, rel=1e-4)


@pytest.mark.parametrize(
    "fields",
    [
        {"branches": 3},
        {"gated": True, "qk_norm": True, "layer_scale": 0.1, "registers": 2},
        {"position": "learned", "remat": "dots"},
        {"class_token": False, "window": 1, "depth": 4},
        {"image_width": 8, "remat": "full"},
    ],
    ids=str,
)
def test_any_encoder_is_contrasted(fields):
    """Its program can be traced, and its operations are those of eight forward passes."""
    model, c = tiny(**fields), dataclasses.replace(TINY, pool="cls" if fields.get("class_token", True) else "mean")
    TrainConfig(model=model, objective=c).check()
    objective = c.make(model, Inputs((0.0,) * 3, (1.0,) * 3, steps=4))
    params = jax.eval_shape(objective.init, 0)
    batch = objective.abstract_batch(6)

    def gradient(params, batch):
        inputs = objective.inputs(0, jnp.int32(1), batch)
        return jax.grad(lambda p: objective.loss(p, objective.init_extra(params), inputs)[0])(params)

    found = jax.eval_shape(gradient, params, batch)
    assert jax.tree.map(lambda x: x.shape, found) == jax.tree.map(lambda x: x.shape, params)
    shapes, names = c.abstract(model)
    once, step = whole_image(model), step_flops(names, shapes, c.tokens(model))["full"]
    plain = flops(*reversed(abstract_vit(model)), once)["full"]
    for part in ("attention", "mlp", "norm"):
        assert step[part] == 8 * plain[part]
