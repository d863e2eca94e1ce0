"""Attention, whichever program computes it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from scaling import axes
from scaling.core.errors import UserError
from scaling.models import attention
from scaling.parallel.mesh import MeshConfig, make_mesh


def arrays(shape=(2, 37, 2, 2, 16)):
    """Queries, keys, values and the gradient of what is mixed, [B, T, R, N, H]."""
    return np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32)


def by_hand(query, key, value):
    logits = np.einsum("btrnh,burnh->brntu", query, key)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return np.einsum("brntu,burnh->btrnh", weights / weights.sum(-1, keepdims=True), value)


def mixed_and_gradients(program, g, *qkv):
    mixed, back = jax.vjp(lambda *x: attention.attend(*x, program), *qkv)
    return mixed, *back(g)


@pytest.fixture
def on_tpu(monkeypatch):
    """Programs as they are traced for TPUs, their kernels interpreted."""
    monkeypatch.setattr(axes, "platform", lambda mesh=None: "tpu")
    with pltpu.force_tpu_interpret_mode():
        yield


@pytest.mark.parametrize("backend", ["cpu", "tpu"])
def test_attention_is_the_softmax_of_the_products(backend, monkeypatch):
    monkeypatch.setattr(axes, "platform", lambda mesh=None: backend)
    *qkv, _ = arrays().astype(np.float64)
    with jax.enable_x64():
        np.testing.assert_allclose(attention.attend(*qkv), by_hand(*qkv), rtol=0, atol=1e-12)


@pytest.mark.parametrize("mesh", [{}, {"fsdp": 2, "tensor": 2}], ids=["one device", "fsdp 2, tensor 2"])
def test_the_kernel_of_tpus_computes_the_same_of_tokens_that_fill_no_block(mesh, on_tpu):
    *qkv, g = arrays()
    devices = jax.devices()[: 4 if mesh else 1]
    with jax.set_mesh(make_mesh(MeshConfig(**mesh), devices)):
        fused = jax.jit(mixed_and_gradients, static_argnums=0)("fused", g, *qkv)
        expected = jax.jit(mixed_and_gradients, static_argnums=0)("einsum", g, *qkv)
    for ours, theirs in zip(fused, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 * np.abs(theirs).max())


def test_a_kernel_is_taken_where_the_backend_has_it_and_the_tokens_are_many(monkeypatch):
    few, many = 197, attention.FUSED_FROM
    taken = {}
    for backend in ("cpu", "tpu", "gpu"):
        monkeypatch.setattr(axes, "platform", lambda mesh=None, backend=backend: backend)
        taken[backend] = [attention.program("auto", tokens, "bfloat16") for tokens in (few, many)]
        assert attention.program("einsum", many, "bfloat16") == "einsum"
    assert attention.program("auto", many, "float32") == "einsum"  # of GPUs, whose kernel computes in half precision
    assert taken == {"cpu": ["einsum", "einsum"], "tpu": ["einsum", "fused"], "gpu": ["einsum", "cudnn"]}


@pytest.mark.parametrize(
    ("asked", "backend", "dtype"),
    [
        ("fused", "cpu", "float32"),
        ("fused", "gpu", "bfloat16"),
        ("cudnn", "tpu", "bfloat16"),
        ("cudnn", "gpu", "float32"),
        ("flash", "tpu", "bfloat16"),
    ],
)
def test_training_with_a_kernel_that_the_backend_does_not_have_is_refused(asked, backend, dtype):
    with pytest.raises(UserError, match=rf"model\.attention={asked}: must be .* the backend {backend} has in {dtype}"):
        attention.check(asked, backend, dtype)


def test_half_precision_logits_are_rounded_and_the_softmax_is_not(on_tpu):
    *qkv, _ = arrays().astype(jnp.bfloat16)

    def mixed(half):
        return np.asarray(attention.attend(*qkv, half_logits=half), np.float32)

    exact = by_hand(*(x.astype(np.float64) for x in qkv))
    errors = [np.abs(mixed(half) - exact).max() / np.abs(exact).max() for half in (False, True)]
    assert errors[0] < 0.01 < errors[1] < 0.05
