"""Curves over compute are drawn of whatever was measured."""

import dataclasses
import itertools

import pytest
from etils import epath

from scaling.analysis.retention import choose_curves, draw_curves, draw_spectra
from scaling.core.canvas import LABEL_SIZE, LINES, MOST_CURVES, direct_labels, new_figure
from scaling.core.errors import UserError
from tests.rows import ROW


def rows(metric, probe, *values):
    row = dataclasses.replace(ROW, metric=metric, probe=probe, model="vit", mode="inner", ordering="svd")
    return [dataclasses.replace(row, compute=c, value=v) for c, v in zip((0.5, 1.0), values, strict=True)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "values",
    [
        pytest.param((0.3, 0.0), id="two", marks=pytest.mark.long),
        pytest.param((0.0, 0.0), id="no loss"),
        pytest.param((None, None), id="undefined"),
    ],
)
def test_curves_have_three_panels(values, tmp_path):
    found = rows("accuracy", "knn", 0.5, 0.6) + rows("relative_error", "features", *values)
    draw_curves(found, epath.Path(tmp_path / "curves"))
    drawn = (tmp_path / "curves_scenes_knn.svg").read_text()
    for words in ("accuracy", "retention above chance", "relative error of the features", "vit svd"):
        assert f"<!-- {words}" in drawn


@pytest.mark.filterwarnings("error")
def test_spectra_are_drawn_where_a_statistic_is_defined_nowhere(tmp_path):
    draw_spectra(rows("participation_ratio", "features", None, None), epath.Path(tmp_path / "spectra"))
    assert "participation ratio" in (tmp_path / "spectra_scenes.svg").read_text()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("mode", ["inner", pytest.param("control", marks=pytest.mark.long)])
def test_a_value_that_a_seed_does_not_have_is_no_mean_of_the_others(mode, tmp_path):
    first = [dataclasses.replace(r, mode=mode) for r in rows("accuracy", "knn", 0.5, 0.6)]
    second = [dataclasses.replace(r, mode=mode, seed=1) for r in rows("accuracy", "knn", None, 0.7)]
    draw_curves(first + second, epath.Path(tmp_path / "curves"))
    assert "not defined for all seeds" in (tmp_path / "curves_scenes_knn.svg").read_text()
    draw_curves(first, epath.Path(tmp_path / "whole"))
    assert "not defined for all seeds" not in (tmp_path / "whole_scenes_knn.svg").read_text()


def many(count):
    row = dataclasses.replace(ROW, metric="accuracy", probe="knn", model="vit", mode="inner", value=0.5)
    names = ["first", *(f"way{i}" for i in range(count - 1))]
    return [
        dataclasses.replace(row, ordering=name, recovery="none", compute=c, value=c * (0.5 + i / 100))
        for i, name in enumerate(names)
        for c in (0.5, 1.0)
    ]


def test_five_curves_are_drawn_the_published_one_and_the_best_and_others_by_name(tmp_path):
    rows = many(8)
    assert choose_curves(rows) == ["vit first", "vit way3", "vit way4", "vit way5", "vit way6"]
    assert choose_curves(rows, ["way0", "way6"]) == ["vit way0", "vit way6"]
    assert len(choose_curves(rows, ["all"])) == 8
    with pytest.raises(UserError, match="--curves=wya: no curve has this in its name; the curves are vit first"):
        choose_curves(rows, ["wya"])
    said = draw_curves(rows, epath.Path(tmp_path / "curves"))
    assert said == ["curves_scenes_knn: 5 of 8 curves, all are in the tables; --curves=all draws them"]
    assert {file.suffix for file in tmp_path.iterdir()} == {".png", ".svg", ".pdf"}
    drawn = (tmp_path / "curves_scenes_knn.svg").read_text()
    assert all(f"<!-- {name} -->" in drawn for name in ("first", "way3", "way6"))
    assert "<!-- way0 -->" not in drawn


def test_curves_are_told_apart_without_colour():
    from matplotlib.colors import to_rgb

    def lightness(colour):
        """CIE L* of sRGB."""
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        y = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y

    assert len(LINES) == MOST_CURVES
    levels = sorted(lightness(colour) for colour, *_ in LINES)
    assert min(b - a for a, b in itertools.pairwise(levels)) >= 10
    assert levels[-1] < 75  # dark enough on white
    assert len({dash for _, dash, _ in LINES}) == len({mark for *_, mark in LINES}) == MOST_CURVES


def test_names_that_would_lie_on_each_other_are_moved_apart():
    figure = new_figure(3.0, 3.0)
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    figure.draw_without_rendering()
    direct_labels(
        axes, [("a", 1.0, 0.5, "k"), ("b", 1.0, 0.5, "k"), ("c", 1.0, 0.51, "k"), ("d", 1.0, float("nan"), "k")]
    )
    places = sorted(text.xyann[1] for text in axes.texts)
    step = LABEL_SIZE / 72 * figure.dpi / axes.get_window_extent().height
    assert len(places) == 3
    assert all(b - a > step for a, b in itertools.pairwise(places))
