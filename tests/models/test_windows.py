"""Attention within windows, beside numpy after detectron2's code, one window and one head after the other."""

import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest

from scaling import axes
from scaling.core.errors import UserError
from scaling.models.activations import layer_tokens, moments
from scaling.models.config import ViTConfig
from scaling.models.vit import ViT, abstract_vit, with_relative_positions
from tests.models import reference
from tests.models.sizes import small

# 5 x 7 patches, which windows of 3 do not divide
CONFIG = ViTConfig(
    image_size=20, image_width=28, patch_size=4, width=32, depth=4, heads=2, head_dim=8, mlp=48, branches=2,
    class_token=False, window=3, global_blocks=(2, 4),
)  # fmt: skip


def random_params(c, seed=0):
    """Random parameters, none of them zero: padding has keys and values of its own."""
    leaves, tree = jax.tree.flatten(abstract_vit(c)[0])
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(tree, [rng.normal(0.2, 0.3, x.shape).astype(np.float32) for x in leaves])


def images(c, count=2, seed=1):
    return np.random.default_rng(seed).normal(size=(count, *c.image_shape, c.bands)).astype(np.float32)


def window_partition(x, size):
    """detectron2/modeling/backbone/utils.py, without a batch. x: [H, W, C]."""
    height, width, channels = x.shape
    pad_h, pad_w = (size - height % size) % size, (size - width % size) % size
    x = np.pad(x, ((0, pad_h), (0, pad_w), (0, 0)))
    padded = x.shape[:2]
    x = x.reshape(padded[0] // size, size, padded[1] // size, size, channels)
    return x.transpose(0, 2, 1, 3, 4).reshape(-1, size, size, channels), padded


def window_unpartition(windows, size, padded, shape):
    x = windows.reshape(padded[0] // size, padded[1] // size, size, size, -1)
    return x.transpose(0, 2, 1, 3, 4).reshape(*padded, -1)[: shape[0], : shape[1]]


def decomposed(q, rows, columns, by_row, by_column):
    """detectron2's add_decomposed_rel_pos. q: [rows * columns, H] -> bias of its logits."""

    def vectors(table, size):
        table = table[(len(table) - (2 * size - 1)) // 2 :]  # one table for windows and for the whole grid
        return table[np.arange(size)[:, None] - np.arange(size)[None] + size - 1]

    q = q.reshape(rows, columns, -1)
    down = np.einsum("hwc,hkc->hwk", q, vectors(by_row, rows))
    across = np.einsum("hwc,wkc->hwk", q, vectors(by_column, columns))
    return (down[:, :, :, None] + across[:, :, None, :]).reshape(rows * columns, rows * columns)


def attention(p, y, c, real, size):
    """Output of attention over isolated tokens y [T, D] of this many rows and columns; `real` [T] marks those that
    may be attended to.
    """
    total = p["attention_out"]["bias"].sum(0)
    for r, n in itertools.product(range(c.branches), range(c.heads)):
        q, k, v = (y @ p["qkv"]["kernel"][:, r, s, n] + p["qkv"]["bias"][r, s, n] for s in range(3))
        logits = q @ k.T * c.scale
        if c.relative:
            logits = logits + decomposed(q, *size, p["relative"]["rows"][r], p["relative"]["columns"][r])
        logits = np.where(real, logits, -np.inf)
        total = total + reference.softmax(logits) @ v @ p["attention_out"]["kernel"][r, n]
    return total


def block(p, x, c, windowed):
    """x: [rows, columns, D]."""
    rows, columns = x.shape[:2]
    y = reference.layer_norm(p["attention_norm"], x)
    if windowed:
        inside, padded = window_partition(y, c.window)
        real = window_partition(np.ones((rows, columns, 1)), c.window)[0][..., 0] > 0
        real = real if c.window_padding == "masked" else np.ones_like(real)
        size = (c.window, c.window)
        made = [attention(p, w.reshape(-1, w.shape[-1]), c, m.ravel(), size) for w, m in zip(inside, real, strict=True)]
        x = x + window_unpartition(np.stack(made), c.window, padded, (rows, columns))
    else:
        whole = attention(p, y.reshape(rows * columns, -1), c, np.ones(rows * columns, bool), (rows, columns))
        x = x + whole.reshape(x.shape)
    z, total = reference.layer_norm(p["mlp_norm"], x), p["mlp_out"]["bias"].sum(0)
    for r in range(c.branches):
        hidden = reference.gelu(z @ p["mlp_in"]["kernel"][:, r] + p["mlp_in"]["bias"][r])
        total = total + hidden @ p["mlp_out"]["kernel"][r]
    return x + total


def encode(p, image, c, everywhere=()):
    """[h, w, C] -> [T, D]; `everywhere`: the blocks, from 1, that attend to all tokens."""
    x = reference.patches(image, c.patch_size) @ p["patch"]["kernel"] + p["patch"]["bias"]
    x = (x + reference.sincos(c.grid, c.width)).reshape(*c.grid, -1)
    for i in range(c.depth):
        layer = jax.tree.map(lambda leaf, i=i: leaf[i], p["blocks"])
        x = block(layer, x, c, i + 1 not in everywhere)
    return reference.layer_norm(p["norm"], x.reshape(-1, c.width))


def expected(c, everywhere):
    exact = jax.tree.map(lambda x: x.astype(np.float64), random_params(c))
    return np.stack([encode(exact, image, c, everywhere) for image in images(c).astype(np.float64)])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _tokens(c, backend, p, x):
    return ViT(c).apply({"params": p}, x)


def tokens(c, p=None):
    return np.asarray(_tokens(c, axes.platform(), p or random_params(c), images(c)))


def close(ours, theirs):
    return np.abs(ours - theirs).max() < 3e-5 * np.abs(theirs).max()


@pytest.mark.parametrize(
    ("padding", "backend"), [("zeros", "cpu"), ("masked", "cpu"), ("zeros", "tpu"), ("masked", "tpu")]
)
def test_windows_are_those_of_detectron2(padding, backend, monkeypatch):
    monkeypatch.setattr(axes, "platform", lambda mesh=None: backend)
    c = dataclasses.replace(CONFIG, window_padding=padding)
    ours = tokens(c)
    assert close(ours, expected(c, (2, 4)))
    other = dataclasses.replace(c, window_padding={"zeros": "masked", "masked": "zeros"}[padding])
    for wrong, everywhere in (
        (other, (2, 4)),
        (c, (1, 3)),
        (c, (1, 2, 3, 4)),
        (dataclasses.replace(c, window=4), (2, 4)),
    ):
        assert not close(ours, expected(wrong, everywhere))


@pytest.mark.parametrize(
    ("padding", "backend"), [("zeros", "cpu"), ("masked", "tpu"), pytest.param("zeros", "tpu", marks=pytest.mark.long)]
)
def test_relative_positions_are_those_of_detectron2(padding, backend, monkeypatch):
    monkeypatch.setattr(axes, "platform", lambda mesh=None: backend)
    c = dataclasses.replace(CONFIG, window_padding=padding, relative=True)
    ours = tokens(c)
    assert close(ours, expected(c, (2, 4)))
    assert not close(ours, expected(dataclasses.replace(c, relative=False), (2, 4)))
    p = random_params(c)
    p["blocks"]["relative"] = {name: x[:, :, ::-1] for name, x in p["blocks"]["relative"].items()}  # other direction
    assert not close(tokens(c, p), ours)


def test_relative_positions_begin_with_nothing_and_do_not_decay():
    c = dataclasses.replace(CONFIG, relative=True, window=9)
    plain = dataclasses.replace(c, relative=False)
    shapes, names = abstract_vit(c)
    assert shapes["blocks"]["relative"]["rows"].shape == (4, 2, 2 * 9 - 1, 8)  # of the window, which is larger
    p = random_params(plain)
    added = with_relative_positions(p, c)
    np.testing.assert_allclose(tokens(c, added), tokens(plain, p), atol=1e-5)
    assert with_relative_positions(added, c) is added
    assert with_relative_positions(p, plain) is p
    assert not any(jax.tree.leaves(axes.decay_mask(names["blocks"]["relative"])))
    with pytest.raises(UserError, match=r"model\.relative=True: needs one token per patch"):
        dataclasses.replace(CONFIG, window=0, global_blocks=(), relative=True, class_token=True).check()


@pytest.mark.parametrize(
    ("depth", "blocks", "everywhere"),
    [
        (5, (1, 2, 5), (1, 2, 5)),
        *(
            pytest.param(*case, marks=pytest.mark.long)
            for case in ((4, (), (1, 2, 3, 4)), (8, (), (2, 4, 6, 8)), (3, (2,), (2,)), (2, (7,), ()))
        ),
    ],
)
def test_any_blocks_can_attend_to_all_tokens(depth, blocks, everywhere):
    c = dataclasses.replace(CONFIG, depth=depth, global_blocks=blocks, branches=1)
    assert close(tokens(c), expected(c, everywhere))


@pytest.mark.parametrize(("depth", "published"), [(12, (3, 6, 9, 12)), (24, (6, 12, 18, 24)), (32, (8, 16, 24, 32))])
def test_by_default_those_attend_to_all_tokens_that_do_in_vitdet(depth, published):
    c = dataclasses.replace(CONFIG, depth=depth, global_blocks=())
    assert c.attending_to_all == published
    assert [i for i, of_block in enumerate(c.of_blocks, 1) if not of_block.window] == list(published)


@pytest.mark.parametrize(("window", "padding"), [(4, "zeros"), (4, "masked"), (6, "masked")])
def test_one_window_around_everything_is_attention_over_all_tokens(window, padding):
    c = dataclasses.replace(
        CONFIG, image_size=16, image_width=0, window=window, window_padding=padding, global_blocks=(4,)
    )
    everywhere = dataclasses.replace(c, window=0, global_blocks=())
    np.testing.assert_allclose(tokens(c), tokens(everywhere), atol=5e-6 * np.abs(tokens(everywhere)).max())
    padded = dataclasses.replace(c, window=6, window_padding="zeros")
    assert np.abs(tokens(padded) - tokens(everywhere)).max() > 1e-2


def gradients(c):
    x, p = images(c), random_params(c)
    weights = np.random.default_rng(5).normal(size=(2, c.patches, c.width))
    return jax.jit(jax.grad(lambda p: (ViT(c).apply({"params": p}, x) * weights).mean()))(p)


@pytest.mark.parametrize(
    ("fields", "padding"),
    [
        ({"remat": "full"}, "masked"),
        *(
            pytest.param(fields, padding, marks=pytest.mark.long)
            for fields, padding in (
                ({"remat": "full"}, "zeros"),
                ({"remat": "dots"}, "zeros"),
                ({"unroll": True}, "masked"),
            )
        ),
    ],
    ids=str,
)
def test_what_is_kept_or_unrolled_changes_no_gradient(fields, padding):
    c = dataclasses.replace(CONFIG, window_padding=padding)
    plain, other = gradients(c), gradients(dataclasses.replace(c, **fields))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), plain, other)
    assert min(float(np.abs(x).max()) for x in jax.tree.leaves(plain)) > 0


@pytest.mark.long
def test_gradients_are_those_of_another_layout(monkeypatch):
    plain = gradients(CONFIG)
    monkeypatch.setattr(axes, "platform", lambda mesh=None: "tpu")
    jax.clear_caches()
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), plain, gradients(CONFIG))


