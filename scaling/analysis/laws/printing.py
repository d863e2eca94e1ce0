"""Prints a fitted law on a terminal."""

import math
from typing import Any

from rich.console import Console
from rich.table import Table

from scaling.analysis.laws.forms import FORMS


def print_law(console: Console, about: dict[str, Any]) -> None:
    """Prints from a summary the formula and its constants with intervals, diagnostics, and answers to questions."""
    if budgets := about.get("vertices"):  # the formula is for the best models, not for the measured values
        console.print(f"{about['formula']}, {about['rows']} rows of {about['y']}, {len(budgets)} budgets", markup=False)
    else:
        console.print(f"{about['y']} = {about['formula']}, {about['rows']} rows", markup=False)
    printed = Table("", "value", "95 % interval")
    for name, p in about["parameters"].items():
        known = p["value"] is not None
        printed.add_row(name, f"{p['value']:.4g}" if known else "not determined", _interval(p) if known else "")
    console.print(printed)
    if loss := about.get("loss"):
        console.print(_loss(loss), markup=False)
    if held := about["held_out"]:
        console.print(
            f"held out: the {held['rows']} largest, predicted from the others, are off by "
            f"{held['rms_log_error']:.2%} (root mean square)"
        )
    console.print(f"residuals: {about['residuals']['rms']:.2%} (root mean square)")
    for name, worse in about["aicc_over_this"].items():
        console.print(f"{FORMS[name].formula}: AICc {worse:+.1f} against this form", markup=False)
    for line in about.get("advice", []):
        console.print(line, markup=False)
    for line in _asked(about):
        console.print(line)
    for warning in about["warnings"]:
        console.print(f"warning: {warning}", style="yellow", markup=False)


def _loss(loss: dict[str, Any]) -> str:
    """The loss that was minimised, and the exponents under the other one."""
    said = f"loss: {_named(loss['delta'])}, summed over log residuals"
    other = loss.get("exponents_by_the_other", {})
    moved = [f"{name} {loss['exponents'][name]:.4g} to {x:.4g}" for name, x in other.items()]
    return f"{said}; {_named(loss['other_delta'])} moves {', '.join(moved)}" if moved else said


def _named(delta: float) -> str:
    return f"least squares (--delta={delta:g})" if delta >= 1 else f"Huber's, delta {delta:g}"


def _asked(about: dict[str, Any]) -> list[str]:
    lines = []
    for v in about.get("vertices", []):
        lines.append(f"of {v['compute']:.3g}: best {v['parameters_by_law']:.4g}, by the parabola {v['parameters']:.4g}")
    for p in about.get("predictions", []):
        where = ", ".join(f"{x:g}" for x in p["inputs"])
        lines.append(
            f"at {where}: {about['y']} = {p['value']:.4g} ({_interval(p)} by the law; a single run "
            f"{p['run_low']:.4g} to {p['run_high']:.4g}){_beyond(p)}"
        )
    for a in about.get("allocations", []):
        best = ", ".join(
            f"{a[k][0]:.4g} ({a[k][1]:.4g} to {a[k][2]:.4g}) {k}" for k in ("parameters", "samples", "loss")
        )
        lines.append(f"of {a['compute']:g}: {best}{_beyond(a)}")
    return lines


def _interval(p: dict[str, Any]) -> str:
    low, high = (f"{x:.4g}" if not math.isnan(x) else "?" for x in (p["low"], p["high"]))
    return f"{low} to {high}"


def _beyond(answer: dict[str, Any]) -> str:
    return f", {answer['beyond']:.3g} times beyond what was measured" if answer["beyond"] > 1 else ""
