"""Activations and moments of an encoder against numpy, one head and one unit at a time."""

import jax
import numpy as np
import pytest

from scaling.core.errors import UserError
from scaling.models.activations import MOMENT_NAMES, layer_tokens, moments, residual_streams
from scaling.models.vit import abstract_vit, stem
from scaling.slimming.cutting import axis_sizes
from tests.models import reference
from tests.slimming.encoders import encoder, images

VARIANTS = [{}, {"branches": 2, "gated": True, "qk_norm": True, "layer_scale": 0.7, "class_token": False}]


def inside(p, image, c):
    """Streams after every sublayer, and the units of every layer, of one image."""
    positions = reference.sincos(c.grid, c.width)
    x = reference.patches(image, c.patch_size) @ p["patch"]["kernel"] + p["patch"]["bias"] + positions
    x = np.concatenate([p["cls"]["token"][None], x]) if c.class_token else x
    streams, layers = [], []
    for i in range(c.depth):
        layer = {group: {k: v[i] for k, v in values.items()} for group, values in p["blocks"].items()}
        units, gains = {}, [layer[f"{s}_scale"]["gain"] if c.layer_scale else 1 for s in ("attention", "mlp")]
        y = units["attention_in"] = reference.layer_norm(layer["attention_norm"], x)
        q, k, v = (
            np.einsum("TD,DRSNH->SRNTH", y, layer["qkv"]["kernel"])
            + layer["qkv"]["bias"].transpose(1, 0, 2, 3)[:, :, :, None]
        )
        if c.qk_norm:
            q, k = reference.layer_norm(layer["query_norm"], q), reference.layer_norm(layer["key_norm"], k)
        mixed = reference.softmax(c.scale * q @ k.swapaxes(-1, -2)) @ v  # [R, N, T, H]
        units |= {"query": q, "key": k - k.mean(-2, keepdims=True), "mixed": mixed}
        out = layer["attention_out"]
        x = x + (np.einsum("RNTH,RNHD->TD", mixed, out["kernel"]) + out["bias"].sum(0)) * gains[0]
        streams.append(x)
        z = units["mlp_in"] = reference.layer_norm(layer["mlp_norm"], x)
        hidden = np.einsum("TD,DR...->TR...", z, layer["mlp_in"]["kernel"]) + layer["mlp_in"]["bias"]
        if c.gated:
            hidden = hidden[:, :, 0] / (1 + np.exp(-hidden[:, :, 0])) * hidden[:, :, 1]
        else:
            hidden = reference.gelu(hidden)
        units["hidden"] = hidden.swapaxes(0, 1)  # [R, T, F]
        out = layer["mlp_out"]
        x = x + (np.einsum("TRF,RFD->TD", hidden, out["kernel"]) + out["bias"].sum(0)) * gains[1]
        streams.append(x)
        layers.append(units)
    return streams, layers


@pytest.fixture(scope="module", params=VARIANTS, ids=["plain", "everything"])
def measured(request):
    e = encoder(**request.param)
    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), e.params)
    x = images(3, e.config)
    return e, x, [inside(exact, image, e.config) for image in x]


def average(measured, function, unit):
    """[L, ...], the mean over images of `function` applied to the units [..., T, H] of one image."""
    return np.mean([[function(layer[unit]) for layer in layers] for _, layers in measured], axis=0)


def second(x):
    return x.swapaxes(-1, -2) @ x / x.shape[-2]


def test_moments_are_averages_over_images_and_tokens(measured):
    e, x, inside = measured
    got = moments(e.params, x, e.config)
    expected = {
        "query": {"square": average(inside, second, "query")},
        "key": {"covariance": average(inside, second, "key")},
        "mixed": {
            "mean": average(inside, lambda m: m.mean(-2), "mixed"),
            "square": average(inside, second, "mixed"),
        },
        "hidden": {
            "mean": average(inside, lambda h: h.mean(-2), "hidden"),
            "square": average(inside, lambda h: (h**2).mean(-2), "hidden"),
        },
        "attention_in": {"square": average(inside, lambda y: (y**2).mean(0), "attention_in")},
        "mlp_in": {"square": average(inside, lambda y: (y**2).mean(0), "mlp_in")},
    }
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5 * np.abs(b).max()), got, expected)


def test_moments_carry_the_axes_of_the_encoder(measured):
    e, x, _ = measured
    sizes = axis_sizes(*abstract_vit(e.config))
    shapes = jax.eval_shape(lambda p: moments(p, x, e.config), e.params)
    assert axis_sizes(shapes, MOMENT_NAMES).items() <= sizes.items()


def test_streams_are_the_tokens_asked_for_after_every_sublayer(measured):
    e, x, inside = measured
    tokens = np.array([[0, 3], [2, 1], [3, 3]])
    got = residual_streams(e.params, x, tokens, e.config)
    expected = np.stack([np.stack(streams)[:, t] for (streams, _), t in zip(inside, tokens, strict=True)], axis=1)
    assert got.shape == (4, 3, 2, 16)
    np.testing.assert_allclose(got, expected, atol=2e-5 * np.abs(expected).max())


def test_tokens_behind_layers_are_those_of_the_residual_stream(measured):
    e, x, inside = measured
    got = layer_tokens(e.params, x, e.config, (2, 1))
    expected = np.stack([[streams[2 * layer - 1] for streams, _ in inside] for layer in (2, 1)])
    assert got.shape == (2, 3, e.config.tokens, 16)
    np.testing.assert_allclose(got, expected, atol=2e-5 * np.abs(expected).max())
    with pytest.raises(
        UserError, match="layers=3: must be from 0, the input of the first block, to 2, the output of the last"
    ):
        layer_tokens(e.params, x, e.config, (1, 3))
    first = np.asarray(jax.jit(stem, static_argnums=2)(e.params, x, e.config))
    np.testing.assert_allclose(layer_tokens(e.params, x, e.config, (0,))[0], first, atol=1e-6)
