"""The rows of all jobs in one file, and beside it a file with the state of each job."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

from etils import epath

from scaling.core.errors import BusyError, UserError
from scaling.core.files import GrowingFile, read_json_lines
from scaling.core.rows import Results, Row, read_rows, write_rows
from scaling.parallel.claim import Claim
from scaling.studies.grid import DONE, FAILED, WAITING, Job, Ledger

_ROWS, _JOBS, _TASKS = "rows.jsonl", "jobs.jsonl", "tasks"
Complete = Callable[[Job, Callable[[Row], bool]], bool]


class Journal(Ledger):
    """A folder with `rows.jsonl` and `jobs.jsonl`, which has one line per job: its cost, its seconds and the number of
    rows after it, or the reason why it failed.

    Each of several tasks writes its own pair of files, in `tasks/K-of-N`, reads those of the others, and adds its rows
    to those of the folder when it ends. One process at a time writes to each. Reading does not require `open`:

        with Journal("runs/curve").open() as journal:
            Grid(jobs, journal).run()

    Args:
      folder: folder of the study, local or in a bucket.
      task, tasks: index of this process, and number of processes.
      complete: whether a job is done, given a function that tells whether a row exists; by default `jobs.jsonl`
        decides.

    Raises:
      UserError: a file of another form.
    """

    def __init__(self, folder: epath.PathLike, task: int = 0, tasks: int = 1, complete: Complete | None = None):
        self._folder, self._complete = epath.Path(folder), complete
        self._own = self._folder / _TASKS / f"{task + 1}-of-{tasks}" if tasks > 1 else self._folder
        self._results: Results | None = None
        self._parts: dict[str, _Part] = {}
        self._rows: dict[tuple[Any, ...], Row] = {}
        self._jobs: dict[str, dict[str, Any]] = {}
        self.refresh()

    @property
    def folder(self) -> epath.Path:
        return self._folder

    @property
    def rows(self) -> list[Row]:
        """Rows of all finished jobs, whichever process ran them."""
        return list(self._rows.values())

    @contextlib.contextmanager
    def open(self) -> Iterator[Self]:
        """Opens its files for writing.

        Raises:
          BusyError: another process writes to them.
        """
        try:
            with Claim(self._own):
                self._results = Results(self._own / _ROWS)
                self._entries = _valid(self._own / _JOBS, self._results.rows)
                self._log = GrowingFile(self._own / _JOBS, self._entries)
                self.refresh()
                yield self
        finally:
            if self._results is not None:
                self._results = None
                self._merge()

    def refresh(self) -> None:
        tasks = self._folder / _TASKS
        others = sorted(tasks.iterdir()) if tasks.exists() else []
        parts = {str(folder): self._part(folder) for folder in dict.fromkeys((self._folder, *others, self._own))}
        if [part.stamp for part in parts.values()] == [part.stamp for part in self._parts.values()]:
            return
        self._parts, self._rows = parts, {}
        for part in parts.values():
            for row in part.rows:
                self._rows.setdefault(row.identity, row)
        entries = [entry for part in parts.values() for entry in part.entries]
        entries.sort(
            key=lambda entry: "failed" not in entry
        )  # a finished job counts as done even if another process failed at it before
        self._jobs = {entry["job"]: entry for entry in entries}

    def _part(self, folder: epath.Path) -> "_Part":
        """A part in its current state; it is read again if its files have changed."""
        if self._results is not None and folder == self._own:  # no other process writes to it
            return _Part((len(self._entries), len(self._results.rows)), self._results.rows, self._entries)
        stamp = (_stamp(folder / _ROWS), _stamp(folder / _JOBS))
        known = self._parts.get(str(folder))
        if known is not None and known.stamp == stamp:
            return known
        rows = read_rows(folder / _ROWS) if stamp[0] else []
        return _Part(stamp, rows, _valid(folder / _JOBS, rows))

    def state(self, job: Job) -> str:
        if self._complete is not None:
            return DONE if self._complete(job, lambda row: row.identity in self._rows) else WAITING
        entry = self._jobs.get(job.name)
        return WAITING if entry is None else FAILED if "failed" in entry else DONE

    def keep(self, job: Job, rows: Sequence[Row], seconds: float) -> None:
        self._opened().add(rows)
        for row in rows:
            self._rows.setdefault(row.identity, row)
        self._note(job, seconds=round(seconds, 3), upto=len(self._opened().rows))

    def fail(self, job: Job, why: str) -> None:
        self._opened()
        self._note(job, failed=why)

    def _opened(self) -> Results:
        assert self._results is not None, "open() comes first"
        return self._results

    def _note(self, job: Job, **fields: Any) -> None:
        entry = {"job": job.name, "cost": job.cost, **fields}
        self._log.add([entry])
        self._entries.append(entry)
        self._jobs[job.name] = entry
        self._parts[str(self._own)] = self._part(self._own)  # its content is already known

    def times(self) -> list[tuple[float, float]]:
        return [(entry["cost"], entry["seconds"]) for entry in self._jobs.values() if "seconds" in entry]

    def _merge(self) -> None:
        """Adds the tasks' rows to the file of the folder."""
        self.refresh()
        while self.rows != self._parts[str(self._folder)].rows:
            try:
                with Claim(self._folder):
                    self.refresh()
                    write_rows(self._folder / _ROWS, self.rows)
            except BusyError:
                return  # the process that is writing there looks again afterwards
            self.refresh()


@dataclasses.dataclass(frozen=True)
class _Part:
    """The files written by one process, and a stamp of the state in which they were read."""

    stamp: tuple[Any, ...]
    rows: list[Row]
    entries: list[dict[str, Any]]


def _stamp(file: epath.Path) -> tuple[Any, ...]:
    """A stamp that changes with a file; () if the file does not exist."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return ()
    return found.length, found.mtime


def _valid(file: epath.Path, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The entries of a file of jobs; a job whose rows were cut short or removed is not done."""

    def checked(entry: Any) -> dict[str, Any]:
        if not isinstance(entry, dict) or not isinstance(entry.get("job"), str):
            raise TypeError("names no job")
        return entry

    def wrong(number: int, error: Exception) -> None:
        raise UserError(f"{file}, line {number}, is not the outcome of a job: {error}") from error

    entries = read_json_lines(file, checked, wrong) if file.exists() else []
    return [entry for entry in entries if entry.get("upto", 0) <= len(rows)]
