"""An encoder passes its head the tokens after its blocks; the parameters of the head declare themselves."""

import dataclasses

import jax
import numpy as np
import pytest

from scaling import axes
from scaling.core.errors import UserError
from scaling.models.activations import layer_tokens
from scaling.models.config import encoder_config
from scaling.models.heads.heads import HEADS
from scaling.models.heads.norms import Norms
from scaling.models.parameters import init_params
from scaling.models.segmenter import Segmenter, abstract_segmenter, drawn_keep, segmenter_input
from scaling.models.vit import ViT, abstract_vit, image_input
from tests.models.heads.examples import CONFIG, maps, weights

SMALL = dataclasses.replace(CONFIG, image_size=32, depth=3, branches=2)


@pytest.mark.parametrize("fields", [{}, {"remat": "full"}, {"unroll": True}], ids=str)
def test_the_layers_that_are_read(fields):
    c = dataclasses.replace(encoder_config(SMALL), **fields)
    p = jax.jit(lambda: init_params(ViT(c), 0, image_input(c)))()
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    last, behind = jax.jit(ViT(c, layers=(1, 3)).apply)({"params": p}, images)
    np.testing.assert_allclose(np.stack(behind), layer_tokens(p, images, c, (1, 3)), atol=1e-5)
    np.testing.assert_array_equal(last, jax.jit(ViT(c).apply)({"params": p}, images))


@pytest.mark.parametrize(("depth", "layers"), [(12, (4, 6, 8, 12)), (24, (8, 12, 16, 24))])
def test_the_published_layers_are_the_default(depth, layers):
    assert dataclasses.replace(CONFIG, depth=depth).taken == layers  # counted from 1


@pytest.mark.parametrize("head", [pytest.param("upernet", marks=pytest.mark.long), "mlp", "linear"])
def test_the_maps_of_an_image_that_is_not_square_are_upright(head):
    """Turning the image before and the maps after gives the same, if the encoder's positions and every kernel are
    turned too.
    """
    c = dataclasses.replace(SMALL, image_size=48, image_width=32, head=head, auxiliary=False, position="learned")
    other = dataclasses.replace(c, image_size=32, image_width=48)
    p = jax.jit(lambda: init_params(Segmenter(c), 0, segmenter_input(c)))()
    turned = jax.tree.map(lambda x: x, p)
    turned["encoder"]["position"] = {"embedding": turned_rows(p["encoder"]["position"]["embedding"], 6, 4)}
    patch = p["encoder"]["patch"]["kernel"].reshape(8, 8, 3, -1).swapaxes(0, 1)
    turned["encoder"]["patch"] = p["encoder"]["patch"] | {"kernel": patch.reshape(8 * 8 * 3, -1)}
    turned["head"] = {
        name: group | ({"kernel": group["kernel"].swapaxes(0, 1)} if "kernel" in group else {})
        for name, group in p["head"].items()
    }
    images = np.random.default_rng(0).normal(size=(2, 48, 32, 3)).astype(np.float32)
    said = jax.jit(Segmenter(c).apply)({"params": p}, images)[0]["logits"]
    scale = 4 if head == "upernet" else 1
    assert said.shape == (2, 6 * scale, 4 * scale, 5)
    back = jax.jit(Segmenter(other).apply)({"params": turned}, images.swapaxes(1, 2))[0]["logits"]
    np.testing.assert_allclose(said, back.swapaxes(1, 2), atol=1e-5)


def turned_rows(table, rows, columns):
    """The rows [T, D] of a grid of this size in the order of the turned grid."""
    return table.reshape(rows, columns, -1).swapaxes(0, 1).reshape(rows * columns, -1)


@pytest.mark.parametrize("head", HEADS)
def test_a_head_starts_almost_undecided_and_its_kernels_alone_decay(head):
    c = dataclasses.replace(SMALL, head=head, auxiliary=head == "upernet")
    model = Segmenter(c)
    p = jax.jit(lambda: init_params(model, 0, segmenter_input(c)))()
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    said, _ = jax.jit(model.apply)({"params": p}, images)
    assert said["logits"].shape == (2, *[16 if head == "upernet" else 4] * 2, 5)
    assert 0 < np.abs(said["logits"]).max() < 1
    shapes, names = abstract_segmenter(c)
    for leaf in axes.parameters(names, shapes):
        if leaf.path.startswith("head/"):
            assert axes.is_kernel(leaf.names) == leaf.path.endswith("/kernel"), leaf


def test_the_encoder_is_that_of_a_checkpoint():
    assert abstract_segmenter(SMALL)[1]["encoder"] == abstract_vit(encoder_config(SMALL))[1]


def test_dropped_channels_are_of_a_whole_image_and_keep_the_mean():
    keep = drawn_keep(dataclasses.replace(CONFIG, channels=512), jax.random.key(0), 64, 0.1)
    assert {name: x.shape for name, x in keep.items()} == {"logits": (64, 512), "auxiliary": (64, 8)}
    assert np.unique(np.round(keep["logits"], 5)).tolist() == [0, pytest.approx(1 / 0.9, abs=1e-4)]
    assert np.mean(keep["logits"]) == pytest.approx(1, abs=0.01)
    c = dataclasses.replace(SMALL, image_size=16, head="mlp")
    p, nothing = weights(c), {"logits": np.zeros((2, c.channels), np.float32)}
    said = HEADS["mlp"].apply(p, maps(c), Norms("batch", 1), nothing)
    np.testing.assert_allclose(said["logits"], np.broadcast_to(p["classes"]["bias"], said["logits"].shape))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"head": "fcn"}, "task.head='fcn': must be one of upernet, mlp, linear"),
        ({"layers": (1, 2)}, "reads 4 layers; name as many"),
        ({"layers": (1, 2, 3, 9)}, "there is no layer 9; name those from 1 to 4"),
        ({"head": "linear", "layers": (1,)}, "leave it out"),
        ({"norm": "group", "norm_groups": 3}, "must divide the 32 channels of up4_first"),
        ({"image_size": 8}, "upernet needs at least two patches per side"),
        ({"image_size": 32, "image_width": 8}, r"image_size=\[32, 8\]: upernet needs at least two patches per side"),
        ({"groups": 2}, "needs one token per patch"),
        ({"channels": 0}, "task.channels=0: must be at least 1"),
    ],
    ids=str,
)
def test_what_cannot_be_built_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(CONFIG, **fields).check()
