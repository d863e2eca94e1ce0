"""The figure of a coordinate check can be read: ticks where something was measured, no two lines of one colour."""

import dataclasses

from etils import epath

from scaling.analysis import coord_check as coordinates
from tests.rows import ROW

SIZES = (32, 48, 64)
PARTS = [f"attention/{i}" for i in range(8)] + [f"mlp/{i}" for i in range(8)] + [f"decoder/mlp/{i}" for i in range(9)]


def drawn(monkeypatch, parts, steps):
    rows = [
        dataclasses.replace(ROW, parametrization=name, metric=part, step=step, embed=size, value=0.5)
        for name in ("standard", "mup")
        for step in steps
        for size in SIZES
        for part in parts
    ]
    figures = []
    monkeypatch.setattr(coordinates, "save", lambda figure, path, kinds: figures.append(figure))
    coordinates.draw(rows, "embed", epath.Path("figure"))
    return figures[0]


def test_the_sizes_are_the_ticks_and_there_are_no_others(monkeypatch):
    panels = drawn(monkeypatch, PARTS[:3], range(11)).axes
    for panel in panels:
        assert list(panel.get_xticks()) == list(SIZES)
        assert not list(panel.get_xticks(minor=True))
    for panel in panels[len(panels) // 2 :]:  # the lower ones
        assert [label.get_text() for label in panel.get_xticklabels()] == ["32", "48", "64"]


def test_no_two_parts_have_one_colour(monkeypatch):
    for count in (3, 15, 25):
        for panel in drawn(monkeypatch, PARTS[:count], (0, 1)).axes:
            assert len({str(line.get_color()) for line in panel.lines}) == count


def test_steps_that_were_not_written_have_no_panels(monkeypatch):
    titles = [panel.get_title(loc="left") for panel in drawn(monkeypatch, PARTS[:3], (0, 10)).axes]
    assert titles == ["standard, step 0", "standard, step 10", "mup, step 0", "mup, step 10"]
