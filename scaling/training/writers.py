"""Writers of metrics: `metrics.jsonl`, TensorBoard, Weights & Biases, and a progress bar."""

import datetime
import io
import math
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from etils import epath
from PIL import Image

from scaling.core.errors import UserError
from scaling.core.files import GrowingFile, naming, parsed_json_lines, write_whole

Metrics = Mapping[str, float]


class Writer(Protocol):
    """Receives the numbers of one step."""

    def advance(self, step: int) -> None:
        """Called for every computed step, also those without a row."""
        return

    def write(self, step: int, row: Metrics) -> None: ...

    def write_all(self, rows: Sequence[tuple[int, Metrics]]) -> None:
        """Writes several rows, and any that could not be written before."""
        for step, row in rows:
            self.write(step, row)

    def settle(self) -> None:
        """Waits until all rows are stored."""
        return

    def picture(self, step: int, name: str, file: epath.Path) -> None:
        """Called with a PNG that was drawn at a step, before its row."""
        return

    def close(self) -> None: ...


class JsonLines(Writer):
    """One JSON object a line, each with `step`; a line is written once and complete.

    A resumed run continues the file after the checkpoint it starts from: lines of later steps, and a line cut short by
    a kill, are dropped, because the run is about to compute them again.
    """

    def __init__(self, path: epath.PathLike, start: int):
        before = read_metrics(epath.Path(path)) if start and epath.Path(path).exists() else []
        self._file = GrowingFile(path, (_as_json(row) for row in before if row["step"] <= start))

    def write(self, step: int, row: Metrics) -> None:
        self.write_all([(step, row)])

    def write_all(self, rows: Sequence[tuple[int, Metrics]]) -> None:
        self._file.add(_as_json({"step": step, **row}) for step, row in rows)

    def close(self) -> None:
        pass


_NOT_FINITE = ("nan", "inf", "-inf")  # as they are written: JSON has no such numbers


def _as_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with text for numbers that are not finite."""
    return {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def read_metrics(path: epath.Path) -> list[dict[str, Any]]:
    """The rows of a metrics file, see `parsed_metrics`."""
    return parsed_metrics(path.read_bytes())


def parsed_metrics(content: bytes) -> list[dict[str, Any]]:
    """The rows in a metrics file, with numbers that are not finite as such; without lines cut short by a kill and lines
    of another form.
    """
    return parsed_json_lines(content, _metrics, lambda number, error: None, ended=True)


def _metrics(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        raise TypeError("has no step")
    return {name: float(value) if value in _NOT_FINITE else value for name, value in row.items()}


class TensorBoard(Writer):
    """Scalars and pictures as TensorBoard events in `WORKDIR/tensorboard`."""

    def __init__(self, workdir: epath.PathLike, start: int):
        from tensorboardX import SummaryWriter

        self._folder = epath.Path(workdir) / "tensorboard"
        # Its thread ends if it cannot write, and a bounded queue would then fill up and block forever.
        with naming(self._folder):
            self._writer = SummaryWriter(str(self._folder), purge_step=start + 1, max_queue=0)  # unbounded

    def write(self, step: int, row: Metrics) -> None:
        with naming(self._folder):
            if not self._writer.file_writer.event_writer._worker.is_alive():
                self._writer.flush()  # raises the error that ended the thread
            for name, value in row.items():
                self._writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, file: epath.Path) -> None:
        with naming(self._folder), Image.open(io.BytesIO(file.read_bytes())) as opened:
            self._writer.add_image(name, np.asarray(opened.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        with naming(self._folder):
            self._writer.close()


class WeightsAndBiases(Writer):
    """A run of the named project, resumed if it has one with this id; needs the extra `wandb`."""

    def __init__(self, project: str, name: str, run: str, config: Mapping[str, Any]):
        try:
            import wandb
        except ImportError as e:
            raise UserError("wandb is set but not installed: pip install 'scaling[wandb]', or set wandb=''") from e
        self._wandb = wandb
        self._run = wandb.init(project=project, name=name, id=run, resume="allow", config=dict(config))

    def write(self, step: int, row: Metrics) -> None:
        self._run.log(dict(row), step=step)

    def picture(self, step: int, name: str, file: epath.Path) -> None:
        with Image.open(io.BytesIO(file.read_bytes())) as opened:
            self._run.log({name: self._wandb.Image(opened)}, step=step)

    def close(self) -> None:
        self._run.finish()


def wandb_id(workdir: epath.Path, known_by_name: bool) -> str:
    """The id of a run: the same whenever it is resumed, and different for another directory of that name; stored in the
    directory, which can be moved.

    Args:
      workdir: the directory.
      known_by_name: whether the project knows this run by name only, from before ids were stored.
    """
    file = workdir / "wandb_id"
    if not file.exists():
        write_whole(file, workdir.name if known_by_name else f"{workdir.name}-{uuid.uuid4().hex[:8]}")
    return file.read_text().strip()


class ProgressBar(Writer):
    """Loss, rate and time left: on a terminal a bar that also moves between rows and during compilation; elsewhere
    one line per row.
    """

    def __init__(self, steps: int, start: int):
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._steps, self._first = steps, (0, 0.0)  # step and time of the first row, after compilation
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("step"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._task = self._bar.add_task("train", total=steps, completed=start, text="compiling")
        if self._bar.console.is_terminal:
            self._bar.start()

    def advance(self, step: int) -> None:
        self._bar.update(self._task, completed=step)

    def write(self, step: int, row: Metrics) -> None:
        text = f"loss {row['loss']:.4f}"
        if row["images_per_second"]:  # missing in a row of the compiled first step alone
            text += f"  {row['images_per_second']:,.1f} images/s"
        if "eval_loss" in row:
            text += f"  held out {row['eval_loss']:.4f}"
        self._bar.update(self._task, completed=step, text=text)
        if not self._bar.console.is_terminal:
            print(f"step {step:>7}  {text}{self._left(step)}", flush=True)

    def _left(self, step: int) -> str:
        """Time to the last step at the pace since the first row, evaluation and saving included."""
        now, (first, began) = time.monotonic(), self._first
        if not first:
            self._first = step, now
            return ""
        if step >= self._steps:
            return ""
        seconds = (now - began) / (step - first) * (self._steps - step)
        return f"  {datetime.timedelta(seconds=round(seconds))} left"

    def close(self) -> None:
        if self._bar.console.is_terminal:
            self._bar.stop()