def test_what_passes_through_the_blocks_can_be_watched():
    p, x = random_params(CONFIG), images(CONFIG)
    last, behind = jax.jit(ViT(CONFIG, layers=(1, 2, 4)).apply)({"params": p}, x)
    np.testing.assert_allclose(np.stack(behind), layer_tokens(p, x, CONFIG, (1, 2, 4)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(last, tokens(CONFIG), rtol=1e-5, atol=1e-5)
    assert {x.shape[0] for x in jax.tree.leaves(moments(p, x, CONFIG))} == {4}


def test_windows_have_no_parameters():
    plain = dataclasses.replace(CONFIG, window=0, global_blocks=())
    assert abstract_vit(CONFIG) == abstract_vit(plain)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"window": -1}, "model.window=-1: must not be negative"),
        ({"window": 0}, r"model.global_blocks=\(2, 4\): has no effect without windows"),
        ({"global_blocks": (2, 5)}, "there is no block 5; name those from 1 to 4"),
        ({"class_token": True}, "model.window=3: windows need one token per patch"),
        ({"registers": 2}, "set class_token=False, registers=0"),
        ({"groups": 2}, "windows need one token per patch"),
        ({"alibi": True}, "windows need one token per patch"),
        ({"window_padding": "wrap"}, "model.window_padding='wrap': must be one of zeros, masked"),
    ],
    ids=str,
)
def test_what_has_no_windows_is_refused(fields, message):
    CONFIG.check()
    with pytest.raises(UserError, match=message):
        dataclasses.replace(CONFIG, **fields).check()


def test_a_masked_autoencoder_has_none():
    with pytest.raises(UserError, match=r"model\.window=2: the visible patches form no windows"):
        small(window=2, class_token=False).check()
