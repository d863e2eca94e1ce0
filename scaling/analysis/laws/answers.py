"""What a fitted law answers on a terminal."""

from typing import Any

from rich.console import Console
from rich.table import Table

from scaling.analysis.laws.forms import FORMS
from scaling.analysis.laws.report import Law


def print_parameters(console: Console, about: dict[str, Any]) -> None:
    """The formula and its constants with intervals, of a summary."""
    console.print(f"{about['y']} = {about['formula']}, {about['rows']} rows", markup=False)
    printed = Table("", "value", "95 % interval")
    for name, p in about["parameters"].items():
        printed.add_row(name, f"{p['value']:.4g}", f"{p['low']:.4g} to {p['high']:.4g}")
    console.print(printed)


def print_law(console: Console, about: dict[str, Any], result: Law) -> None:
    """How far a law can be trusted, and what it was asked."""
    if result.held_out:
        console.print(
            f"held out: the {result.held_out['rows']} largest, predicted from the others, are off by "
            f"{result.held_out['rms_log_error']:.2%} (root mean square)"
        )
    for name, worse in result.simpler.items():
        console.print(f"{FORMS[name].formula}: AICc {worse:+.1f} against this form")
    for p in about.get("predictions", []):
        where = ", ".join(f"{x:g}" for x in p["inputs"])
        beyond = f", {p['beyond']:.3g} times beyond what was measured" if p["beyond"] > 1 else ""
        console.print(f"at {where}: {p['value']:.4g} ({p['low']:.4g} to {p['high']:.4g}){beyond}")
    for a in about.get("allocations", []):
        best = ", ".join(
            f"{a[k][0]:.4g} ({a[k][1]:.4g} to {a[k][2]:.4g}) {k}" for k in ("parameters", "samples", "loss")
        )
        console.print(f"of {a['compute']:g}: {best}")
    for warning in result.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False)
