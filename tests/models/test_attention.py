"""Attention, whichever program computes it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from scaling import axes
from scaling.core.errors import UserError
from scaling.models import attention
from scaling.models.config import StackConfig
from scaling.parallel.mesh import MeshConfig, make_mesh


def arrays(shape=(2, 37, 2, 2, 16)):
    """Queries, keys, values and the gradient of the mixed values, [B, T, R, N, H]."""
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
        ordered = [np.moveaxis(x, 1, 3) if backend == "cpu" else x for x in qkv]
        np.testing.assert_allclose(attention.heads_first(ordered[0]), np.moveaxis(qkv[0], 1, 3))
        np.testing.assert_allclose(attention.attend(*ordered), by_hand(*qkv), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "mesh",
    [
        pytest.param({}, id="one device", marks=pytest.mark.long),
        pytest.param({"fsdp": 2, "tensor": 2}, id="fsdp 2, tensor 2"),
    ],
)
def test_the_kernel_of_tpus_computes_the_same_of_tokens_that_fill_no_block(mesh, on_tpu):
    *qkv, g = arrays()
    devices = jax.devices()[: 4 if mesh else 1]
    with jax.set_mesh(make_mesh(MeshConfig(**mesh), devices)):
        fused = jax.jit(mixed_and_gradients, static_argnums=0)("fused", g, *qkv)
        expected = jax.jit(mixed_and_gradients, static_argnums=0)("einsum", g, *qkv)
    for ours, theirs in zip(fused, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5 * np.abs(theirs).max())


def taken(attention_field, tokens, dtype="bfloat16", head_dim=64, **fields):
    """The program that a training step takes."""
    query = jax.ShapeDtypeStruct((1, tokens, 1, 1, head_dim), jnp.dtype(dtype))
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        return attention.program(attention_field, query, **fields)


def test_the_kernel_of_tpus_is_taken_where_tokens_are_many(monkeypatch):
    few, many = 197, attention.FUSED_FROM
    found = {}
    for backend in ("cpu", "tpu", "gpu"):
        monkeypatch.setattr(axes, "platform", lambda mesh=None, backend=backend: backend)
        found[backend] = [taken("auto", tokens) for tokens in (few, many)]
        assert taken("einsum", many) == "einsum"
    assert found == {"cpu": ["einsum", "einsum"], "tpu": ["einsum", "fused"], "gpu": ["einsum", "einsum"]}
    assert taken("cudnn", few) == "cudnn"
    assert taken("cudnn", few, dtype="float32") == taken("cudnn", few, head_dim=13) == "einsum"


def test_what_a_kernel_does_not_support_and_an_encoder_that_is_read_is_left_to_einsum(on_tpu):
    many = attention.FUSED_FROM
    assert taken("auto", many, half_logits=True) == taken("auto", many, head_dim=160) == "einsum"
    assert taken("fused", 50, head_dim=256) == "fused"
    outside = jax.ShapeDtypeStruct((1, many, 1, 1, 64), jnp.bfloat16)
    assert attention.program("auto", outside) == attention.program("fused", outside) == "einsum"


@pytest.mark.parametrize(
    ("fields", "backend", "dtype", "message"),
    [
        ({"attention": "fused"}, "cpu", "float32", "by the backend cpu in float32"),
        ({"attention": "fused"}, "gpu", "bfloat16", "by the backend gpu in"),
        ({"attention": "fused", "head_dim": 160}, "tpu", "bfloat16", r"for model\.head_dim=160"),
        ({"attention": "cudnn"}, "tpu", "bfloat16", "by the backend tpu in"),
        ({"attention": "cudnn"}, "gpu", "float32", "in float32"),
        ({"attention": "flash"}, "tpu", "bfloat16", "attention=flash"),
        ({"attention": "fused", "half_logits": True}, "tpu", "bfloat16", r"half_logits=True: only einsum keeps logits"),
    ],
)
def test_training_with_a_kernel_that_the_backend_does_not_have_is_refused(fields, backend, dtype, message):
    with pytest.raises(UserError, match=message):
        attention.check(StackConfig(**fields), backend, dtype)


def test_half_precision_logits_are_rounded_and_the_softmax_is_not(on_tpu):
    *qkv, _ = arrays().astype(jnp.bfloat16)

    def mixed(half):
        return np.asarray(attention.attend(*qkv, half_logits=half), np.float32)

    exact = by_hand(*(x.astype(np.float64) for x in qkv))
    errors = [np.abs(mixed(half) - exact).max() / np.abs(exact).max() for half in (False, True)]
    assert errors[0] < 0.01 < errors[1] < 0.05
