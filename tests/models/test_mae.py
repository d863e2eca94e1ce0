import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.core.errors import UserError
from scaling.models.mae import MAE, abstract_mae, mae_inputs, mask_noise
from scaling.models.parameters import init_params
from scaling.models.variants import VARIANTS
from scaling.models.vit import ViT, patchify, unpatchify
from tests.models import reference
from tests.models.sizes import mae, small


def random_params(c, seed=0):
    """Parameters none of which is zero, one or symmetric, so that nothing can hide."""
    shapes, _ = abstract_mae(c)
    leaves, tree = jax.tree.flatten(shapes)
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(tree, [rng.normal(0.3, 0.3, x.shape).astype(np.float32) for x in leaves])


def images(c, n=2, seed=1):
    return np.random.default_rng(seed).normal(size=(n, *c.image_shape, c.bands)).astype(np.float32)


ARCHITECTURES = {
    "plain": {},
    "two branches": {"branches": 2},
    "gated": {"gated": True},
    "query and key norm": {"qk_norm": True},
    "layer scale": {"layer_scale": 0.1},
    "gated, scaled, norms of queries and keys": {"gated": True, "qk_norm": True, "layer_scale": 0.1},
    "learned positions, no class token": {"position": "learned", "class_token": False},
    "other scale and head size": {"attention_scale": 0.5, "head_dim": 12},
    "five bands": {"bands": 5},
    "twice as high as wide": {"image_size": 24, "image_width": 12},
}


ONE_BY_ONE = ("gated", "query and key norm", "layer scale")  # together in a default test


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(fields, id=name, marks=[pytest.mark.long] * (name in ONE_BY_ONE))
        for name, fields in ARCHITECTURES.items()
    ],
)
def test_encoder_and_loss_are_those_of_the_papers(overrides):
    c = small(**overrides)
    params, x = random_params(c), images(c)
    noise = np.random.default_rng(2).random((2, c.patches)).astype(np.float32)
    exact = jax.tree.map(lambda p: p.astype(np.float64), params)
    tokens = jax.jit(ViT(c).apply)({"params": params["encoder"]}, x)
    expected = np.stack([reference.encode(exact["encoder"], image, c) for image in x.astype(np.float64)])
    np.testing.assert_allclose(tokens, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    loss = jax.jit(MAE(c).apply)({"params": params}, x, noise)["loss"]
    expected = [reference.mae_loss(exact, i, n, c) for i, n in zip(x.astype(np.float64), noise, strict=True)]
    np.testing.assert_allclose(loss, expected, rtol=2e-5)


def test_raw_pixels_as_targets():
    c = small(normalize_targets=False)
    params, x = random_params(c), images(c, 1)
    noise = np.random.default_rng(2).random((1, c.patches)).astype(np.float32)
    loss = jax.jit(MAE(c).apply)({"params": params}, x, noise)["loss"]
    np.testing.assert_allclose(loss[0], reference.mae_loss(params, x[0], noise[0], c), rtol=2e-5)


@pytest.mark.long
@pytest.mark.parametrize("remat", ["dots", "full"])
def test_rematerialisation_changes_neither_loss_nor_gradients(remat):
    x = images(small())
    noise = np.random.default_rng(2).random((2, small().patches)).astype(np.float32)

    def gradients(c):
        loss = jax.jit(jax.grad(lambda p: MAE(c).apply({"params": p}, x, noise)["loss"].sum()))
        return loss(random_params(c))

    plain, remade = gradients(small()), gradients(small(remat=remat))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), plain, remade)


def test_bfloat16_computes_in_bfloat16_and_keeps_the_loss_in_float32():
    c = small()
    params, x = random_params(c), images(c)
    noise = np.random.default_rng(2).random((2, c.patches)).astype(np.float32)
    full = jax.jit(MAE(c).apply)({"params": params}, x, noise)
    half = jax.jit(MAE(c, jnp.bfloat16).apply)({"params": params}, x, noise)
    assert half["prediction"].dtype == jnp.bfloat16
    assert half["loss"].dtype == jnp.float32
    np.testing.assert_allclose(half["loss"], full["loss"], rtol=0.1)


def test_masks_depend_on_the_key_and_the_position_of_the_image_alone():
    key = jax.random.key(3)
    together = mask_noise(key, jnp.arange(6), 16)
    apart = jnp.concatenate([mask_noise(key, jnp.arange(i, i + 2), 16) for i in (0, 2, 4)])
    np.testing.assert_array_equal(together, apart)
    assert len(np.unique(np.argsort(together, axis=1), axis=0)) == 6
    assert (mask_noise(jax.random.key(4), jnp.arange(6), 16) != together).any()


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5))
def test_patches_can_be_put_back(batch, rows, columns, patch, bands):
    x = np.random.default_rng(0).normal(size=(batch, rows * patch, columns * patch, bands))
    patches = patchify(x, patch)
    np.testing.assert_array_equal(patches[0], reference.patches(x[0], patch))
    np.testing.assert_array_equal(unpatchify(patches, patch, bands, (rows, columns)), x)
    if rows == columns:
        np.testing.assert_array_equal(unpatchify(patches, patch, bands), x)


def test_initialisation_is_that_of_the_reference_implementation():
    c = small(width=128, heads=2, head_dim=64, mlp=512)
    params = jax.jit(lambda: init_params(MAE(c), 0, *mae_inputs(c)))()
    blocks = params["encoder"]["blocks"]
    for group, fans in (("qkv", 128 + 3 * 128), ("attention_out", 256), ("mlp_in", 640), ("mlp_out", 640)):
        kernel, bound = np.asarray(blocks[group]["kernel"]), np.sqrt(6 / fans)
        assert 0.98 * bound < np.abs(kernel).max() <= bound
        np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.03)
        assert not np.any(blocks[group]["bias"])
        assert not np.array_equal(kernel[0], kernel[1])  # layers differ
    np.testing.assert_allclose(np.std(params["decoder"]["mask"]["token"]), 0.02, rtol=0.6)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"image_size": 18},
            "image_size=18 is not divisible by model.patch_size=4; the nearest sizes that are: 16, 20",
        ),
        (
            {"image_width": 18},
            "image_width=18 is not divisible by model.patch_size=4; the nearest sizes that are: 16, 20",
        ),
        ({"image_size": 0}, "model.image_size=0: must be a positive number of pixels"),
        ({"image_width": -4}, "model.image_width=-4: must be a positive number of pixels"),
        ({"mask_ratio": 1.0}, "mask_ratio=1.0 leaves 0 of 16"),
        ({"mask_ratio": 0.0}, "mask_ratio=0.0 leaves 16 of 16"),
        ({"position": "rotary"}, "position='rotary': must be one of sincos, sincos_rows, learned"),
        ({"remat": "some"}, "remat='some': must be one of none, dots, full"),
        ({"width": 30}, "width=30: must be a multiple of 4"),
        ({"depth": 0}, "depth=0: must be at least 1"),
        ({"decoder_heads": 3}, "decoder_width=16: must be a multiple of 4 times objective.decoder_heads=3"),
    ],
)
def test_an_impossible_architecture_is_refused(overrides, message):
    with pytest.raises(UserError, match=message):
        small(**overrides).check()


@pytest.mark.parametrize("name", VARIANTS)
def test_every_named_architecture_can_be_built(name):
    mae(name).check()


def test_an_unknown_architecture_lists_the_known_ones():
    with pytest.raises(UserError, match=r"unknown model 'vit_x'.*vit_l12x4"):
        mae("vit_x")
