"""Cuts a pretrained encoder narrower without retraining, and measures what probes lose against compute.

    python -m scaling.slim --checkpoint=DIR --config=slim.py --output=DIR [--plan] [--config.path.to.field=value ...]
    python -m scaling.slim --checkpoint=DIR --config=slim.py --output=DIR --task=3 --tasks=8    # of an array of jobs

The output directory gets `rows.jsonl` (the schema of `scaling.core.rows`), `jobs.jsonl` (how long each encoder took),
`config.json`, `tables.md` and `figures/`. The same command resumes after the last finished encoder; a finished study is
only drawn again. Of an array every task writes to `tasks/` and adds its rows to `rows.jsonl` when it ends.
"""

import dataclasses
import datetime
import json
import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

from etils import epath
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from scaling import cli
from scaling.analysis.retention import draw_curves, draw_spectra
from scaling.analysis.tables import sweep_tables
from scaling.core.config import from_config_dict
from scaling.core.console import console
from scaling.core.errors import BusyError, TrainingError, UserError
from scaling.core.files import write_whole
from scaling.core.paths import check_folder, run_name, user_path
from scaling.core.rows import Row, read_rows
from scaling.encoders.encoder import Encoder, load_encoder
from scaling.parallel.claim import Claim
from scaling.studies.floors import floor_tables
from scaling.studies.grid import Grid, Outcome, StoppedError, part
from scaling.studies.journal import Journal
from scaling.studies.slimming.calibrating import check_calibration
from scaling.studies.slimming.cells import SlimmingStudyConfig
from scaling.studies.slimming.datasets import with_splits
from scaling.studies.slimming.run import CellJob, complete, study_jobs

log = logging.getLogger(__name__)
_TRIES = 300  # a tenth of a second apart


def define_flags(define: cli.Define) -> None:
    define.path("checkpoint", None, "The --workdir of a training run.")
    define.integer("step", None, "Step of the checkpoint; the newest by default.")
    define.config(SlimmingStudyConfig, "Config of the study, by path or by bare name.")
    define.path("output", None, "Folder for rows and figures; an unfinished study in it is resumed.")
    define.list("curves", [], "Which curves are drawn, by parts of their names, or `all`; five by default.")
    define.bool("plan", False, "Show what is left to measure and how long it takes, measure nothing.")
    define.alias("dry_run", "plan")
    define.tasks("encoders")
    define.multi_string("beside", [], "Rows of others, of the same data set and probe, to draw in the same figures.")
    define.string("name", "", "Name of the model in rows; that of its directory by default.")


@cli.command(define_flags)
def main(argv: list[str], flags: cli.Flags) -> int:
    if not flags.checkpoint or not flags.output or flags.config is None:
        raise UserError("give --checkpoint=DIR, --config=FILE and --output=DIR")
    c = from_config_dict(SlimmingStudyConfig, flags.config)
    c.check()
    c = dataclasses.replace(c, datasets=with_splits(c.datasets))
    part((), flags.task, flags.tasks)
    beside = [row for file in flags.beside for row in read_rows(user_path("beside", file))]
    output = epath.Path(flags.output) if flags.plan else check_folder("output", flags.output)
    encoder = load_encoder(flags.checkpoint, flags.step)
    check_calibration(encoder, c)
    settings = dataclasses.asdict(c)
    about = encoder.row_fields(flags.name or run_name(flags.checkpoint), settings)
    journal = Journal(output, flags.task, flags.tasks, complete)
    grid = Grid(part(study_jobs(encoder, c, about), flags.task, flags.tasks), journal)
    if flags.plan:
        _check_encoder(output, encoder, about, journal.rows)
        _announce(grid, journal)
        return 0
    with journal.open():
        _keep_encoder(output, encoder, about, journal)
        write_whole(output / "config.json", json.dumps(settings, indent=2) + "\n")
        try:
            outcome = _measure(grid, _announce(grid, journal))
        except StoppedError as e:
            return e.code
    outcome.check("cells", "measured")
    _draw(output, journal.rows, beside, c.draws, flags.curves)
    return 0


def _announce(grid: Grid[CellJob], journal: Journal) -> int:
    """Says what is left to do, and how long it takes. Returns the number of cells."""
    todo, out = grid.todo(), console()
    out.print(f"{len(todo):,} encoders to measure, {len(journal.rows):,} rows are there already")
    if outlook := grid.outlook(todo, "measured"):
        out.print(outlook)
    return len(todo)


def _measure(grid: Grid[CellJob], missing: int) -> Outcome:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[left]}", style="progress.remaining"), console=console()) as bar:
        task = bar.add_task("encoders", total=missing, left="-:--:--")

        def ended(seconds: float | None) -> None:
            left = "-:--:--" if seconds is None else str(datetime.timedelta(seconds=round(seconds)))
            bar.update(task, advance=1, left=left)

        return grid.run(ended=ended)


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


def _keep_encoder(output: epath.Path, encoder: Encoder, about: Mapping[str, Any], journal: Journal) -> None:
    """Adds this encoder to `encoders.json`, which all tasks share, one after the other. Raises as `_check_encoder`."""
    for left in reversed(range(_TRIES)):
        try:
            with Claim(output, ".encoders") as claim:
                journal.refresh()
                known = _check_encoder(output, encoder, about, journal.rows)
                claim.check()
                write_whole(output / "encoders.json", json.dumps(known, indent=2) + "\n")
            return
        except (BusyError, TrainingError):  # another task is at it
            if not left:
                raise
            time.sleep(0.1)


def _check_encoder(
    output: epath.Path, encoder: Encoder, about: Mapping[str, Any], rows: Iterable[Row]
) -> dict[str, str]:
    """The encoders of the rows, with this one. Raises UserError where rows of its name and step are of another one."""
    file, whose = output / "encoders.json", f"{about['model']}, step {encoder.step}"
    known = json.loads(file.read_text()) if file.exists() else {}
    measured = any((row.model, row.step) == (about["model"], encoder.step) for row in rows)
    if measured and known.get(whose, encoder.identity) != encoder.identity:
        raise UserError(
            f"--output={output} has rows of {whose}, of other parameters than --checkpoint has now; choose another "
            "--output, or another --name"
        )
    if measured and whose not in known:
        log.info("%s does not say of which parameters its rows are: taken to be those of --checkpoint", output)
    return known | {whose: encoder.identity}


if __name__ == "__main__":
    cli.run(main)
