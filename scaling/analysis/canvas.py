"""Figures without a display. matplotlib is loaded when the first is made: most commands draw at their end or never."""

from typing import TYPE_CHECKING

from etils import epath

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of this size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: "Figure", path: epath.Path, kinds: tuple[str, ...] = ("png",)) -> None:
    """Writes `PATH.KIND` for each kind, in a bucket too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        with path.with_name(f"{path.name}.{kind}").open("wb") as f:
            figure.savefig(f, format=kind, dpi=110)
