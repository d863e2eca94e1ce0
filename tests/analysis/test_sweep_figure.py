"""The figure of a sweep shows the varied fields, and a line joins runs that differ in nothing else."""

import dataclasses
import itertools
import math

import pytest
from etils import epath

from scaling.analysis import sweep_figure
from scaling.analysis.sweep_figure import draw_sweep
from tests.rows import ROW

RUN = dataclasses.replace(
    ROW, metric="eval_loss", value=0.9, embed=64, mlp=256, layers=4, base_lr=1e-3, parametrization="mup"
)


def grid(**fields):
    """A run for every combination of the values of some fields."""
    combinations = [dict(zip(fields, values, strict=True)) for values in itertools.product(*fields.values())]
    return [dataclasses.replace(RUN, **combination) for combination in combinations]


def in_proportion(rows):
    return [dataclasses.replace(row, mlp=4 * row.embed) for row in rows]


@pytest.fixture
def drawn(monkeypatch):
    """Draws rows; returns the figure instead of writing it."""

    def draw(rows):
        figures = []
        monkeypatch.setattr(sweep_figure, "save", lambda figure, path, kinds: figures.append(figure))
        draw_sweep(rows, epath.Path("figure"))
        return figures[0] if figures else None

    return draw


def lines(panel):
    """The places of the points of every line of a panel."""
    return {line.get_label(): [float(x) for x in line.lines[0].get_xdata()] for line in panel.containers}


def legend(figure):
    return [text.get_text() for box in figure.legends for text in box.get_texts()]


def test_the_figure_is_written_as_png_and_svg(tmp_path):
    draw_sweep(grid(base_lr=(1e-3, 2e-3), embed=(32, 64)), epath.Path(tmp_path / "figure"))
    assert (tmp_path / "figure.png").stat().st_size > 1000
    written = (tmp_path / "figure.svg").read_text()
    assert all(f"<!-- {word} -->" in written for word in ("base_lr", "embed 32", "embed 64", "mup"))


def test_what_follows_from_the_axis_is_named_with_it_and_makes_no_lines(drawn):
    figure = drawn(in_proportion(grid(embed=(32, 64, 128))))
    (panel,) = figure.axes
    assert panel.get_xlabel() == "embed (with mlp)"
    assert list(lines(panel).values()) == [[32, 64, 128]]
    assert not legend(figure)


def test_every_parametrization_has_a_panel(drawn):
    figure = drawn(grid(layers=(2, 4), parametrization=("mup", "completep")))
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["mup", "completep"]


def test_lines_are_apart_in_every_field_but_the_axis(drawn):
    figure = drawn(grid(base_lr=(1e-3, 2e-3), embed=(32, 64), layers=(2, 4)))
    expected = [f"embed {embed}, layers {layers}" for embed in (32, 64) for layers in (2, 4)]
    assert legend(figure) == expected
    assert lines(figure.axes[0]) == {label: [1e-3, 2e-3] for label in expected}


def test_what_only_the_name_of_a_run_says_makes_lines(drawn):
    rows = [
        dataclasses.replace(row, model=f"mup_mask_ratio{share}_width{row.embed}_seed{row.seed}")
        for share in (0.5, 0.75)
        for row in grid(embed=(32, 64), seed=(0, 1))
    ]
    figure = drawn(rows)
    assert lines(figure.axes[0]) == {"mask_ratio0.5": [32, 64], "mask_ratio0.75": [32, 64]}


def test_runs_of_equal_compute_are_a_profile(drawn):
    """Seven widths at four budgets, each met to within the cost of half a step."""
    rows = [
        dataclasses.replace(row, samples_seen=seen, train_flops=seen * row.embed)
        for budget in (20_000, 40_000, 80_000, 160_000)
        for row in in_proportion(grid(embed=(32, 64, 96, 128, 160, 192, 256)))
        for seen in [round(budget / row.embed)]
    ]
    figure = drawn(rows)
    assert legend(figure) == ["train_flops 2e+04", "train_flops 4e+04", "train_flops 8e+04", "train_flops 1.6e+05"]
    assert set(map(tuple, lines(figure.axes[0]).values())) == {(32, 64, 96, 128, 160, 192, 256)}


