"""Labels of ticks do not overlap."""

import dataclasses
import itertools

import pytest
from etils import epath
from matplotlib.figure import Figure

from scaling.analysis.sweep_figure import draw_sweep
from scaling.core.canvas import new_figure, save, sizes_as_ticks
from tests.rows import ROW

NEAR = (32, 36, 40, 48, 64, 96, 100, 128, 1024, 1056)


@pytest.fixture
def written(monkeypatch):
    """Figures as they were written."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **kwargs: figures.append(figure))
    return figures


def boxes(axis):
    """The boxes of the labels that are drawn, by their text."""
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()) if low <= tick.get_loc() <= high]
    labels = [tick.label1 for tick in ticks if tick.label1.get_visible() and tick.label1.get_text()]
    return {label.get_text(): label.get_window_extent() for label in labels}


def overlap(axis):
    return any(one.overlaps(other) for one, other in itertools.combinations(boxes(axis).values(), 2))


def test_of_near_sizes_the_outer_ones_and_those_that_have_room_are_named(tmp_path):
    figure = new_figure(4, 3)
    axes = figure.subplots()
    axes.set(xscale="log", xlim=(30, 1100))
    sizes_as_ticks(axes.xaxis, NEAR)
    figure.draw_without_rendering()
    assert overlap(axes.xaxis)
    save(figure, epath.Path(tmp_path / "x"))
    assert (tmp_path / "x.png").exists()
    assert not overlap(axes.xaxis)
    assert {"32", "64", "128", "1056"} <= set(boxes(axes.xaxis)) < {f"{size}" for size in NEAR}


def test_labels_that_have_room_are_kept(tmp_path):
    figure = new_figure(6, 3)
    axes = figure.subplots()
    axes.set(xscale="log", xlim=(30, 1100))
    sizes_as_ticks(axes.xaxis, (32, 128, 512))
    save(figure, epath.Path(tmp_path / "x"))
    assert list(boxes(axes.xaxis)) == ["32", "128", "512"]


def test_widths_of_studies_do_not_overlap(written, tmp_path):
    rows = [dataclasses.replace(ROW, metric="eval_loss", value=1 / w, embed=w, parametrization="mup") for w in NEAR]
    draw_sweep(rows, epath.Path(tmp_path / "sweep"))
    for figure in written:
        for axes in figure.axes:
            assert len(boxes(axes.xaxis)) > 2
            assert not overlap(axes.xaxis)
            assert not overlap(axes.yaxis)
    assert written
