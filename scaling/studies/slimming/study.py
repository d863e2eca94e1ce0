"""A slimming study of one encoder in a folder: its rows, which encoders they are of, and what is left to measure."""

import contextlib
import dataclasses
import datetime
import json
import logging
import time
from collections.abc import Iterator

from etils import epath
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from scaling.core.console import console
from scaling.core.errors import BusyError, TrainingError, UserError
from scaling.core.files import write_whole
from scaling.core.rows import Row, config_hash
from scaling.encoders.encoder import Encoder
from scaling.parallel.claim import Claim
from scaling.studies.grid import Grid, Outcome, part
from scaling.studies.journal import Journal
from scaling.studies.slimming.calibrating import check_calibration
from scaling.studies.slimming.cells import SlimmingStudyConfig
from scaling.studies.slimming.run import CellJob, complete, study_jobs

log = logging.getLogger(__name__)
_TRIES = 300  # a tenth of a second apart


class Study:
    """The slimming study of one encoder, in a folder that may have rows of other encoders.

    Args:
      encoder: the full encoder.
      c: settings of the study.
      name: name of the model in rows.
      output: folder; nothing is written to it before `open`.
      task, tasks: index of the part for this process, and number of parts.

    Attributes:
      settings: the settings as they are written.
      hash: hash of the settings, as in rows.
      grid: the jobs.

    Raises:
      UserError: a source of calibration images, or a file of the folder, that cannot be read.
    """

    def __init__(
        self,
        encoder: Encoder,
        c: SlimmingStudyConfig,
        name: str,
        output: epath.Path,
        task: int = 0,
        tasks: int = 1,
    ):
        check_calibration(encoder, c)
        self.settings = dataclasses.asdict(c)
        self.hash = config_hash(self.settings)
        about = encoder.row_fields(name, self.settings)
        self._encoder, self._output, self._model = encoder, output, str(about["model"])
        self._journal = Journal(output, task, tasks, complete)
        self.grid: Grid[CellJob] = Grid(part(study_jobs(encoder, c, about), task, tasks), self._journal)

    @property
    def rows(self) -> list[Row]:
        """All rows measured in the folder."""
        return self._journal.rows

    def check(self) -> None:
        """Raises UserError where the folder has rows of this model, of other parameters."""
        check_encoder(self._output, self._encoder, self._model, self.rows)

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Opens the folder for writing. Raises BusyError where another process writes to it, and as `check`."""
        with self._journal.open():
            keep_encoder(self._output, self._encoder, self._model, self._journal)
            yield

    def announce(self) -> int:
        """Says what is left to do, and how long it takes. Returns the number of cells."""
        todo, out = self.grid.todo(), console()
        out.print(f"{len(todo):,} encoders to measure, {len(self.rows):,} rows are there already")
        if outlook := self.grid.outlook(todo, "measured"):
            out.print(outlook)
        return len(todo)

    def measure(self) -> Outcome:
        """Measures what is left, with a bar; the folder is open. Raises as `Grid.run`."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        remaining, missing = TextColumn("{task.fields[left]}", style="progress.remaining"), self.announce()
        with Progress(*columns, remaining, console=console()) as bar:
            task = bar.add_task("encoders", total=missing, left="-:--:--")

            def ended(seconds: float | None) -> None:
                left = "-:--:--" if seconds is None else str(datetime.timedelta(seconds=round(seconds)))
                bar.update(task, advance=1, left=left)

            return self.grid.run(ended=ended)


def keep_encoder(output: epath.Path, encoder: Encoder, model: str, journal: Journal) -> None:
    """Adds this encoder to `encoders.json`, which all tasks share, one after the other. Raises as `check_encoder`."""
    for left in reversed(range(_TRIES)):
        try:
            with Claim(output, ".encoders") as claim:
                journal.refresh()
                known = check_encoder(output, encoder, model, journal.rows)
                claim.check()
                write_whole(output / "encoders.json", json.dumps(known, indent=2) + "\n")
            return
        except (BusyError, TrainingError):  # another task is at it
            if not left:
                raise
            time.sleep(0.1)


def check_encoder(output: epath.Path, encoder: Encoder, model: str, rows: list[Row]) -> dict[str, str]:
    """The encoders of the rows, with this one. Raises UserError where rows of its name and step are of another one."""
    file, whose = output / "encoders.json", f"{model}, step {encoder.step}"
    known = json.loads(file.read_text()) if file.exists() else {}
    measured = any((row.model, row.step) == (model, encoder.step) for row in rows)
    if measured and known.get(whose, encoder.identity) != encoder.identity:
        raise UserError(
            f"--output={output} has rows of {whose} that were measured with other parameters than those of "
            "--checkpoint; choose another --output, or another --name"
        )
    if measured and whose not in known:
        log.info(
            "%s does not state with which parameters its rows were measured: assuming those of --checkpoint", output
        )
    return known | {whose: encoder.identity}
