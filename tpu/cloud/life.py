"""The life of a run on preemptible slices: from the first request to the last deletion."""

import contextlib
import dataclasses
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from scaling.core.errors import UserError
from scaling.parallel.hosts import STOPPED
from tpu.cloud.found import MISSING, READY
from tpu.cloud.gcloud import GcloudError, say
from tpu.cloud.job import PATIENCE
from tpu.cloud.keep import FOR_GOOD
from tpu.cloud.limit import States
from tpu.cloud.paid import PaidSlice
from tpu.cloud.policy import EndedError, OverError
from tpu.cloud.slices import SliceRequest
from tpu.cloud.worker import FAILED

FINAL = FOR_GOOD[1:]  # wrong input, and a run that cannot continue: a restart ends the same way
RESTARTS = 3  # restarts without a newer checkpoint, on existing slices
REPLACED = 3  # slices replaced one after the other before the job could start
ANSWERS = 3  # failures of a setup by itself, or without an end: they will not go away


@dataclasses.dataclass
class Run(PaidSlice):
    """A job through all its slices."""

    def to_its_end(self, archive: Path, script: Callable[[SliceRequest], str], create: bool = False) -> int:
        """Runs the job until it succeeds, ends with a code that a restart cannot fix, or is stopped.

        A slice that was preempted or is unhealthy is deleted and created again; the job then resumes from its newest
        checkpoint. At the end the slice is deleted if the policy says so; also after an error before the job started.

        Args:
          archive, script: the shipped archive, and a function that makes job.sh for a slice.
          create: whether to request a slice if there is none.

        Returns:
          The exit code of the job.
        """
        try:
            self._recall()
            code = self._through(archive, script, create)
        except EndedError as e:
            self._over = isinstance(e, OverError)
            with contextlib.suppress(UserError):  # it has been printed, and the first error matters
                self._delete(1)
            raise
        except Exception:
            with contextlib.suppress(UserError):
                self._leave()
            raise
        self._delete(code)
        return code

    def _through(self, archive: Path, script: Callable[[SliceRequest], str], create: bool) -> int:
        job, restarts, newest, replaced = self.job, 0, None, 0
        while True:
            job.started = job.ended = False
            if (code := self._regain(create)) is not None:
                return code
            create = False
            lines = self._join(archive, script(job.target))
            states = {} if lines is None else job.follow(lines)
            if not states:
                replaced = replaced + 1 if job.broken and not job.started else 0
                if replaced > REPLACED:
                    raise UserError(
                        f"--name={job.target.name}: is {job.broken}, as were the {REPLACED} slices before it, and "
                        "no job could start; look whether --accelerator and --topology are of one size"
                    )
                continue
            code, final = verdict(states)
            self._over = ended_by(states, "_over")
            if final and code in (0, STOPPED):
                return code
            time.sleep(job.gcloud.poll)
            if job.gcloud.state(job.target, patient=True) != READY and not ended_by(states, "_stopped"):
                continue  # it ended because the slice was lost
            if final:
                return code
            said = ", ".join(f"worker {k}: {state}" for k, state in states.items())[:300]
            moved = job.newest_checkpoint()
            newer = moved is not None and (newest is None or moved > newest)
            restarts, newest = (1, moved) if newer else (restarts + 1, newest)
            if restarts > RESTARTS:
                raise EndedError(
                    f"the job ended {restarts} times on a slice that is there without a newer checkpoint than "
                    f"{'none' if newest is None else f'step {newest}'}, last with {said}"
                )
            say(f"the job ended with {said}; starting it again ({restarts} of {RESTARTS})")

    def _regain(self, create: bool) -> int | None:
        """Returns once the slice is granted; or the exit code of the job if both it and its slice have ended.

        Raises:
          UserError: the user deleted it, or the request failed.
          OverError: the limit is reached.
        """
        job = self.job
        lost = bool(job.broken) or job.gcloud.state(job.target, patient=True) != READY
        if self._created and lost:
            self._gone()
        note = {**dict(job.target.about), "spent": f"{self.policy.spent:.3f}"}
        job.target = dataclasses.replace(job.target, about=tuple(note.items()))
        if lost:
            if job.outcome() == 0:
                say(f"the job on {job.target.name} had ended with 0")
                return 0
            self.policy.until(time.time())
        found = self.capacity.granted(create)
        if found.state == MISSING:
            if (code := job.outcome()) is not None:
                say(f"worker 0 has ended {job.target.name}, as the job had ended with {code}")
                return code
            raise UserError(
                f"--name={job.target.name}: was deleted; `run` creates it and resumes from the newest checkpoint"
            )
        self._granted()
        return None

    def _join(self, archive: Path, script: str) -> str | None:
        """Sets up the workers and starts the job, with a few retries, or finds it running.

        Returns the line at which to start showing its output; None if the slice is lost.

        Raises:
          UserError: another job is running.
          OverError: the limit is reached.
        """
        job, begun, answers = self.job, False, 0
        for attempt in range(PATIENCE + 1):
            if not (states := job.survey()):
                return None
            there = set(states.values())
            if "running" in there and not (begun and there != {"running"}):
                job.check_same(script)
                job.in_time(states)
                job.started, job.ended = True, False
                say("the job is running already: following it")
                if "none" not in there:
                    job.keep_limit()
                    return "20"
                begun = True  # its start was interrupted before all workers had it
            try:
                if not begun:
                    job.setup(archive)
                    job.in_time()
                begun = True  # from here on it may be running on some workers
                job.start(script)
                return "+1"
            except GcloudError as e:
                answers += e.code in (FAILED, 124)
                if attempt == PATIENCE or answers == ANSWERS:
                    raise
                job.in_time()
                say(f"{e}; trying again")
                time.sleep(job.gcloud.poll)
        return None


@contextlib.contextmanager
def told_to_end() -> Iterator[None]:
    """Within it, SIGTERM and SIGHUP raise a KeyboardInterrupt with their number, unless they are ignored (`nohup`)."""

    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, how in before.items():
        if how != signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, how in before.items():
            signal.signal(number, how)


def ended_by(states: States, what: str) -> bool:
    """Whether the state of any worker ends with `_stopped` or `_over`."""
    return any(state.endswith(what) for state in states.values())


def verdict(states: States) -> tuple[int, bool]:
    """The exit code of the whole job, and whether it is final; otherwise the job should be restarted."""
    codes = {state.partition("_")[0] for state in states.values()}
    if codes == {"0"}:
        return 0, True
    others = sorted({int(code) for code in codes if code.isdigit()} - {0, STOPPED}, key=lambda c: (c not in FINAL, c))
    said = ", ".join(states.values())
    if ended_by(states, "_over"):
        say(f"the run has had the time that it was given: it ended with {said}")
        return (others or [STOPPED])[0], True
    if not ended_by(states, "_stopped"):
        return (others or [STOPPED])[0], bool(others) and others[0] in FINAL
    if others:
        say(f"stopped by `stop`, but it ended with {said}: see its output")
        return others[0], True
    say("stopped by `stop` after saving; `run` resumes")
    return STOPPED, True
