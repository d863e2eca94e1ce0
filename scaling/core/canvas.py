"""Figures without a display, and one style for printed figures: at most five curves, distinguishable in grey by
lightness, dash and marker, and named at their ends. matplotlib is imported when the first figure is made, because most
commands draw at their end or never.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from scaling.core.files import whole_file

PRINTED = ("png", "svg", "pdf")
MOST_CURVES = 5
# Colour, dash and marker of a curve; in grey neighbours differ in lightness (L*) by 10 or more.
LINES: tuple[tuple[str, Any, str], ...] = (
    ("#000000", "-", "o"),
    ("#d55e00", "--", "s"),
    ("#0b5394", "-.", "^"),
    ("#e69f00", (0, (1, 1)), "D"),
    ("#461a66", (0, (6, 1, 1, 1, 1, 1)), "v"),
)
LABEL_SIZE = 7.0  # points
_BETWEEN = 1.25  # lines of text from one name to the next

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of this size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def curve_style(i: int, count: int) -> dict[str, Any]:
    """Colour, dash and marker of curve `i` of `count`, for plot and errorbar: those of `LINES` as far as they go."""
    if count > MOST_CURVES:
        return {"color": colour(i, count), "linestyle": "-", "marker": "o"}
    shade, dash, mark = LINES[i]
    return {"color": shade, "linestyle": dash, "marker": mark}


def plain_axes(axes: "Axes") -> None:
    """Axes as a paper prints them: no frame around, a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.5)
    axes.set_axisbelow(True)


def direct_labels(axes: "Axes", ends: Sequence[tuple[str, float, float, Any]], side: str = "right") -> None:
    """Writes the names of curves beside their ends, shifted vertically so that none overlap.

    Args:
      axes: axes with final limits and scales.
      ends: name, x, y and colour of each curve.
      side: end of the curve that is labelled, `left` or `right`.
    """
    ends = [end for end in ends if np.isfinite(end[2])]
    if not ends:
        return
    height = axes.get_window_extent().height
    step = LABEL_SIZE * _BETWEEN * axes.figure.dpi / 72 / max(height, 1.0)  # share of the height of the axes
    places = [axes.transAxes.inverted().transform(axes.transData.transform((x, y)))[1] for _, x, y, _ in ends]
    order = np.argsort(places)
    apart = np.maximum.accumulate(np.array(places)[order] - step * np.arange(len(ends))) + step * np.arange(len(ends))
    apart -= max(0.0, apart[-1] - 1.0)
    sign = 1 if side == "right" else -1
    for place, i in zip(apart, order, strict=True):
        name, x, y, colour = ends[i]
        across = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))[0]
        text = axes.annotate(
            name, (x, y), (across + 0.015 * sign, place),
            textcoords="axes fraction", ha="left" if side == "right" else "right", va="center", color=colour,
            fontsize=LABEL_SIZE, annotation_clip=False,
        )  # fmt: skip
        text.set_in_layout(True)


def plain_numbers(axis: "Axis") -> None:
    """Ticks of a logarithmic axis as 0.85, not 8.5 x 10^-1."""
    for set_formatter in (axis.set_major_formatter, axis.set_minor_formatter):
        set_formatter(lambda value, _: f"{value:g}")


def colour(i: int, count: int) -> Any:
    """The colour of line `i` of `count`; no two lines share one."""
    from matplotlib import colormaps

    if count <= 10:
        return f"C{i}"
    return colormaps["tab20"](i) if count <= 20 else colormaps["turbo"](i / (count - 1))


def sizes_as_ticks(axis: "Axis", sizes: Sequence[float]) -> None:
    """Puts the ticks of a logarithmic axis at the measured sizes, unless there are too many of them."""
    from matplotlib.ticker import NullLocator

    if len(sizes) <= 12:
        axis.set_minor_locator(NullLocator())
        axis.set_ticks(sizes, [f"{size:g}" for size in sizes])


def thin_labels(figure: "Figure") -> None:
    """Hides labels of ticks that would overlap others: the outer ones are kept, then those of major ticks in order."""
    figure.draw_without_rendering()
    for axes in figure.axes:
        kept: list[Any] = []
        for axis in (axes.xaxis, axes.yaxis):
            for label in _by_rank(axis):
                box = label.get_window_extent()
                if any(box.overlaps(other) for other in kept):
                    label.set_visible(False)
                else:
                    kept.append(box)


def _by_rank(axis: "Axis") -> list[Any]:
    """The labels of an axis that are drawn, the more important ones first."""
    low, high = sorted(axis.get_view_interval())
    labels = []
    for ticks in (axis.get_major_ticks(), axis.get_minor_ticks()):
        there = [tick for tick in ticks if low <= tick.get_loc() <= high]
        of_ticks = [x for tick in there for x in (tick.label1, tick.label2) if x.get_visible() and x.get_text()]
        labels += [*of_ticks[:1], *of_ticks[:0:-1][:1], *of_ticks[1:-1]]
    return labels


def display_range(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per-band stretch to the 1st and 99th percentile, so that reflectances of any scale are visible.

    [..., C] -> [C] each.
    """
    low, high = np.percentile(images.reshape(-1, images.shape[-1]), (1, 99), axis=0)
    return low, np.maximum(high, low + 1e-6)


def three_bands(image: np.ndarray, rgb: Sequence[int] = ()) -> np.ndarray:
    """The bands `rgb` as red, green and blue; by default the first three, or the first one as grey. [h, w, C] ->
    [h, w, 3].
    """
    if rgb:
        return image[..., list(rgb)]
    return image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)


def named_bands(count: int, rgb: Sequence[int] = ()) -> str:
    """The bands that `three_bands` shows of `count`, in words; empty if they are all, in order."""
    if count <= 3 and tuple(rgb) in ((), (0, 1, 2)):
        return ""
    return f"bands {', '.join(map(str, rgb or (0, 1, 2)))} of {count} as red, green, blue"


def as_colours(image: np.ndarray, rgb: Sequence[int] = ()) -> np.ndarray:
    """Pixels of any bands and units, stretched for display: [h, w, C] -> [h, w, 3] in [0, 1]; see `three_bands`."""
    shown = three_bands(image, rgb).astype(np.float32)
    if image.dtype == np.uint8:
        return shown / 255
    low, high = display_range(np.nan_to_num(shown))
    return np.nan_to_num((shown - low) / (high - low), nan=0.5).clip(0, 1)


def save(figure: "Figure", path: epath.Path, kinds: tuple[str, ...] = ("png",)) -> None:
    """Writes `PATH.KIND` for each kind, in a bucket too; see `thin_labels`."""
    thin_labels(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        with whole_file(path.with_name(f"{path.name}.{kind}")) as aside, aside.open("wb") as f:
            figure.savefig(f, format=kind, dpi=110)
