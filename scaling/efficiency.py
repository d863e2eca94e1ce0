"""How much labelled data does an encoder need? Fine-tunes on nested fractions of the training images, with several
seeds.

    python -m scaling.efficiency --checkpoint=DIR --config=efficiency.py --output=DIR [--plan]
        [--config.path.to.field=value ...]
    python -m scaling.efficiency --checkpoint=DIR --config=efficiency.py --output=DIR --task=3 --tasks=8

Each combination of an encoder of the config (pretrained, random, cut; fine-tuned or frozen), a fraction and a seed is
one fine-tuning, and all have the same number of steps. The output directory gets `rows.jsonl` (the schema of
`scaling.core.rows`, in which `images` is the number of training images), `jobs.jsonl`, `config.json`, `tables.md`,
`figures/` and, during a fine-tuning, its working directory. The same command resumes; finished fine-tunings are not
repeated. In a job array of --tasks, each task runs its share.
"""

import dataclasses
import json

from etils import epath

from scaling import cli
from scaling.analysis.efficiency import draw_efficiency, efficiency_tables
from scaling.core.config import config_of
from scaling.core.console import console
from scaling.core.files import write_whole
from scaling.core.paths import check_folder, run_name
from scaling.encoders.loading import load_encoder
from scaling.studies.efficiency.run import FinetuningJob, efficiency_jobs
from scaling.studies.efficiency.settings import EfficiencyConfig
from scaling.studies.grid import Grid, StoppedError, part
from scaling.studies.journal import Journal


def define_flags(define: cli.Define) -> None:
    define.path("checkpoint", None, "The --workdir of a training run.")
    define.integer("step", None, "Step of the checkpoint; the newest by default.")
    define.config(EfficiencyConfig, "Config of the study, by path or by bare name.")
    define.path("output", None, "Folder for rows and figures; an unfinished study in it is resumed.")
    define.bool("plan", False, "Show the fine-tunings that are left and their time; train nothing.")
    define.alias("dry_run", "plan")
    define.tasks("fine-tunings")
    define.string("name", "", "Name of the model in the rows; by default that of its directory.")


@cli.command(define_flags)
def main(argv: list[str], flags: cli.Flags) -> int:
    cli.require(flags, "checkpoint=DIR", "config=FILE", "output=DIR")
    c = config_of(EfficiencyConfig, flags.config)
    c.check()
    part((), flags.task, flags.tasks)
    output = epath.Path(flags.output) if flags.plan else check_folder("output", flags.output)
    encoder = load_encoder(flags.checkpoint, flags.step)
    name = flags.name or run_name(flags.checkpoint)
    jobs = efficiency_jobs(encoder, name, c, output)
    journal = Journal(output, flags.task, flags.tasks)
    grid = Grid(part(jobs, flags.task, flags.tasks), journal)
    if flags.plan:
        _announce(grid, journal)
        return 0
    with journal.open():
        write_whole(output / "config.json", json.dumps(dataclasses.asdict(c), indent=2) + "\n")
        _announce(grid, journal)
        try:
            outcome = grid.run(begins=_begins)
        except StoppedError as e:
            return e.code
    outcome.check("fine-tunings", "run")
    mine = {job.stands_for for job in jobs}
    rows = [row for row in journal.rows if row.config_hash in mine]
    tables = efficiency_tables(rows)
    write_whole(output / "tables.md", tables)
    draw_efficiency(rows, output / "figures" / "efficiency")
    console().print(tables)
    for what, where in (("rows", "rows.jsonl"), ("tables", "tables.md"), ("figures", "figures")):
        console().print(f"{what:<8} {output / where}")
    return 0


def _announce(grid: Grid[FinetuningJob], journal: Journal) -> None:
    todo, out = grid.todo(), console()
    out.print(f"{len(todo):,} of {len(grid.jobs):,} fine-tunings to run, {len(journal.rows):,} rows are there already")
    if outlook := grid.outlook(todo, "run"):
        out.print(outlook)


def _begins(job: FinetuningJob, number: int, of: int) -> None:
    console().print(f"{number + 1} of {of}: {job.encoder}, {job.images:,} of {job.of:,} images, seed {job.recipe.seed}")


if __name__ == "__main__":
    cli.run(main)
