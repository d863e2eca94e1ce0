"""A trace of some steps, in the place where TensorBoard's profile plugin and XProf look for it."""

import re
import shutil
import tempfile
from pathlib import Path

import jax
from etils import epath

from scaling.core.errors import UserError
from scaling.training.open_run import Watch
from scaling.training.writers import Metrics, Writer


def parsed(steps: str, total: int) -> tuple[int, int]:
    """`10:20` as the steps 10 to 20. Raises a UserError for other text, and for a run with fewer steps."""
    match = re.fullmatch(r"([1-9]\d*):([1-9]\d*)", steps)
    if not match or int(match[1]) > int(match[2]):
        raise UserError(f"--profile={steps}: give the first and the last step of a trace, such as 100:110")
    first, last = int(match[1]), int(match[2])
    if last > total:
        raise UserError(f"--profile={steps}: the run has {total} steps; give two of them, such as 2:{total}")
    return first, last


class Trace(Writer):
    """Traces this host and its devices from one step to another, in `WORKDIR/tensorboard`.

    A trace begins when the previous step is computed: the host then works for a later one.
    """

    def __init__(self, workdir: epath.Path, first: int, last: int):
        self._to, self._first, self._last = workdir / "tensorboard", first, last
        self._folder: str | None = None
        self._done = False

    def advance(self, step: int) -> None:
        if self._folder is None and not self._done and self._first - 1 <= step < self._last:
            self._folder = tempfile.mkdtemp(prefix="scaling-trace-")
            jax.profiler.start_trace(self._folder)
        elif step >= self._last:
            self.close()

    def write(self, step: int, row: Metrics) -> None:
        self.advance(step)  # for a step with a row, `advance` is not called

    def close(self) -> None:
        """Ends the trace, if there is one, and moves it to its place."""
        if self._folder is None:
            return
        jax.profiler.stop_trace()
        for file in (path for path in sorted(Path(self._folder).rglob("*")) if path.is_file()):
            target = self._to / file.relative_to(self._folder).as_posix()
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
        shutil.rmtree(self._folder)
        print(f"trace of steps {self._first} to {self._last}: tensorboard --logdir={self._to}", flush=True)
        self._folder, self._done = None, True


def traced(watch: Watch, steps: str, total: int) -> Watch:
    """Adds a trace to the writers of a run of `total` steps; without `steps` returns `watch` unchanged."""
    if not steps:
        return watch
    first, last = parsed(steps, total)

    def both(*run):
        workdir, start = run[3:]
        writers = watch(*run)
        return [*writers, Trace(workdir, first, last)] if writers and start < last else writers

    return both
