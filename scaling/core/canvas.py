"""Figures without a display. matplotlib is loaded when the first is made: most commands draw at their end or never."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from scaling.core.files import whole_file

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of this size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def plain_numbers(axis: "Axis") -> None:
    """Ticks of a logarithmic axis as 0.85, not 8.5 x 10^-1."""
    for set_formatter in (axis.set_major_formatter, axis.set_minor_formatter):
        set_formatter(lambda value, _: f"{value:g}")


def colour(i: int, count: int) -> Any:
    """Of the i-th of so many lines, no two of which have the same."""
    from matplotlib import colormaps

    if count <= 10:
        return f"C{i}"
    return colormaps["tab20"](i) if count <= 20 else colormaps["turbo"](i / (count - 1))


def sizes_as_ticks(axis: "Axis", sizes: Sequence[float]) -> None:
    """Ticks of a logarithmic axis where something was measured and nowhere else, unless these are many."""
    from matplotlib.ticker import NullLocator

    if len(sizes) <= 12:
        axis.set_minor_locator(NullLocator())
        axis.set_ticks(sizes, [f"{size:g}" for size in sizes], rotation=45)


def display_range(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per-band stretch to the 1st and 99th percentile, so that reflectances of any scale are visible.

    [..., C] -> [C] each.
    """
    low, high = np.percentile(images.reshape(-1, images.shape[-1]), (1, 99), axis=0)
    return low, np.maximum(high, low + 1e-6)


def three_bands(image: np.ndarray) -> np.ndarray:
    """The first three bands as red, green and blue, or the first one as grey. [h, w, C] -> [h, w, 3]."""
    return image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)


def as_colours(image: np.ndarray) -> np.ndarray:
    """Pixels of any number of bands and any units as they can be shown: [h, w, C] -> [h, w, 3] in [0, 1]."""
    shown = three_bands(image).astype(np.float32)
    if image.dtype == np.uint8:
        return shown / 255
    low, high = display_range(np.nan_to_num(shown))
    return np.nan_to_num((shown - low) / (high - low), nan=0.5).clip(0, 1)


def save(figure: "Figure", path: epath.Path, kinds: tuple[str, ...] = ("png",)) -> None:
    """Writes `PATH.KIND` for each kind, in a bucket too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        with whole_file(path.with_name(f"{path.name}.{kind}")) as aside, aside.open("wb") as f:
            figure.savefig(f, format=kind, dpi=110)
