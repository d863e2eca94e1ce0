"""The coordinate check of a parametrization: a table, rows and a figure.

    python -m scaling.coordcheck --config=CONFIG --widths=64,128,256,512,1024 --output=DIR

One model of each width is trained for --steps steps under each of --parametrizations; the base sizes are those of the
config. For each part of the model the table shows a ratio, before the first step and after the last: the mean absolute
activation at the width where it is largest, divided by that at the width where it is smallest. Under mup it stays
near 1. --depths varies the depth instead, for completep. DIR gets `rows.jsonl`, `coordinates.png` and
`coordinates.svg`.
"""

import contextlib
import dataclasses
from typing import Any

from rich.table import Table

from scaling import cli
from scaling.analysis.coord_check import draw
from scaling.core.config import config_of
from scaling.core.console import console
from scaling.core.errors import UserError
from scaling.core.paths import check_folder, unmade
from scaling.core.rows import Results, Row, provenance
from scaling.studies.rows import pretraining_row
from scaling.studies.sweeps.variation import vary
from scaling.training.config import TrainConfig
from scaling.training.coord_check import coordinates, spread
from scaling.training.parametrization import PARAMETRIZATIONS


def define_flags(define: cli.Define) -> None:
    define.config(TrainConfig, "Training config, by path or by bare name.")
    define.list("widths", ["64", "128", "256", "512", "1024"], "Widths of the encoders.")
    define.list("depths", [], "Depths of the encoders, instead of --widths.")
    define.list("parametrizations", ["standard", "mup"], "The parametrizations to compare.")
    define.integer("steps", 10, "Number of training steps.", lower_bound=1)
    define.path("output", None, "Folder for the rows and the figure.")
    define.dry_run("train")


@cli.command(define_flags, resumes=False)
def main(argv: list[str], flags: cli.Flags) -> None:
    cli.require(flags, "config=FILE", "output=DIR")
    base = config_of(TrainConfig, flags.config)
    axis, sizes = ("depth", flags.depths) if flags.depths else ("width", flags.widths)
    if not all(size.isdecimal() for size in sizes) or len(sizes) < 2:
        raise UserError(f"--{axis}s={','.join(sizes)}: must be two or more whole numbers, separated by commas")
    for name in flags.parametrizations or [""]:
        if name not in PARAMETRIZATIONS:
            raise UserError(f"--parametrizations={name!r}: must be one of {', '.join(PARAMETRIZATIONS)}")
    configs = [vary(base, {"parametrization": n, axis: int(size)})[1] for n in flags.parametrizations for size in sizes]
    for c in configs:
        c.check()
    with unmade() if flags.dry_run else contextlib.nullcontext():
        output = check_folder("output", flags.output)
    if flags.dry_run:
        names = [f"{c.parametrization.name}, {axis} {getattr(c.model, axis)}" for c in configs]
        print(f"{len(configs)} models of {flags.steps} steps each: {'; '.join(names)}")
        return
    rows: list[Row] = []

    def report(c: TrainConfig, step: int, values: dict[str, float]) -> None:
        row = pretraining_row("coordinates", f"{c.parametrization.name} {axis} {getattr(c.model, axis)}", c)
        about: dict[str, Any] = {"step": step, "samples_seen": step * c.batch_size, **provenance()}
        row = dataclasses.replace(row, **about)
        rows.extend(dataclasses.replace(row, metric=part, value=value) for part, value in values.items())

    coordinates(configs, flags.steps, report)
    (output / "rows.jsonl").unlink(missing_ok=True)
    Results(output / "rows.jsonl").add(rows)
    draw(rows, "embed" if axis == "width" else "layers", output / "coordinates")
    _show(flags, rows, axis)


def _show(flags: cli.Flags, rows: list[Row], axis: str) -> None:
    """Shows the parts that all depths have, those of the shallowest model."""
    parts = [p for p in dict.fromkeys(row.metric for row in rows) if _everywhere(rows, p)]
    table = Table("part", *(f"{name}, step {step}" for name in flags.parametrizations for step in (0, flags.steps)))
    for part in parts:
        cells = []
        for name in flags.parametrizations:
            for step in (0, flags.steps):
                found = [r.value or 0.0 for r in rows if (r.metric, r.parametrization, r.step) == (part, name, step)]
                cells.append(f"{spread(found):.2f}")
        table.add_row(part, *cells)
    out = console()
    out.print(f"largest over smallest mean absolute coordinate between the {axis}s")
    out.print(table)


def _everywhere(rows: list[Row], part: str) -> bool:
    return {r.model for r in rows if r.metric == part} == {r.model for r in rows}


if __name__ == "__main__":
    cli.run(main)
