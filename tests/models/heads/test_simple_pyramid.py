"""The pyramid is detectron2's SimpleFeaturePyramid, here in plain numpy after its code, and a cheap one of it."""

import jax
import numpy as np
import pytest
from scipy.special import erf

from scaling.models.heads.layers import head_table
from scaling.models.heads.simple_pyramid import level_shapes, level_strides, simple_pyramid, simple_pyramid_layers

GRID, WIDTH, CHANNELS = (4, 6), 16, 8
LAYERS = simple_pyramid_layers(WIDTH, GRID, CHANNELS, range(6))


def weights(seed=0):
    rng = np.random.default_rng(seed)
    return {
        group: {name: rng.normal(0.1, 0.5, tuple(sizes.values())) for name, (sizes, _) in table.items()}
        for group, table in head_table(LAYERS).items()
    }


def doubled(x, p):
    """ConvTranspose2d with a kernel and a stride of 2. x: [h, w, C]."""
    out = np.zeros((2 * x.shape[0], 2 * x.shape[1], p["kernel"].shape[-1]))
    for i, j, u, v in np.ndindex(*x.shape[:2], 2, 2):
        out[2 * i + u, 2 * j + v] = x[i, j] @ p["kernel"][u, v] + p["bias"]
    return out


def convolved(x, kernel):
    """Conv2d without bias, the size is kept."""
    side = len(kernel) // 2
    padded, out = np.pad(x, ((side, side), (side, side), (0, 0))), np.zeros((*x.shape[:2], kernel.shape[-1]))
    for i, j in np.ndindex(*x.shape[:2]):
        out[i, j] = np.einsum("uvc,uvcd->d", padded[i : i + len(kernel), j : j + len(kernel)], kernel)
    return out


def normed(x, p):
    """LayerNorm over the channels."""
    apart = x - x.mean(-1, keepdims=True)
    return apart / np.sqrt((apart**2).mean(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def published(p, x):
    """Levels of strides 4 to 64: vit.py, `SimpleFeaturePyramid.forward` and `LastLevelMaxPool`; and one more."""
    finest = normed(doubled(x, p["up4_first"]), p["up4_first_norm"])
    finest = finest * 0.5 * (1 + erf(finest / 2**0.5))
    pooled = x.reshape(2, 2, 3, 2, WIDTH).max((1, 3))
    levels = []
    for level, scaled in enumerate((doubled(finest, p["up4_second"]), doubled(x, p["up2"]), x, pooled)):
        lateral = normed(convolved(scaled, p[f"lateral_{level}"]["kernel"]), p[f"lateral_{level}_norm"])
        levels.append(normed(convolved(lateral, p[f"smooth_{level}"]["kernel"]), p[f"smooth_{level}_norm"]))
    levels.append(levels[-1][::2, ::2])  # max_pool2d with a kernel of 1 and a stride of 2
    return [*levels, levels[-1][::2, ::2]]


def test_every_level_is_the_published_one():
    p, x = weights(), np.random.default_rng(1).normal(size=(2, *GRID, WIDTH))
    narrow = jax.tree.map(lambda v: v.astype(np.float32), (p, x))
    found = jax.jit(lambda p, x: simple_pyramid(p, x, range(6)))(*narrow)
    for image in range(2):
        for ours, theirs in zip(found, published(p, x[image]), strict=True):
            np.testing.assert_allclose(ours[image], theirs, atol=2e-4 * np.abs(theirs).max())
    assert [x.shape[1:3] for x in found] == level_shapes(GRID)


@pytest.mark.parametrize(
    ("places", "sides"), [(64, [256, 128, 64, 32, 16, 8]), (50, [200, 100, 50, 25, 13, 7]), (2, [8, 4, 2, 1, 1, 1])]
)
def test_sizes_and_strides(places, sides):
    assert level_shapes((places, places)) == [(side, side) for side in sides]
    assert level_strides(16) == [4, 8, 16, 32, 64, 128]
    assert level_strides(14)[:2] == [3.5, 7]


def test_levels_that_are_not_read_have_no_parameters():
    names = simple_pyramid_layers(WIDTH, GRID, CHANNELS, (1, 2, 3, 4, 5))
    assert set(names) == {name for name in LAYERS if not name.startswith(("up4", "lateral_0", "smooth_0"))}