def test_a_grid_in_which_compute_is_equal_by_accident_is_no_profile(drawn):
    rows = [
        dataclasses.replace(row, train_flops=row.embed * row.samples_seen)
        for row in grid(embed=(16, 32, 64, 128, 256), samples_seen=(100, 200, 400, 800, 1600))
    ]
    assert legend(drawn(rows)) == [f"samples_seen {seen}" for seen in (100, 200, 400, 800, 1600)]


def test_computes_that_follow_each_other_without_a_gap_are_no_profile(drawn):
    shapes = in_proportion(grid(embed=(32, 64, 96, 128, 160, 192)))
    rows = [
        dataclasses.replace(row, samples_seen=round(1e6 * 1.04**i), train_flops=round(1e9 * 1.04**i))
        for i, row in enumerate(shapes * 2)
    ]
    figure = drawn(rows)
    assert not any(label.startswith("train_flops") for label in legend(figure))


def test_a_star_has_a_panel_for_each_arm(drawn):
    shapes = [(32, 6, 512), (64, 6, 512), (128, 6, 512), (128, 2, 512), (128, 4, 512), (128, 6, 256)]
    rows = [
        dataclasses.replace(RUN, embed=embed, layers=layers, mlp=mlp, samples_seen=seen, value=embed + layers + mlp)
        for embed, layers, mlp in shapes
        for seen in (100, 200)
    ]
    figure = drawn(rows)
    assert [panel.get_xlabel() for panel in figure.axes] == ["embed", "layers", "mlp"]
    assert figure.axes[0].get_title(loc="left") == "mup: layers 6, mlp 512"
    assert [lines(panel)["samples_seen 100"] for panel in figure.axes] == [[32, 64, 128], [2, 4, 6], [256, 512]]
    assert all(list(lines(panel)) == ["samples_seen 100", "samples_seen 200"] for panel in figure.axes)
    first = figure.axes[0].containers[0].lines[0].get_ydata()
    assert list(first) == [32 + 6 + 512, 64 + 6 + 512, 128 + 6 + 512]


def test_seeds_are_their_mean_and_range(drawn):
    rows = [dataclasses.replace(row, value=row.embed + v) for row in grid(embed=(32, 64)) for v in (0.0, 1.0, 5.0)]
    figure = drawn([dataclasses.replace(row, seed=i % 3) for i, row in enumerate(rows)])
    (line,) = figure.axes[0].containers
    assert list(line.lines[0].get_ydata()) == [34, 66]
    assert [segment[:, 1].tolist() for segment in line.lines[2][0].get_segments()] == [[32, 37], [64, 69]]
    assert figure.axes[0].get_ylabel() == "eval_loss\n(mean and range over seeds)"


def test_equal_values_of_seeds_have_no_range_although_their_mean_is_rounded(drawn):
    value = 0.1  # the mean of three is 0.10000000000000002
    figure = drawn([dataclasses.replace(row, value=value) for row in grid(embed=(32, 64), seed=(0, 1, 2))])
    assert figure.axes[0].containers[0].lines[0].get_ydata() == pytest.approx([value, value])


def test_a_mean_of_fewer_seeds_is_a_gap_and_is_said(drawn):
    rows = grid(embed=(32, 64, 128), seed=(0, 1, 2))
    assert drawn(rows)._supxlabel is None
    rows[4] = dataclasses.replace(rows[4], value=None)
    figure = drawn(rows)
    (line,) = figure.axes[0].containers
    assert list(line.lines[0].get_xdata()) == [32, 64, 128]
    assert [math.isnan(y) for y in line.lines[0].get_ydata()] == [False, True, False]
    assert figure._supxlabel.get_text() == "1 of 9 runs have no eval_loss: a gap where one of the seeds has none"
    assert drawn([dataclasses.replace(row, value=None) for row in rows]) is None


def test_one_seed_has_no_range(drawn):
    figure = drawn(grid(embed=(32, 64)))
    assert figure.axes[0].get_ylabel() == "eval_loss"
    assert not figure.axes[0].containers[0].has_yerr


def test_nothing_is_drawn_where_nothing_varies(drawn):
    assert drawn(grid(seed=(0, 1))) is None
    assert drawn([]) is None
