"""The envelope: the best row of every bin of x, for laws of the best models.

Cherti et al. (2212.07143) use equal bins of the logarithm of compute, and fit the best error of a bin at its centre;
Zhai et al. (2106.04560) fit it at the compute of the best model.
"""

import re
from collections.abc import Sequence

import numpy as np

from scaling.analysis.laws.columns import LawData
from scaling.core.errors import UserError

_MORE = 0.1  # decades beyond the largest x at which the last bin ends, in the authors' notebook


def envelope(data: LawData, written: str, x: Sequence[str]) -> tuple[LawData, list[str]]:
    """The best row of each bin, in order of x; and a note on the rows left out.

    Args:
      data: numbers with one input.
      written: BINS, or BINS:centre to put the best row of a bin at its centre, with the bins of Cherti et al.
      x: name of the input.

    Raises:
      UserError: another form; more than one input; fewer than three non-empty bins.
    """
    asked = re.fullmatch(r"(\d+)(:centre)?", written)
    if not asked or int(asked[1]) < 3:
        raise UserError(f"--envelope={written}: must be a number of bins, at least 3, such as 10 or 10:centre")
    if len(x) != 1:
        raise UserError(f"--envelope={written} needs a single --x, not {', '.join(x)}")
    logs, bins = np.log10(data.inputs[:, 0]), int(asked[1])
    edges = np.linspace(logs.min(), logs.max() + (_MORE if asked[2] else 0), bins + 1)
    number = np.clip(np.searchsorted(edges, logs, side="right") - 1, 0, bins - 1)
    best = {b: int(rows[data.values[rows].argmin()]) for b in range(bins) if len(rows := np.flatnonzero(number == b))}
    if len(best) < 3:
        raise UserError(f"--envelope={written}: only {len(best)} bins of {x[0]} hold a row; give more bins")
    order = sorted(best.values(), key=lambda i: data.inputs[i, 0])
    inputs = data.inputs[order]
    if asked[2]:
        inputs = np.array([[10 ** ((edges[b] + edges[b + 1]) / 2)] for b in best])
    which = f"{len(order)} of {len(logs)} rows are the best of their bin of {x[0]} ({bins} bins)"
    chosen = LawData(inputs, data.values[order], data.groups[order], data.kept[order], data.warnings)
    return chosen, [f"{which}, the others are not fitted{', each at the centre of its bin' if asked[2] else ''}"]
