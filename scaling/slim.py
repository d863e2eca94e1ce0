"""Cuts a pretrained encoder narrower without retraining, and measures what probes lose against compute.

    python -m scaling.slim --checkpoint=DIR --config=slim.py --output=DIR [--config.path.to.field=value ...]

The output directory gets `rows.jsonl` (the schema of `scaling.core.rows`), `config.json`, `tables.md` and `figures/`.
Starting the same command again goes on behind the last finished cell; a finished sweep is only drawn again.
"""

import dataclasses
import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from etils import epath
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from scaling import cli
from scaling.analysis.retention import draw_curves, draw_spectra
from scaling.analysis.tables import sweep_tables
from scaling.core.config import from_config_dict
from scaling.core.console import console
from scaling.core.errors import UserError
from scaling.core.files import write_whole
from scaling.core.paths import check_folder
from scaling.core.rows import Results, Row
from scaling.encoders.encoder import Encoder, load_encoder
from scaling.parallel.claim import Claim
from scaling.studies.slimming.grid import SweepConfig
from scaling.studies.slimming.run import Sweep

log = logging.getLogger(__name__)


def define_flags(define: cli.Define) -> None:
    define.path("checkpoint", None, "The --workdir of a training run.")
    define.integer("step", None, "Which checkpoint of it; the newest by default.")
    define.config("What is measured, by path or by bare name.")
    define.path("output", None, "Where rows and figures go; goes on from what is there.")
    define.string("name", "", "What rows call the model; the name of its directory by default.")


@cli.command(define_flags)
def main(argv: list[str], flags: cli.Flags) -> None:
    if not flags.checkpoint or not flags.output or flags.config is None:
        raise UserError("give --checkpoint=DIR, --config=FILE and --output=DIR")
    c = from_config_dict(SweepConfig, flags.config)
    c.check()
    output = check_folder("output", flags.output)
    with Claim(output):
        _study(flags, c, output)


def _study(flags: cli.Flags, c: SweepConfig, output: epath.Path) -> None:
    encoder = load_encoder(flags.checkpoint, flags.step)
    results = Results(output / "rows.jsonl")
    settings = dataclasses.asdict(c)
    about = encoder.row_fields(flags.name or epath.Path(flags.checkpoint).name, settings)
    _check_encoder(output, encoder, about, results.rows)
    sweep = Sweep(encoder, c, results, about)
    missing = sum(map(len, sweep.todo().values()))
    out = console()
    out.print(f"{missing:,} encoders to measure, {len(results.rows):,} rows are there already")
    write_whole(output / "config.json", json.dumps(settings, indent=2) + "\n")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=out) as bar:
        task = bar.add_task("encoders", total=missing)
        sweep.run(lambda: bar.advance(task))
    for draw, name in ((draw_curves, "curves"), (draw_spectra, "spectra")):
        draw(results.rows, output / "figures" / name)
    write_whole(output / "tables.md", sweep_tables(results.rows))
    for what, name in (("rows", "rows.jsonl"), ("tables", "tables.md"), ("figures", "figures")):
        out.print(f"{what:<8} {output / name}")


def _check_encoder(output: epath.Path, encoder: Encoder, about: Mapping[str, Any], rows: Iterable[Row]) -> None:
    """Keeps with the rows whose they are. Raises UserError where those of this name and step are of another encoder."""
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
    write_whole(file, json.dumps(known | {whose: encoder.identity}, indent=2) + "\n")


if __name__ == "__main__":
    cli.run(main)
