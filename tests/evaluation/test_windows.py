"""Sliding windows: the worked examples, a plain loop over the published formulas, and models that must not notice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.core.errors import TrainingError, UserError
from scaling.data.geometry import window_starts
from scaling.evaluation.windows import Windows, reader, sliding_classes, sliding_logits, window_counts


@pytest.mark.parametrize(
    ("length", "starts"),
    [
        (1024, (0, 384, 512)),
        (6000, (*range(0, 5761 - 384, 384), 5488)),
        (513, (0, 1)),
        (512, (0,)),
        (2000, (0, 384, 768, 1152, 1488)),
        (100, (0,)),
    ],
)
def test_starts_of_the_worked_examples(length, starts):
    assert window_starts(length, 512, 384) == starts


def test_counts_of_the_worked_example():
    counts = window_counts(1024, 512, 384)
    assert np.unique(counts, return_counts=True)[1].tolist() == [512, 512]
    assert len(window_starts(6000, 512, 384)) == 16
    assert window_counts(6000, 512, 384).min() == 1


@pytest.mark.parametrize("stride", [0, -1, 9])
def test_a_stride_that_leaves_pixels_out_is_refused(stride):
    with pytest.raises(UserError, match=f"stride={stride}: must be from 1 to 8, the pixels of a window"):
        window_starts(20, 8, stride)


def by_the_published_loop(image, forward, size, stride):
    """mmsegmentation's `slide_inference`, one window at a time over a map of the whole image."""
    height, width, _ = image.shape
    total, count = None, np.zeros((height, width, 1))
    rows = max(height - size[0] + stride[0] - 1, 0) // stride[0] + 1
    columns = max(width - size[1] + stride[1] - 1, 0) // stride[1] + 1
    for row in range(rows):
        for column in range(columns):
            y1, x1 = row * stride[0], column * stride[1]
            y2, x2 = min(y1 + size[0], height), min(x1 + size[1], width)
            y1, x1 = max(y2 - size[0], 0), max(x2 - size[1], 0)
            logits = np.asarray(forward(image[None, y1:y2, x1:x2])[0])
            total = np.zeros((height, width, logits.shape[2])) if total is None else total
            total[y1:y2, x1:x2] += logits
            count[y1:y2, x1:x2] += 1
    assert (count > 0).all()
    return total / count


@jax.jit
def equivariant(pixels):
    """Three classes from each pixel alone."""
    return jnp.tanh(pixels.astype(jnp.float32) @ jnp.arange(6.0).reshape(2, 3) / 7 - 0.3)


@jax.jit
def sees_its_border(pixels):
    """Like a network with positions and padding: logits depend on the position in the window."""
    h, w = pixels.shape[1:3]
    rows, columns = jnp.arange(h)[:, None] / h, jnp.arange(w) / w
    return equivariant(pixels) + jnp.sin(3 * rows + columns)[None, :, :, None] * jnp.arange(3.0)


def image(height, width, seed=0):
    return np.random.default_rng(seed).normal(size=(height, width, 2)).astype(np.float32)


SIZES = [(40, 33), (16, 12), (17, 13), (100, 12), (16, 90)]


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("forward", [equivariant, sees_its_border])
def test_logits_are_those_of_the_published_loop(shape, batch, forward):
    size, stride = (16, 12), (9, 8)
    pixels = image(*shape)
    expected = by_the_published_loop(pixels, forward, size, stride)
    np.testing.assert_allclose(sliding_logits(pixels, forward, Windows(size, stride, batch)), expected, atol=2e-6)


def test_a_border_is_not_visible_in_an_equivariant_model():
    pixels, windows = image(50, 61), Windows((16, 12), (9, 8), 4)
    whole = np.asarray(equivariant(pixels[None])[0])
    np.testing.assert_allclose(sliding_logits(pixels, equivariant, windows), whole, atol=1e-6)
    np.testing.assert_array_equal(sliding_classes(pixels, equivariant, windows), whole.argmax(2))
    assert np.abs(sliding_logits(pixels, sees_its_border, windows) - sees_its_border(pixels[None])[0]).max() > 0.1


