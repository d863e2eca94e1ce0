"""Curves over compute are drawn of whatever was measured."""

import dataclasses

import pytest
from etils import epath

from scaling.analysis.retention import draw_curves, draw_spectra
from tests.rows import ROW


def rows(metric, probe, *values):
    row = dataclasses.replace(ROW, metric=metric, probe=probe, model="vit", mode="inner", ordering="svd")
    return [dataclasses.replace(row, compute=c, value=v) for c, v in zip((0.5, 1.0), values, strict=True)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("values", [(0.3, 0.0), (0.0, 0.0), (None, None)], ids=["two", "no loss", "undefined"])
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
@pytest.mark.parametrize("mode", ["inner", "control"])
def test_a_value_that_a_seed_does_not_have_is_no_mean_of_the_others(mode, tmp_path):
    first = [dataclasses.replace(r, mode=mode) for r in rows("accuracy", "knn", 0.5, 0.6)]
    second = [dataclasses.replace(r, mode=mode, seed=1) for r in rows("accuracy", "knn", None, 0.7)]
    draw_curves(first + second, epath.Path(tmp_path / "curves"))
    assert "not defined for all seeds" in (tmp_path / "curves_scenes_knn.svg").read_text()
    draw_curves(first, epath.Path(tmp_path / "whole"))
    assert "not defined for all seeds" not in (tmp_path / "whole_scenes_knn.svg").read_text()
