"""Warnings for one law that is fitted to rows of different experiments."""

from collections.abc import Sequence
from typing import Any

from scaling.analysis.laws.columns import DERIVED, Derived, number
from scaling.analysis.laws.filtering import FOLLOW_STEP, some
from scaling.analysis.sweep_fields import varied
from scaling.core.rows import Row

# Word fields that separate experiments, and those that separate kinds of cut.
_EXPERIMENT = ("study", "objective", "parametrization", "dataset", "split", "probe")
_CUT = ("model", "mode", "ordering", "recovery")
_SIZES = ("params", "samples_seen", "images")  # numeric fields that influence a measurement


def mixed(rows: Sequence[Row], inputs: Sequence[str] = (), derived: Derived = DERIVED) -> list[str]:
    """Warnings for fields that differ between rows and change the quantity or the experiment; for cuts of different
    kinds; for learning rates, lengths, data and sizes that differ although the inputs of the law do not; and for
    runs present at several steps.
    """
    found = []
    cut = [row for row in rows if row.compute != 1]  # the whole encoder belongs to cuts of every kind
    for names, those in ((_EXPERIMENT, rows), (_CUT, cut)):
        for name in names:
            values = {getattr(row, name) for row in those}
            if len(values) > 1 and name not in inputs:
                found.append(f"one law for rows of different {name} ({some(values, 3)}): --where={name}=… keeps one")
    steps: dict[str, set[int]] = {}
    for row in rows:
        if row.config_hash:
            steps.setdefault(row.config_hash, set()).add(row.step)
    several: list[tuple[str, str, list[set[Any]]]] = [
        ("base_lr", "at the same inputs", [v for v in _at_the_same(rows, inputs, "base_lr", derived) if len(v) > 1]),
        ("step", "of the same config_hash", [v for v in steps.values() if len(v) > 1]),
    ]
    found += [
        f"one law for rows of different {name} {what} ({some(pooled[0], 3)}): --best={name} takes the best, "
        f"--where={name}=… keeps one"
        for name, what, pooled in several
        if pooled and name not in inputs
    ]
    follows_step = bool(several[1][2])
    for name in varied([{name: getattr(row, name) for name in _SIZES} for row in rows]) if inputs else ():
        values = max(_at_the_same(rows, inputs, name, derived), key=len)
        if len(values) > 1 and not (name in FOLLOW_STEP and follows_step):
            found.append(
                f"one law for rows of different {name} at the same inputs ({some(values, 3)}): make it an --x too, "
                f"or --where={name}=… keeps one"
            )
    return found


def _at_the_same(rows: Sequence[Row], inputs: Sequence[str], name: str, derived: Derived) -> list[set[Any]]:
    """The values of a field, for each point in the inputs of a law."""
    there: dict[tuple[float, ...], set[Any]] = {}
    for row in rows:
        there.setdefault(tuple(number(row, x, derived) for x in inputs), set()).add(getattr(row, name))
    return list(there.values())
