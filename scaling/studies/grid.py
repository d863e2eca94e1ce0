"""A study is a list of jobs with a name, a cost and `run() -> rows`; one runner plans, resumes and divides them.

    grid = Grid(jobs, Journal("runs/curve"))      # of `scaling.studies.journal`; sweeps keep a folder for every run
    outcome = grid.run()

A finished job is never run again, and no two processes run the same one: each is claimed while it runs. Whatever ends
the process, the rows of a job are kept whole or the job is run again. One that fails does not keep the others from
being run; whether it is tried again is for the caller to say.
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
from scaling.core.files import in_bucket
from scaling.core.rows import Row
from scaling.parallel import hosts
from scaling.parallel.claim import Claim

DONE, FAILED, STARTED, WAITING = "done", "failed", "started", "waiting"
_CLAIMS = ".claims"  # the folder of the claims on single jobs
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
        """Does it, from where it was left where it keeps something of its own.

        Raises:
          UserError: this job cannot be done; the others can.
          StudyError: none of them can be, as long as nobody changes something.
          TemporaryError: none of them can be now.
          StoppedError: a signal ended it before it was done.
        """
        ...


class StudyError(UserError):
    """What keeps a study from going on, such as a data set that cannot be read; it exits with the code of `error`."""

    def __init__(self, error: UserError):
        super().__init__(str(error))
        self.exit_code = error.exit_code


class StoppedError(Exception):
    """A signal has ended a job, which was saved and is resumed by the same command; `code` is the exit code."""

    def __init__(self, code: int):
        super().__init__(code)
        self.code = code


class Ledger(Protocol):
    """Keeps what became of each job of a study.

    Attributes:
      folder: of the study, which all processes share.
    """

    @property
    def folder(self) -> epath.Path: ...

    def refresh(self) -> None:
        """Looks at what other processes have written since."""
        return

    def state(self, job: Job) -> str:
        """One of DONE, FAILED, STARTED, WAITING."""
        ...

    def begin(self, job: Job) -> None:
        """Is told before a job runs."""
        return

    def keep(self, job: Job, rows: Sequence[Row], seconds: float) -> None:
        """Keeps the rows of a job that is done, all of them before it returns, and how long it took."""
        ...

    def fail(self, job: Job, why: str) -> None:
        """Keeps that a job failed, in one line why."""
        ...

    def times(self) -> list[tuple[float, float]]:
        """Cost and seconds of jobs that are done."""
        ...


@dataclasses.dataclass
class Outcome:
    """Of the jobs that one call was to run: those that failed, with the reason, and those that other processes run."""

    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    busy: list[str] = dataclasses.field(default_factory=list)

    def check(self, jobs: str, done: str) -> None:
        """Raises a UserError where some have failed, and a BusyError where others run some; `jobs` is what they are
        called, and `done` what happens to them: cells are measured.
        """
        if failed := [f"{name}: {why}" for name, why in self.failed.items()]:
            raise UserError(f"{len(failed)} {jobs} could not be {done}, the others were; first {failed[0]}")
        if self.busy:
            raise BusyError(
                f"{len(self.busy)} {jobs} are being {done} by other processes, first {self.busy[0]}; start again "
                "when they have ended"
            )


def part(jobs: Sequence[T], task: int, tasks: int) -> list[T]:
    """Every so many-th job: neighbours, which cost about the same, go to different machines.

    Raises:
      UserError: a task that is not one of them.
    """
    if not 0 <= task < tasks:
        raise UserError(f"--task={task} of --tasks={tasks}: they are counted from 0")
    return list(jobs[task::tasks])


class Grid(Generic[J]):
    """The jobs of a study, or a part of them, and what became of them.

    Args:
      jobs: in the order in which they are run.
      ledger: of the study.
      retry: whether jobs that have failed are run again.

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
        """Of every job by name, as they are now."""
        self._ledger.refresh()
        return {job.name: self._ledger.state(job) for job in self.jobs}

    def todo(self) -> list[J]:
        """The jobs that are left to run."""
        states = self.states()
        return [job for job in self.jobs if states[job.name] not in self._ended]

    def outlook(self, jobs: Iterable[Job], done: str) -> str:
        """How long jobs will take, in words: as fast as those that are `done`; empty before there is one."""
        seconds, times = self.seconds(jobs), self._ledger.times()
        return f"{seconds / 60:,.1f} minutes, as fast as the {len(times):,} that were {done}" if seconds else ""

    def seconds(self, jobs: Iterable[Job]) -> float | None:
        """How long jobs will take, as fast as those that are done; None before there is one."""
        cost, took = (sum(column) for column in zip((0.0, 0.0), *self._ledger.times(), strict=True))
        return sum(job.cost for job in jobs) * took / cost if cost else None

    def run(
        self, begins: Callable[[J, int, int], None] | None = None, ended: Callable[[float | None], None] | None = None
    ) -> Outcome:
        """Runs the jobs that are left, one after the other.

        Args:
          begins: is called before each, with the number that came before it and the number of all.
          ended: is called after each, with the seconds that the rest will take, see `seconds`.

        Raises:
          StudyError: as a job.
          TemporaryError: as a job.
          StoppedError: as a job.
          BusyError: another process runs a job that several processes were to run together.
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
        """Runs a job, unless another process has done so in the meantime. Returns why it failed."""
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
            except (UserError, jax.errors.JaxRuntimeError) as e:  # its own, or more memory than there is
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
    """Raises BusyError where another process has taken the job over."""
    try:
        claim.check()
    except TrainingError as e:
        raise BusyError(str(e)) from e
    yield
