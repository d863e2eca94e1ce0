"""The training step is the same function on every mesh, and matches its description."""

import jax
import numpy as np
import pytest

from scaling import axes
from scaling.training.checkpoints import Checkpoints
from scaling.training.optimizer import OptimizerConfig
from scaling.training.resume import restore_newest
from scaling.training.state import AVERAGE
from tests.training.train_steps import BATCH, MESHES, assert_trees_equal, images, losses, on, train, train_step

SHARDED = {
    name: pytest.param(mesh, marks=pytest.mark.long if name == "fsdp 8" else [])
    for name, mesh in MESHES.items()
    if name != "one device"
}


@pytest.fixture(scope="module")
def alone():
    """Training step, initial state and metrics of five steps on one device."""
    t = train_step()
    initial = jax.device_get(t.init())
    return t, initial, train(t)[1]


@pytest.mark.parametrize("mesh", SHARDED.values(), ids=SHARDED)
def test_parameters_masks_and_losses_do_not_depend_on_the_mesh(mesh, alone):
    t = train_step(mesh)
    reference, initial, expected = alone
    assert_trees_equal(jax.device_get(t.init()), initial)
    _, rows = train(t)
    for name in ("loss", "grad_norm", "param_norm", "lr"):
        np.testing.assert_allclose([r[name] for r in rows], [r[name] for r in expected], rtol=1e-5)
    some = {"image": images(0), "index": np.arange(BATCH)}
    masked = [np.asarray(u.picture(u.init().params, on(u, **some))["masked"]) for u in (t, reference)]
    np.testing.assert_array_equal(*masked)


@pytest.mark.parametrize("mesh", SHARDED.values(), ids=SHARDED)
def test_the_state_is_born_and_stays_split_over_the_devices(mesh):
    t = train_step(mesh)
    parts = mesh[1] * mesh[2]
    state = t.init()
    for _ in range(2):
        kernel = state.params["encoder"]["blocks"]["mlp_in"]["kernel"]
        moment = state.opt_state[0].mu["encoder"]["blocks"]["mlp_in"]["kernel"]
        for array in (kernel, moment):
            assert {shard.data.size for shard in array.addressable_shards} == {array.size // parts}
        state, _ = train(t, 1, state)


def test_the_step_takes_over_the_memory_of_the_state():
    t = train_step()
    before = t.init()
    kernel = before.params["encoder"]["blocks"]["mlp_in"]["kernel"]
    train(t, 1, before)
    assert kernel.is_deleted()


@pytest.mark.parametrize("mesh", [pytest.param((1, 1, 1), marks=pytest.mark.long), (1, 4, 1)], ids=str)
def test_accumulated_gradients_are_those_of_the_whole_batch(mesh, alone):
    _, rows = train(train_step(mesh, accumulate=4))
    for name in ("loss", "grad_norm", "param_norm"):
        np.testing.assert_allclose([r[name] for r in rows], [r[name] for r in alone[2]], rtol=1e-5)


def test_the_seed_decides_parameters_and_masks():
    first = losses(train(train_step(), 1)[1])
    assert losses(train(train_step(seed=4), 1)[1]) != first
    assert losses(train(train_step(), 1)[1]) == first


def test_runs_that_differ_in_seed_and_learning_rate_are_one_program():
    def program(**fields):
        t = train_step(**fields)
        return t.step.lower(t.abstract, {"image": images(0)}).as_text(), t.init.lower().as_text()

    one = program(optimizer=OptimizerConfig(base_lr=0.02))
    assert program(optimizer=OptimizerConfig(base_lr=0.5), seed=9) == one
    assert program(optimizer=OptimizerConfig(base_lr=0.02, weight_decay=0.1)) != one


def test_every_step_draws_new_masks():
    t = train_step(optimizer=OptimizerConfig(base_lr=0.0))
    state, first = train(t, 1)
    _, second = train(t, 1, state)  # the same images and parameters
    assert losses(first) != losses(second)


def test_the_moving_average_follows_its_definition():
    t = train_step(ema_decay=0.9)
    state, expected = t.init(), jax.device_get(t.init().params)
    assert_trees_equal(state.extra[AVERAGE], expected)
    for step in range(3):
        state, _ = train(t, 1, state, start=step)
        expected = jax.tree.map(lambda a, p: 0.9 * a + 0.1 * np.asarray(p), expected, state.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), state.extra[AVERAGE], expected)
    assert train_step().init().extra == {}


