"""The figure of a sweep is drawn of what varies."""

import dataclasses

import pytest
from etils import epath

from scaling.analysis.sweep_figure import draw_sweep
from tests.rows import ROW

RUN = dataclasses.replace(ROW, metric="eval_loss", value=0.9, embed=64, layers=4, base_lr=1e-3, parametrization="mup")


@pytest.mark.parametrize(
    ("varied", "words"),
    [
        ({"embed": (32, 64), "mlp": ()}, ("embed",)),
        ({"base_lr": (1e-3, 2e-3), "embed": (32, 64)}, ("base_lr", "embed 32", "embed 64")),
        ({"layers": (2, 4), "parametrization": ("mup", "completep")}, ("layers", "mup", "completep")),
    ],
)
def test_axes_lines_and_panels_are_named(varied, words, tmp_path):
    rows = [RUN]
    for name, values in varied.items():
        if values:
            rows = [dataclasses.replace(row, **{name: value}) for row in rows for value in values]
        else:  # in proportion
            rows = [dataclasses.replace(row, mlp=4 * row.embed) for row in rows]
    draw_sweep(rows, epath.Path(tmp_path / "figure"))
    assert (tmp_path / "figure.png").stat().st_size > 1000
    drawn = (tmp_path / "figure.svg").read_text()
    assert all(f"<!-- {word} -->" in drawn for word in words)
    assert "<!-- mlp" not in drawn


def test_nothing_is_drawn_where_nothing_varies(tmp_path):
    draw_sweep([RUN, dataclasses.replace(RUN, seed=1)], epath.Path(tmp_path / "figure"))
    assert not list(tmp_path.iterdir())
