"""Maps are pooled, resized and convolved as torch defines it: against loops that read like the definitions."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling import axes
from scaling.models.heads.spatial import convolve, double, halve, pool, pooling_weights, resize

DRAW = np.random.default_rng(0)


def drawn(*shape):
    return DRAW.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("size", [1, 2, 5, 7, 12, 16])
@pytest.mark.parametrize("bins", [1, 2, 3, 6])
def test_pooling_bins_overlap_where_they_do_not_divide(size, bins):
    x = drawn(2, size, size + 1, 3)
    expected = np.zeros((2, bins, bins, 3))
    for i in range(bins):
        for j in range(bins):
            rows = slice(math.floor(i * size / bins), math.ceil((i + 1) * size / bins))
            columns = slice(math.floor(j * (size + 1) / bins), math.ceil((j + 1) * (size + 1) / bins))
            expected[:, i, j] = x[:, rows, columns].mean((1, 2))
    np.testing.assert_allclose(pool(x, bins), expected, atol=1e-6)


def test_pooling_bins_of_sixteen_in_three():
    starts_ends = [(row.nonzero()[0][0], row.nonzero()[0][-1] + 1) for row in pooling_weights(16, 3)]
    assert starts_ends == [(0, 6), (5, 11), (10, 16)]


def bilinear(x, size):
    """Bilinear resizing of one image [h, w, C], pixel by pixel."""
    height, width, channels = x.shape
    out = np.zeros((*size, channels))
    for i in range(size[0]):
        for j in range(size[1]):
            y = min(max((i + 0.5) * height / size[0] - 0.5, 0), height - 1)
            z = min(max((j + 0.5) * width / size[1] - 0.5, 0), width - 1)
            top, left = int(y), int(z)
            below, right = min(top + 1, height - 1), min(left + 1, width - 1)
            a, b = y - top, z - left
            out[i, j] = (1 - a) * ((1 - b) * x[top, left] + b * x[top, right])
            out[i, j] += a * ((1 - b) * x[below, left] + b * x[below, right])
    return out


@pytest.mark.parametrize(("old", "new"), [((3, 5), (12, 10)), ((6, 6), (4, 3)), ((1, 1), (7, 7)), ((5, 4), (5, 4))])
def test_resizing_is_bilinear_without_aligned_corners(old, new):
    x = drawn(2, *old, 3)
    np.testing.assert_allclose(resize(x, new), [bilinear(one, new) for one in x], atol=1e-6)


def test_known_samples_of_a_doubled_row():
    row = np.array([0.0, 4.0, 8.0], np.float32).reshape(1, 1, 3, 1)
    np.testing.assert_allclose(np.ravel(resize(row, (1, 6))), [0, 1, 3, 5, 7, 8])  # aligned corners: 0, 1.6, 3.2, ...


def test_convolution_reads_its_neighbours_and_zeros_beyond():
    x, kernel = drawn(2, 4, 5, 3), drawn(3, 3, 3, 2)
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    expected = [
        [np.einsum("bijc,ijce->be", padded[:, i : i + 3, j : j + 3], kernel) for j in range(5)] for i in range(4)
    ]
    np.testing.assert_allclose(convolve(x, kernel), np.moveaxis(expected, 2, 0), atol=1e-5)
    np.testing.assert_allclose(convolve(x, kernel[:1, :1]), x @ kernel[0, 0], atol=1e-5)


@pytest.mark.parametrize(("size", "of_map"), [((3, 3), (6, 4)), ((5, 3), (6, 4)), ((3, 3), (13, 130))])
def test_gradients_of_a_convolution_are_the_same_on_every_backend(size, of_map, monkeypatch):
    """The last map is summed over several bands of rows, of which the last is thinner."""
    rng = np.random.default_rng(0)
    x, kernel, g = (rng.normal(size=s) for s in ((2, *of_map, 3), (*size, 3, 5), (2, *of_map, 5)))
    found = []
    with jax.enable_x64():
        for backend in ("cpu", "tpu"):
            monkeypatch.setattr(axes, "platform", lambda mesh=None, backend=backend: backend)
            made, back = jax.vjp(convolve, jnp.asarray(x), jnp.asarray(kernel))
            found.append((made, *back(jnp.asarray(g))))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    i, j = 0, 2  # one weight by hand: what it reads, times what that makes
    padded = np.pad(x, ((0, 0), (size[0] // 2,) * 2, (size[1] // 2,) * 2, (0, 0)))
    read = padded[:, i : i + of_map[0], j : j + of_map[1]]
    np.testing.assert_allclose(found[0][2][i, j], np.einsum("bhwc,bhwe->ce", read, g), atol=1e-11)


def test_a_kernel_gradient_in_bfloat16_is_rounded_once():
    """Bands added in bfloat16 would lose a hundredth."""
    x, g = (np.abs(drawn(2, 64, 64, channels)).astype(jnp.bfloat16) for channels in (2, 3))
    kernel = jnp.zeros((3, 3, 2, 3), jnp.bfloat16)
    found = jax.vjp(lambda kernel: convolve(jnp.asarray(x), kernel), kernel)[1](jnp.asarray(g))[0]
    expected = np.einsum("bhwc,bhwe->ce", x.astype(np.float32), g.astype(np.float32))
    np.testing.assert_allclose(found[1, 1].astype(np.float32), expected, rtol=0.005)


def test_doubling_writes_four_pixels_for_one():
    x, kernel, bias = drawn(2, 3, 4, 3), drawn(2, 2, 3, 5), drawn(5)
    out = np.asarray(double(x, kernel, bias))
    assert out.shape == (2, 6, 8, 5)
    for i, j in np.ndindex(2, 2):
        np.testing.assert_allclose(out[:, i::2, j::2], x @ kernel[i, j] + bias, atol=1e-5)


def test_halving_takes_the_largest_and_drops_an_odd_row():
    x = drawn(1, 5, 4, 2)
    expected = [[x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((1, 2)) for j in range(2)] for i in range(2)]
    np.testing.assert_array_equal(halve(x), np.moveaxis(expected, 2, 0))
