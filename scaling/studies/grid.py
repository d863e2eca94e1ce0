"""The grid runner: a study is a list of jobs with a name, a cost and `run() -> rows`, which it plans, resumes and
divides.

    grid = Grid(jobs, Journal("runs/curve"))      # see `scaling.studies.journal`; sweeps keep a folder for every run
    outcome = grid.run()

A finished job is never run again, and no two processes run the same one: each is claimed while it runs. If the process
ends for any reason, the rows of a job are kept whole or the job is run again. A failed job does not stop the others;
the caller decides whether it is retried.
"""

import contextlib
import dataclasses
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

import jax
from etils import epath

from scaling.core.errors import BusyError, TemporaryError, TrainingError, UserError, first_line
from scaling.core.files import disk_error, in_bucket
from scaling.core.rows import Row
from scaling.parallel import hosts
from scaling.parallel.claim import Claim

DONE, FAILED, STARTED, WAITING = "done", "failed", "started", "waiting"
_CLAIMS = ".claims"  # folder of the claims on single jobs
T = TypeVar("T")
J = TypeVar("J", bound="Job")


class Job(Protocol):
    """One part of a study.

    Attributes:
      name: unique in the study, and the same whenever it is resumed.
      cost: above 0, in any unit that the jobs of the study share, such as operations.
    """

    @property
    def name(self) -> str: ...

    @property
    def cost(self) -> float: ...

    def run(self) -> Sequence[Row]:
        """Runs the job, resuming from its own files if it keeps any.

        Raises:
          UserError: this job cannot be done, but others can.
          StudyError: no job can be done until something is changed.
          TemporaryError: no job can be done at the moment.
          StoppedError: a signal ended it before it was done.
        """
        ...


class StudyError(UserError):
    """An error that stops a study, such as an unreadable data set; the exit code is that of `error`."""

    def __init__(self, error: UserError):
        super().__init__(str(error))
        self.exit_code = error.exit_code


class StoppedError(Exception):
    """A signal has ended a job, whose state was saved; the same command resumes it. `code` is the exit code."""

    def __init__(self, code: int):
        super().__init__(code)
        self.code = code


class Ledger(Protocol):
    """Records the state of each job of a study.

    Attributes:
      folder: folder of the study, shared by all processes.
    """

    @property
    def folder(self) -> epath.Path: ...

    def refresh(self) -> None:
        """Reads what other processes have written since."""
        return

    def state(self, job: Job) -> str:
        """State of a job: DONE, FAILED, STARTED or WAITING."""
        ...

    def begin(self, job: Job) -> None:
        """Called before a job runs."""
        return

    def keep(self, job: Job, rows: Sequence[Row], seconds: float) -> None:
        """Stores the rows of a finished job, all of them before it returns, and its time."""
        ...

    def fail(self, job: Job, why: str) -> None:
        """Records that a job failed, with the reason in one line."""
        ...

    def times(self) -> list[tuple[float, float]]:
        """Cost and seconds of the finished jobs."""
        ...


@dataclasses.dataclass
class Outcome:
    """Result of a call of `run`: failed jobs with the reason, and jobs that other processes are running."""

    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    busy: list[str] = dataclasses.field(default_factory=list)

    def check(self, jobs: str, done: str) -> None:
        """Raises a UserError if some jobs failed, and a BusyError if other processes are running some; `jobs` and
        `done` are words for messages, such as cells and measured.
        """
        if failed := [f"{name}: {why}" for name, why in self.failed.items()]:
            raise UserError(f"{len(failed)} {jobs} could not be {done}, but all others were; the first: {failed[0]}")
        if self.busy:
            raise BusyError(
                f"{len(self.busy)} {jobs} are being {done} by other processes, first {self.busy[0]}; start again "
                "when they have ended"
            )


def part(jobs: Sequence[T], task: int, tasks: int) -> list[T]:
    """Every `tasks`-th job, from `task` on: neighbours, which have similar costs, go to different machines.

    Raises:
      UserError: `task` is not below `tasks`.
    """
    if not 0 <= task < tasks:
        raise UserError(f"--task={task}: must be from 0 to {tasks - 1}, with --tasks={tasks}")
    return list(jobs[task::tasks])


