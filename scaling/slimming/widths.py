"""Plans for a width s in (0, 1]: the axes that a mode cuts, and the number of units kept of each.

The rule is the published one (Hackel, Burgert and Demir, 2601.22841): max(1, floor(s n)) of an axis of size n.
"""

import math
from collections.abc import Mapping

from scaling import axes
from scaling.core.errors import UserError

# The widths of the published curves.
PUBLISHED_WIDTHS = (
    *(0.001, 0.002, 0.0025, 0.00333, 0.004, 0.005, 0.006, 0.00667, 0.0075, 0.008),
    *(0.01, 0.02, 0.025, 0.0333, 0.04, 0.05, 0.06, 0.0667, 0.075, 0.08),
    *(0.1, 0.2, 0.25, 0.333, 0.4, 0.5, 0.6, 0.667, 0.75, 0.8, 1.0),
)

# Axes cut by each mode. `inner` is the published mode: it keeps all heads and the token width.
MODES = {
    "inner": ("head_dim", "mlp"),
    "token": ("head_dim", "mlp", "embed"),
    "heads": ("heads",),
    "branch": ("branch",),
}


def mode_axes(mode: str) -> tuple[str, ...]:
    """The axes a mode cuts: one of `MODES`, or axis names joined by `+` (`heads+mlp`, `layers`).

    Raises:
      UserError: neither a mode nor axes.
    """
    cut = MODES.get(mode) or tuple(mode.split("+"))
    widths = {name for mode in MODES.values() for name in mode} | {"layers"}
    if not set(cut) <= widths:
        raise UserError(
            f"unknown slimming mode {mode!r}; the modes are {', '.join(MODES)}, or axes joined by +, out of "
            f"{', '.join(name for name in axes.AXES if name in widths)}"
        )
    return cut


def keep(size: int, width: float) -> int:
    """max(1, floor(width * size)), where a product within rounding of an integer counts as that integer (0.29 of
    100: 29).
    """
    return max(1, math.floor(width * size + 1e-9))


def width_plan(sizes: Mapping[str, int], widths: Mapping[str, float]) -> dict[str, int]:
    """Number of units kept of each axis.

    Args:
      sizes: sizes of the axes of the network, see `scaling.slimming.cutting.axis_sizes`.
      widths: axis -> s.

    Raises:
      UserError: a width outside of (0, 1], or less than the whole of an axis of size 1.
    """
    for name, width in widths.items():
        if not 0 < width <= 1:
            raise UserError(f"width_ratio={width}: must be above 0 and at most 1; 25 % is 0.25")
        if width < 1 and sizes[name] == 1:
            raise UserError(f"the network has one {name}, which cannot be cut; choose another mode")
    return {name: keep(sizes[name], width) for name, width in widths.items()}


def mode_plan(sizes: Mapping[str, int], width: float, mode: str = "inner") -> dict[str, int]:
    """The plan of one width in a mode; see `mode_axes` and `width_plan`."""
    return width_plan(sizes, dict.fromkeys(mode_axes(mode), width))
