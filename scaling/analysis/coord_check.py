"""The figure of a coordinate check."""

from collections.abc import Sequence

from etils import epath

from scaling.core.canvas import colour, new_figure, plain_axes, save, sizes_as_ticks
from scaling.core.rows import Row


def draw(rows: Sequence[Row], axis: str, path: epath.Path) -> None:
    """Writes PATH.png and PATH.svg: sizes of all parts over an axis, with a column per step and a line per
    parametrization.
    """
    names = list(dict.fromkeys(row.parametrization for row in rows))
    last = max(row.step for row in rows)
    steps = sorted({0, 1, last // 2, last} & {row.step for row in rows})
    sizes = sorted({getattr(row, axis) for row in rows})
    parts = list(dict.fromkeys(row.metric for row in rows))
    figure = new_figure(2.6 * len(steps) + 1.4, 2.4 * len(names))
    grid = figure.subplots(len(names), len(steps), squeeze=False, sharex=True, sharey=True)
    for name, line in zip(names, grid, strict=True):
        for step, panel in zip(steps, line, strict=True):
            panel.set(xscale="log", yscale="log", xlabel=axis if name == names[-1] else "")
            panel.set_title(f"{name}, step {step}", loc="left", fontsize=8)
            plain_axes(panel)
            for i, part in enumerate(parts):
                found = [r for r in rows if (r.parametrization, r.step, r.metric) == (name, step, part)]
                found.sort(key=lambda r: getattr(r, axis))
                x, y = [getattr(r, axis) for r in found], [r.value or 0.0 for r in found]
                style = "--" if part.startswith("decoder/") else "-"
                panel.plot(x, y, style, marker=".", color=colour(i, len(parts)), label=part, linewidth=1)
            sizes_as_ticks(panel.xaxis, sizes)
    for line in grid:
        line[0].set_ylabel("mean |coordinate|")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=7, frameon=False)
    save(figure, path, ("png", "svg"))