class Grid(Generic[J]):
    """Runs the jobs of a study, or a part of them, and records their states.

    Args:
      jobs: jobs in the order in which they are run.
      ledger: ledger of the study.
      retry: whether failed jobs are run again.

    Raises:
      UserError: two jobs have one name.
    """

    def __init__(self, jobs: Iterable[J], ledger: Ledger, retry: bool = True):
        self.jobs, self._ledger = list(jobs), ledger
        self._ended = (DONE,) if retry else (DONE, FAILED)
        names = [job.name for job in self.jobs]
        if twice := next((name for name in names if names.count(name) > 1), ""):
            raise UserError(f"{twice!r} names two jobs of one study")

    def states(self) -> dict[str, str]:
        """Current state of every job, by name."""
        self._ledger.refresh()
        return {job.name: self._ledger.state(job) for job in self.jobs}

    def todo(self) -> list[J]:
        """The jobs still to be run."""
        states = self.states()
        return [job for job in self.jobs if states[job.name] not in self._ended]

    def outlook(self, jobs: Iterable[Job], done: str) -> str:
        """Expected time for jobs, in words, at the pace of the finished ones; empty if there are none."""
        seconds, times = self.seconds(jobs), self._ledger.times()
        return f"{seconds / 60:,.1f} minutes, as fast as the {len(times):,} that were {done}" if seconds else ""

    def seconds(self, jobs: Iterable[Job]) -> float | None:
        """Expected seconds for jobs, at the pace of the finished ones; None if there are none."""
        cost, took = (sum(column) for column in zip((0.0, 0.0), *self._ledger.times(), strict=True))
        return sum(job.cost for job in jobs) * took / cost if cost else None

    def run(
        self, begins: Callable[[J, int, int], None] | None = None, ended: Callable[[float | None], None] | None = None
    ) -> Outcome:
        """Runs the remaining jobs, one after the other.

        Args:
          begins: called before each with the job, the number of jobs before it, and the number of all.
          ended: called after each with the expected seconds for the rest, see `seconds`.

        Raises:
          StudyError: see `Job.run`.
          TemporaryError: see `Job.run`.
          StoppedError: see `Job.run`.
          BusyError: another process runs a job that several processes should run together.
        """
        outcome, todo = Outcome(), self.todo()
        for i, job in enumerate(todo):
            if begins:
                begins(job, i, len(todo))
            try:
                if why := self._run(job):
                    outcome.failed[job.name] = why
            except BusyError:
                if jax.distributed.is_initialized():  # the others have begun it
                    raise
                outcome.busy.append(job.name)
            if ended:
                ended(self.seconds(todo[i + 1 :]))
        if not in_bucket(self._ledger.folder):
            with contextlib.suppress(OSError):  # others still claim some
                os.rmdir(self._ledger.folder / _CLAIMS)
        return outcome

    def _run(self, job: Job) -> str:
        """Runs a job unless another process has done so in the meantime. Returns the reason if it failed."""
        name = hashlib.sha256(job.name.encode()).hexdigest()[:16]
        with Claim(self._ledger.folder / _CLAIMS, name) as claim:
            if not jax.distributed.is_initialized():  # several must do the same
                self._ledger.refresh()
                if self._ledger.state(job) in self._ended:
                    return ""
            self._ledger.begin(job)
            began = time.perf_counter()
            try:
                rows = job.run()
            except (StudyError, TemporaryError, BusyError):
                raise
            except (UserError, jax.errors.JaxRuntimeError) as e:  # an error of the job, or not enough memory
                if disk_error(e):  # a full disk is not the job's: the others would fail too, and this one can resume
                    raise
                hosts.await_loss(e)
                why = first_line(e)
                with _ours(claim):
                    self._ledger.fail(job, why)
                return why
            with _ours(claim):
                self._ledger.keep(job, rows, time.perf_counter() - began)
        return ""


@contextlib.contextmanager
def _ours(claim: Claim) -> Iterator[None]:
    """Raises BusyError if another process has taken the job over."""
    try:
        claim.check()
    except TrainingError as e:
        raise BusyError(str(e)) from e
    yield