def test_bfloat16_computes_nearly_the_same_with_float32_parameters(alone):
    state, rows = train(train_step(dtype="bfloat16"))
    assert {x.dtype.name for x in jax.tree.leaves(state.params)} == {"float32"}
    np.testing.assert_allclose(losses(rows), losses(alone[2]), rtol=0.05)
    assert losses(rows) != losses(alone[2])


@pytest.mark.parametrize(
    "optimizer",
    [
        OptimizerConfig(base_lr=0.1, warmup=5),
        pytest.param(OptimizerConfig(base_lr=0.1, warmup=5, first_moment_dtype="bfloat16"), marks=pytest.mark.long),
        pytest.param(OptimizerConfig(name="adafactor", base_lr=0.1, warmup=5), marks=pytest.mark.long),
    ],
    ids=["adamw", "adamw with a bfloat16 moment", "adafactor"],
)
def test_the_loss_falls_on_images_that_are_seen_again(optimizer):
    t = train_step((1, 4, 2), optimizer=optimizer)
    state, batch, seen = t.init(), on(t, image=images(0)), []
    for _ in range(30):
        state, metrics = t.step(state, batch)
        seen.append(float(metrics["loss"]))
    assert np.mean(seen[-5:]) < 0.8 * np.mean(seen[:5])


def evaluate(t, params, weight, image=None):
    image = images(0) if image is None else image
    sums = t.evaluate(params, {}, on(t, image=image, index=np.arange(BATCH), weight=weight))
    return float(sums["loss"] / sums["weight"]), float(sums["weight"])


def test_evaluation_is_deterministic_and_ignores_padding():
    t = train_step((1, 4, 1))
    params = t.init().params
    whole, part = np.ones(BATCH, np.float32), (np.arange(BATCH) < 10).astype(np.float32)
    assert evaluate(t, params, whole) == evaluate(t, params, whole)
    loss, weight = evaluate(t, params, part)
    other = np.where(part[:, None, None, None] > 0, images(0), images(1))
    assert (loss, weight) == evaluate(t, params, part, other)
    assert weight == 10
    assert loss != evaluate(t, params, whole)[0]
    micro = train_step((1, 4, 1), accumulate=4)
    np.testing.assert_allclose(evaluate(micro, params, part), (loss, weight), rtol=1e-6)


def test_the_masks_of_evaluation_belong_to_the_images_not_to_their_rows():
    t = train_step()
    params, order = t.init().params, np.random.default_rng(0).permutation(BATCH)
    some = {"image": images(0), "index": np.arange(BATCH) + 7}
    parts = [slice(0, 6), slice(6, 12), slice(10, 16)]  # so many are drawn
    drawn = [t.picture(params, on(t, **{k: np.roll(x, -p.start, 0) for k, x in some.items()})) for p in parts]
    masked = np.concatenate([drawn[0]["masked"], drawn[1]["masked"], drawn[2]["masked"][2:]])
    assert len(masked) == BATCH
    shuffled = t.picture(params, on(t, **{name: x[order] for name, x in some.items()}))["masked"]
    np.testing.assert_array_equal(masked[order[:6]], shuffled)


@pytest.mark.long
def test_the_order_in_memory_that_tpus_want_is_kept_from_step_to_step_and_is_not_saved(tmp_path, monkeypatch):
    plain = train_step((1, 4, 2), ema_decay=0.5)
    monkeypatch.setattr(axes, "platform", lambda mesh=None: "tpu")
    t = train_step.__wrapped__((1, 4, 2), ema_decay=0.5)
    state, _ = train(t, 2)
    expected = jax.device_get(state)

    def orders(state):
        trees = (state.params, state.opt_state[0].mu, state.extra[AVERAGE])
        return {tree["encoder"]["blocks"]["mlp_in"]["kernel"].format.layout.major_to_minor for tree in trees}

    assert orders(state) == {(0, 2, 1, 3)}  # layers, branch, embed, mlp
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(2, state, {})
    checkpoints.wait()
    restored = restore_newest(checkpoints, t, 2)
    assert orders(restored) == {(0, 2, 1, 3)}
    assert train(t, 2, restored, 2)[1] == train(t, 2, state, 2)[1]
    assert orders(plain.init()) == {(0, 1, 2, 3)}
    assert_trees_equal(jax.device_get(restore_newest(checkpoints, plain, 2)), expected)
    checkpoints.close()
