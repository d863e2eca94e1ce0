"""Pictures show predictions and their errors."""

import numpy as np
import pytest
from PIL import Image

from scaling.data.legend import Legend
from scaling.evaluation.pictures import SHOWN, Picture

LEGEND = Legend(("water", "road", "field", "nowhere"), 255)


def maps(height, width):
    truth = np.zeros((height, width), np.uint8)
    truth[:, width // 2 :] = 1
    truth[: height // 10] = 255
    said = truth.copy()
    said[height // 2 :, : width // 4] = 2
    return truth, np.where(said == 255, 0, said).astype(np.uint8)


def drawn(tmp_path, picture):
    picture.draw(tmp_path / "x", "name")
    return np.asarray(Image.open(tmp_path / "x.png").convert("RGB")).astype(int)


def share(shown, colour):
    return (np.abs(shown - np.asarray(colour)).max(-1) <= 2).mean()


def test_classes_that_occur_are_shown_in_their_colours_and_errors_where_they_are(tmp_path):
    truth, said = maps(100, 100)
    picture = Picture(truth.shape, LEGEND)
    picture.add(0, image=np.full((100, 100, 3), (10, 20, 30), np.uint8), truth=truth, prediction=said)
    shown = drawn(tmp_path, picture)
    panel = share(shown, (10, 20, 30))  # of the whole figure that one panel takes
    assert panel > 0.1
    wrong = share(shown, (204, 26, 26)) / panel
    assert wrong == pytest.approx(0.5 * 0.25, abs=0.03)  # with a patch of the legend
    for label, expected in ((0, 0.45 + 0.5 - 0.125), (1, 0.9), (2, 0.125)):
        assert share(shown, LEGEND.colours[label]) / panel == pytest.approx(expected, abs=0.1)
    assert share(shown, LEGEND.colours[3]) == 0


def test_rows_added_one_by_one_give_the_same_picture_of_a_large_image(tmp_path):
    truth, said = maps(3 * SHOWN + 5, 700)
    image = np.random.default_rng(0).integers(256, size=(*truth.shape, 3), dtype=np.uint8)
    whole, parts = (Picture(truth.shape, LEGEND) for _ in range(2))
    whole.add(0, image=image, truth=truth, prediction=said)
    for top in range(0, len(truth), 37):
        rows = slice(top, top + 37)
        parts.add(top, image=image[rows], truth=truth[rows], prediction=said[rows])
    np.testing.assert_array_equal(drawn(tmp_path, whole), drawn(tmp_path, parts))
    assert max(whole._seen.parts["image"].shape) <= SHOWN


def test_without_truth_no_error_is_claimed(tmp_path):
    _, said = maps(50, 50)
    picture = Picture(said.shape, LEGEND)
    picture.add(0, image=np.ones((50, 50, 7), np.float32), truth=None, prediction=said)
    assert share(drawn(tmp_path, picture), (204, 26, 26)) == 0


def test_the_bands_asked_for_are_shown(tmp_path):
    truth, _ = maps(100, 100)
    pixels = np.full((100, 100, 5), (10, 20, 30, 140, 250), np.uint8)
    for rgb, colour in (((), (10, 20, 30)), ((4, 0, 3), (250, 10, 140))):
        picture = Picture(truth.shape, LEGEND, rgb)
        picture.add(0, image=pixels, truth=truth)
        assert share(drawn(tmp_path, picture), colour) > 0.1


def test_a_legend_has_room_for_one_more_label_than_classes():
    assert (Legend(("a",) * 255).dtype, Legend(("a",) * 255).ignore) == (np.uint8, 255)
    assert (Legend(("a",) * 256, -1).dtype, Legend(("a",) * 256, -1).ignore) == (np.uint16, 65535)
    assert (Legend(("a",) * 6, 6).dtype, Legend(("a",) * 6, 6).ignore) == (np.uint8, 6)
    assert Legend(("a",) * 6, 300).dtype == np.uint16
    assert len(np.unique(Legend(("a",) * 20).colours, axis=0)) == 20
