"""The life of a run on preemptible slices: from the first request to the last deletion."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

from scaling.core.errors import UserError
from scaling.parallel.hosts import STOPPED
from tpu.cloud.capacity import Capacity
from tpu.cloud.found import MISSING, READY
from tpu.cloud.job import PATIENCE, Job, States
from tpu.cloud.keep import FOR_GOOD
from tpu.cloud.slices import SliceRequest

FINAL = FOR_GOOD[1:]  # wrong input, and a run that cannot continue: a restart ends the same way
RESTARTS = 3  # restarts without a newer checkpoint, on existing slices


class EndedError(UserError):
    """The run has ended without success, and nothing more will be billed for it."""


@dataclasses.dataclass
class Policy:
    """Limits of a run, and the deletion of its slice.

    Attributes:
      delete_when: `done`, `end` or `never`; see `tpu.cloud.keep.grace`.
      max_hours: largest total lifetime of the run's slices in hours; 0 for no limit.
      spent: hours of the run's earlier slices.
    """

    delete_when: str = "never"
    max_hours: float = 0.0
    spent: float = 0.0

    def seconds_left(self, created: float) -> float:
        """Seconds until the limit of a slice created then; 0 if there is no limit.

        Raises:
          EndedError: none are left.
        """
        if not self.max_hours:
            return 0.0
        left = 3600 * (self.max_hours - self.spent) - (max(time.time() - created, 0.0) if created else 0.0)
        if left <= 0:
            raise EndedError(
                f"the run has had its {self.max_hours:.1f} hours; give more with --max_hours or --max_cost"
            )
        return left


@dataclasses.dataclass
class Run:
    """A job, the places for its slice, and its limits."""

    job: Job
    capacity: Capacity
    policy: Policy
    _created: float = 0.0  # creation time of the current slice, seconds since 1970

    def to_its_end(self, archive: Path, script: Callable[[SliceRequest], str], create: bool = False) -> int:
        """Runs the job until it succeeds, ends with a code that a restart cannot fix, or is stopped.

        A slice that was preempted or is unhealthy is deleted and created again; the job then resumes from its newest
        checkpoint. At the end the slice is deleted if the policy says so.

        Args:
          archive, script: the shipped archive, and a function that makes job.sh for a slice.
          create: whether to request a slice if there is none.

        Returns:
          The exit code of the job.
        """
        try:
            code = self._through(archive, script, create)
        except EndedError:
            self._delete(1)
            raise
        self._delete(code)
        return code

    def _through(self, archive: Path, script: Callable[[SliceRequest], str], create: bool) -> int:
        job, restarts, newest = self.job, 0, None
        while True:
            job.started = False
            if (code := self._regain(create)) is not None:
                return code
            create = False
            if (lines := self._join(archive, script(job.target))) is None:
                continue
            if not (states := job.follow(lines)):
                continue
            code, final = verdict(states)
            if final and code in (0, STOPPED):
                return code
            time.sleep(job.gcloud.poll)
            if job.gcloud.state(job.target, patient=True) != READY and not ended_by(states, "_stopped"):
                continue  # it ended because the slice was lost
            if final:
                return code
            said = ", ".join(f"worker {k}: {state}" for k, state in states.items())[:300]
            moved = job.newest_checkpoint()
            restarts, newest = (1 if moved != newest else restarts + 1), moved
            if restarts > RESTARTS:
                raise EndedError(
                    f"the job ended {restarts} times on a slice that is there without a newer checkpoint than "
                    f"{'none' if moved is None else f'step {moved}'}, last with {said}"
                )
            print(f"the job ended with {said}; starting it again ({restarts} of {RESTARTS})", flush=True)

    def _regain(self, create: bool) -> int | None:
        """Returns once the slice is granted; or the exit code of the job if both it and its slice have ended.

        Raises:
          UserError: the user deleted it, or the request failed.
        """
        job = self.job
        if self._created and job.gcloud.state(job.target, patient=True) != READY:
            self._gone()
        note = {**dict(job.target.about), "spent": f"{self.policy.spent:.3f}"}
        job.target = dataclasses.replace(job.target, about=tuple(note.items()))
        if self.policy.max_hours:
            self.policy.seconds_left(0.0)
        found = self.capacity.granted(create)
        if found.state == MISSING:
            if (code := job.outcome()) is not None:
                print(f"worker 0 has ended {job.target.name}, as the job had ended with {code}", flush=True)
                return code
            raise UserError(
                f"--name={job.target.name}: was deleted; `run` creates it and goes on from the newest checkpoint"
            )
        if not self._created and "spent" in found.about:
            self.policy.spent = float(found.about["spent"])
        self._created = job.gcloud.node(job.target).created or self._created or time.time()
        job.seconds = self.policy.seconds_left(self._created)
        return None

    def _gone(self) -> None:
        self.policy.spent += max(time.time() - self._created, 0.0) / 3600
        self._created = 0.0

    def _join(self, archive: Path, script: str) -> str | None:
        """Sets up the workers and starts the job, with a few retries, or finds it running.

        Returns the line at which to start showing its output; None if the slice is lost.

        Raises:
          UserError: another job is running.
        """
        job, begun = self.job, False
        for attempt in range(PATIENCE + 1):
            if not (states := job.survey()):
                return None
            there = set(states.values())
            if "running" in there and not (begun and there != {"running"}):
                job.check_same(script)
                job.started = True
                print("the job is running already: following it", flush=True)
                if "none" not in there:
                    return "20"
                begun = True  # its start was interrupted before all workers had it
            try:
                if not begun:
                    job.setup(archive)
                begun = True  # from here on it may be running on some workers
                job.start(script)
                return "+1"
            except UserError as e:
                if attempt == PATIENCE:
                    raise
                print(f"{e}; trying again", flush=True)
                time.sleep(job.gcloud.poll)
        return None

    def _delete(self, code: int) -> None:
        """Deletes the slice at the end of its job if the policy says so; prints what happens to it."""
        job, when = self.job, self.policy.delete_when
        name = job.target.name
        if when == "never" or (when == "done" and code):
            if not job.gcloud.dry:
                print(f"{name} stays, and is paid for, until `delete`", flush=True)
            return
        if job.gcloud.dry or job.gcloud.state(job.target, patient=True) not in (MISSING, "DELETING"):
            print(f"deleting {name} (--delete_when={when})", flush=True)
            job.gcloud.run(job.target.delete())


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
        print(f"the run has had the time that it was given: it ended with {said}", flush=True)
        return (others or [STOPPED])[0], True
    if not ended_by(states, "_stopped"):
        return (others or [STOPPED])[0], bool(others) and others[0] in FINAL
    if others:
        print(f"stopped by `stop`, but it ended with {said}: see its output", flush=True)
        return others[0], True
    print("stopped by `stop` after saving; `run` goes on", flush=True)
    return STOPPED, True