def test_constant_logits_stay_what_they_are():
    constant = np.array([0.1, -3.0, 7.7], np.float32)
    logits = sliding_logits(
        image(70, 45), lambda x: np.broadcast_to(constant, (*x.shape[:3], 3)), Windows((9, 8), (2, 3))
    )
    np.testing.assert_allclose(logits, np.broadcast_to(constant, logits.shape), rtol=1e-6)


@pytest.mark.parametrize("shape", [(5, 30), (30, 5), (3, 4)])
def test_an_image_smaller_than_a_window_is_filled_and_cut_again(shape):
    pixels = image(*shape)
    seen = []

    def forward(batch):
        seen.append(batch)
        return equivariant(batch)

    logits = sliding_logits(pixels, forward, Windows((16, 12), (9, 8), 2, fill=-5.0))
    np.testing.assert_allclose(logits, equivariant(pixels[None])[0], atol=1e-6)
    assert all(batch.shape == (2, 16, 12, 2) for batch in seen)
    assert (seen[0][0, shape[0] :] == -5).all()


def test_memory_grows_with_the_width_of_an_image_and_not_with_its_height():
    windows, height = Windows((16, 16), (8, 8), 3), 4000
    read = lambda top, left, bottom, right: np.ones((bottom - top, right - left, 2), np.float32)  # noqa: E731
    rows = windows.logits_by_rows(read, height, 40, equivariant)
    tops, heights = zip(*((top, len(band)) for top, band in rows), strict=True)
    assert sum(heights) == height
    assert list(tops) == [0, *np.cumsum(heights)[:-1]]
    assert max(heights) <= 2 * 16


@pytest.mark.parametrize("batch", [1, 4, 7])
def test_windows_of_several_images_share_batches_and_no_logits(batch):
    images = [image(*shape, seed) for seed, shape in enumerate([(16, 12), (40, 33), (9, 30), (17, 13), (16, 12)])]
    seen = []

    def forward(pixels):
        seen.append(pixels)
        return sees_its_border(pixels)

    windows = Windows((16, 12), (9, 8), batch)
    found = [[] for _ in images]
    order = []
    for number, top, rows in windows.logits_of_images(((reader(x), *x.shape[:2]) for x in images), forward):
        assert top == sum(map(len, found[number]))
        found[number].append(rows)
        order.append(number)
    assert order == sorted(order)
    for pixels, rows in zip(images, found, strict=True):
        np.testing.assert_allclose(np.concatenate(rows), sliding_logits(pixels, sees_its_border, windows), atol=1e-6)
    assert len(seen) == -(-sum(len(windows.places(*x.shape[:2])) for x in images) // batch)


def test_pixels_of_another_type_than_the_batch_are_never_cut_off():
    images = [np.zeros((16, 12, 2), np.uint8), image(16, 12)]
    with pytest.raises(TypeError, match="Cannot cast"):
        list(Windows((16, 12), (9, 8), 2).logits_of_images(((reader(x), 16, 12) for x in images), equivariant))


def test_a_compiled_model_sees_one_shape_and_is_never_waited_for_at_once():
    """The second batch is given to the device before the logits of the first are looked at."""
    order = []

    class Later:
        def __init__(self, logits):
            self.logits, self.number = logits, len([x for x in order if x[0] == "asked"])

        def __array__(self, dtype=None, copy=None):
            order.append(("looked", self.number))
            return np.asarray(self.logits, dtype)

    def forward(batch):
        later = Later(equivariant(batch))
        order.append(("asked", later.number))
        return later

    sliding_logits(image(40, 12), forward, Windows((16, 12), (8, 8), 2))
    assert order == [("asked", 0), ("asked", 1), ("looked", 0), ("looked", 1)]


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_no_class(number):
    image = np.ones((6, 6, 1), np.float32)
    image[2, 3] = number
    with pytest.raises(TrainingError, match="the model returns NaN or infinity for 1 of "):
        sliding_classes(image, lambda x: np.concatenate([x, -x], -1), Windows((4, 4), (4, 4)))
