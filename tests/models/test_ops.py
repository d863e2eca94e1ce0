"""One network, two layouts: axes folded for the products, as CPUs want it, or kept apart, as TPUs do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling import axes
from scaling.models.mae import MAE, MAEConfig
from scaling.models.vit import ViT
from tests.models.sizes import small
from tests.models.test_mae import images, random_params
from tests.models.test_windows import random_params as encoder_params
from tests.training.train_steps import losses, train, train_step

ARCHITECTURES = {
    "plain": {},
    "branches, gated, scaled": {"branches": 2, "gated": True, "qk_norm": True, "layer_scale": 0.1},
    "narrow": {"head_dim": 5, "mlp": 13, "branches": 3, "attention_scale": 0.5, "remat": "dots"},
}
TOLERANCES = {jnp.float64: 1e-12, jnp.float32: 3e-6, jnp.bfloat16: 0.1}  # of the largest number of an array


@pytest.fixture
def layouts(monkeypatch):
    """Runs a function as it is traced for each backend; it must make its own jitted functions."""

    def run(function):
        results = {}
        for backend in ("cpu", "tpu"):
            monkeypatch.setattr(axes, "platform", lambda mesh=None, backend=backend: backend)
            results[backend] = function()
        return results["cpu"], results["tpu"]

    return run


def assert_close(a, b, dtype):
    largest = max(float(np.abs(np.asarray(x, np.float64)).max()) for x in jax.tree.leaves(a))

    def check(x, y):
        x, y = (np.asarray(z, np.float64) for z in (x, y))
        size = max(np.abs(x).max(), 1e-6 * largest)  # below it lie gradients that are zero but for rounding
        np.testing.assert_allclose(x, y, rtol=0, atol=TOLERANCES[dtype] * size)

    jax.tree.map(check, a, b)


def loss_and_gradients(c: MAEConfig, dtype):
    x, noise = images(c).astype(dtype), np.random.default_rng(2).random((2, c.patches))
    params = jax.tree.map(lambda p: p.astype(dtype) * 0.3, random_params(c))

    def loss(p):
        return MAE(c, dtype).apply({"params": p}, x, noise)["loss"].sum()

    return jax.jit(jax.value_and_grad(loss))(params)


@pytest.mark.parametrize(
    "overrides",
    [pytest.param(x, id=name, marks=[pytest.mark.long] * (name == "plain")) for name, x in ARCHITECTURES.items()],
)
def test_both_layouts_compute_the_same_loss_and_gradients(overrides, layouts):
    with jax.enable_x64():
        assert_close(*layouts(lambda: loss_and_gradients(small(**overrides), jnp.float64)), jnp.float64)


@pytest.mark.long
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_both_layouts_agree_to_the_accuracy_of_the_type(dtype, layouts):
    assert_close(*layouts(lambda: loss_and_gradients(small(branches=2), dtype)), dtype)


def test_both_layouts_compute_the_same_biased_attention(layouts):
    c = small(alibi=True, class_token=False)
    params, x = encoder_params(c), images(c)
    assert_close(*layouts(lambda: jax.jit(lambda p: ViT(c).apply({"params": p}, x))(params)), jnp.float32)


@pytest.mark.parametrize(
    "mesh",
    [pytest.param((1, 8, 1), marks=pytest.mark.long), (1, 4, 2), pytest.param((2, 4, 1), marks=pytest.mark.long)],
)
def test_the_layout_of_accelerators_trains_on_every_mesh(mesh, monkeypatch):
    expected = losses(train(train_step(mesh), 3)[1])
    monkeypatch.setattr(axes, "platform", lambda mesh=None: "tpu")
    found = losses(train(train_step.__wrapped__(mesh), 3)[1])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
