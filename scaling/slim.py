"""Cuts a pretrained encoder narrower without retraining, and measures what probes lose against compute.

    python -m scaling.slim --checkpoint=DIR --config=slim.py --output=DIR [--config.path.to.field=value ...]

The output directory gets `rows.jsonl` (the schema of `scaling.results`), `config.json`, `tables.md` and `figures/`.
Starting the same command again goes on behind the last finished cell; a finished sweep is only drawn again.
"""

import dataclasses
import json

from absl import flags
from etils import epath
from ml_collections import config_flags
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from scaling import cli
from scaling.analysis.retention import draw_curves, draw_spectra
from scaling.analysis.tables import sweep_tables
from scaling.config import from_config_dict
from scaling.console import console
from scaling.errors import UserError
from scaling.evaluation.cells import SweepConfig
from scaling.evaluation.encoder import load_encoder
from scaling.evaluation.sweep import Sweep
from scaling.paths import check_folder
from scaling.results import Results

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "The --workdir of a training run.")
_STEP = flags.DEFINE_integer("step", None, "Which checkpoint of it; the newest by default.")
_CONFIG = config_flags.DEFINE_config_file("config", None, "What is measured, by path or by bare name.")
_OUTPUT = flags.DEFINE_string("output", None, "Where rows and figures go; goes on from what is there.")
_NAME = flags.DEFINE_string("name", "", "What rows call the model; the name of its directory by default.")


def main(argv: list[str]) -> None:
    del argv
    if not _CHECKPOINT.value or not _OUTPUT.value or _CONFIG.value is None:
        raise UserError("give --checkpoint=DIR, --config=FILE and --output=DIR")
    c = from_config_dict(SweepConfig, _CONFIG.value)
    c.check()
    output = check_folder("output", _OUTPUT.value)
    encoder = load_encoder(_CHECKPOINT.value, _STEP.value)
    results = Results(output / "rows.jsonl")
    settings = dataclasses.asdict(c)
    about = encoder.row_fields(_NAME.value or epath.Path(_CHECKPOINT.value).name, settings)
    sweep = Sweep(encoder, c, results, about)
    missing = sum(map(len, sweep.todo().values()))
    out = console()
    out.print(f"{missing:,} encoders to measure, {len(results.rows):,} rows are there already")
    (output / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=out) as bar:
        task = bar.add_task("encoders", total=missing)
        sweep.run(lambda: bar.advance(task))
    for draw, name in ((draw_curves, "curves"), (draw_spectra, "spectra")):
        draw(results.rows, output / "figures" / name)
    (output / "tables.md").write_text(sweep_tables(results.rows))
    for what, name in (("rows", "rows.jsonl"), ("tables", "tables.md"), ("figures", "figures")):
        out.print(f"{what:<8} {output / name}")


if __name__ == "__main__":
    cli.run(main)
