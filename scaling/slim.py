"""Makes a pretrained encoder narrower without retraining, and measures how probe scores fall with compute.

    python -m scaling.slim --checkpoint=DIR --config=slim.py --output=DIR [--plan] [--config.path.to.field=value ...]
    python -m scaling.slim --checkpoint=DIR --config=slim.py --output=DIR --task=3 --tasks=8    # of an array of jobs

The output directory gets `rows.jsonl` (the schema of `scaling.core.rows`), `jobs.jsonl` (the time of each encoder),
`config.json`, `tables.md` and `figures/`. The same command resumes after the last finished encoder; for a finished
study it only draws the figures again. In a job array (--task, --tasks) each task writes to `tasks/` and appends its
rows to `rows.jsonl` when it finishes.
"""

import dataclasses
import json

from etils import epath

from scaling import cli
from scaling.analysis.retention import draw_curves, draw_spectra
from scaling.analysis.tables import sweep_tables
from scaling.core.config import config_of
from scaling.core.console import console
from scaling.core.files import write_whole
from scaling.core.paths import check_folder, run_name, user_path
from scaling.core.rows import Row, given_rows
from scaling.encoders.loading import load_encoder
from scaling.studies.floors import floor_tables
from scaling.studies.grid import StoppedError, part
from scaling.studies.slimming.cells import SlimmingStudyConfig
from scaling.studies.slimming.datasets import with_splits
from scaling.studies.slimming.study import Study


def define_flags(define: cli.Define) -> None:
    define.path("checkpoint", None, "The --workdir of a training run.")
    define.integer("step", None, "Step of the checkpoint; the newest by default.")
    define.config(SlimmingStudyConfig, "Config of the study, by path or by bare name.")
    define.path("output", None, "Folder for rows and figures; an unfinished study in it is resumed.")
    define.list("curves", [], "Curves to draw, by parts of their names, or `all`; five by default.")
    define.bool("plan", False, "Show the encoders that are left and their time; measure nothing.")
    define.alias("dry_run", "plan")
    define.tasks("encoders")
    define.multi_string(
        "beside", [], "Rows of other studies of the same data set and probe, to draw in the same figures."
    )
    define.string("name", "", "Name of the model in the rows; by default that of its directory.")


@cli.command(define_flags)
def main(argv: list[str], flags: cli.Flags) -> int:
    cli.require(flags, "checkpoint=DIR", "config=FILE", "output=DIR")
    c = config_of(SlimmingStudyConfig, flags.config)
    c.check()
    c = dataclasses.replace(c, datasets=with_splits(c.datasets))
    part((), flags.task, flags.tasks)
    beside = [row for file in flags.beside for row in given_rows(user_path("beside", file))]
    output = epath.Path(flags.output) if flags.plan else check_folder("output", flags.output)
    encoder = load_encoder(flags.checkpoint, flags.step)
    study = Study(encoder, c, flags.name or run_name(flags.checkpoint), output, flags.task, flags.tasks)
    if flags.plan:
        study.check()
        study.announce()
        return 0
    with study.open():
        write_whole(output / "config.json", json.dumps(study.settings, indent=2) + "\n")
        try:
            outcome = study.measure()
        except StoppedError as e:
            return e.code
    outcome.check("cells", "measured")
    _draw(output, study.rows, beside, c.draws, flags.curves)
    return 0


def _draw(output: epath.Path, rows: list[Row], beside: list[Row], draws: int, wanted: list[str]) -> None:
    measured = {(row.dataset, row.probe) for row in rows}
    others = [row for row in beside if row.compute and (row.dataset, row.probe) in measured]
    tables = (sweep_tables(rows), floor_tables(rows, draws))
    write_whole(output / "tables.md", "\n".join(part for part in tables if part))
    for line in draw_curves(rows + others, output / "figures" / "curves", wanted):
        console().print(line, markup=False)
    draw_spectra(rows, output / "figures" / "spectra", wanted)
    for what, name in (("rows", "rows.jsonl"), ("tables", "tables.md"), ("figures", "figures")):
        console().print(f"{what:<8} {output / name}")


if __name__ == "__main__":
    cli.run(main)
