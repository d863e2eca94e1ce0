"""A slice that is paid for: its hours, which a limit counts, and its deletion at the end of its run."""

import contextlib
import dataclasses
import shlex
import time

from scaling.core.errors import UserError
from tpu.cloud.capacity import Capacity
from tpu.cloud.found import MISSING, PREEMPTED, READY, WAITING
from tpu.cloud.gcloud import say
from tpu.cloud.job import Job
from tpu.cloud.limit import States
from tpu.cloud.policy import SAVED, OverError, Policy
from tpu.cloud.slices import SliceRequest
from tpu.cloud.spent import Spent

GOING = (MISSING, "DELETING")
DELETIONS = 3  # tries to delete a slice
ASLEEP = 600.0  # seconds without a look at the slice after which this machine must have slept


@dataclasses.dataclass
class PaidSlice:
    """The slice of a job, the places for it, and the limits of its run."""

    job: Job
    capacity: Capacity
    policy: Policy
    _created: float = 0.0  # creation time of the current slice, seconds since 1970
    _requested: bool = False  # whether this process requested it
    _over: bool = False  # whether the job ended at its limit

    def __post_init__(self) -> None:
        self._spent = Spent(self.job.gcloud, self.job.workdir)
        self._before = self.policy.spent

    def _recall(self) -> None:
        """Counts the hours of the slices of earlier `run`s."""
        job = self.job
        if job.gcloud.dry:
            return
        found = job.gcloud.look(job.target, patient=True)
        created = 0.0 if found.state in (MISSING, *WAITING) else job.gcloud.node(job.target, patient=True).created
        living, lost = (created, 0.0) if found.state == READY else (0.0, created)
        self._spent.read()
        self._spent.settle(living, lost, float(found.about.get("spent", 0) or 0))
        self._count(living)

    def _count(self, living: float = 0.0) -> None:
        """Counts all slices of the run but the living one, also those that another `run` has had meanwhile."""
        self.policy.spent = self._before + self._spent.total(but=living)

    def _gone(self) -> None:
        """Counts a slice that is there no more."""
        seen = max(self.job.seen, self._created)
        try:
            if time.time() - seen > ASLEEP:
                self._spent.lost(self._created, seen)
            else:
                self._spent.lasted(self._created, time.time())
        except UserError:  # the bucket does not tell: it may have existed until now
            self._spent.lasted(self._created, time.time())
        self._created = 0.0
        self._count()

    def _granted(self) -> None:
        """Counts a slice that is there now, and gives the job its limit.

        Raises:
          OverError: it is reached, and no job is running.
        """
        job = self.job
        created = 0.0 if job.gcloud.dry else job.gcloud.node(job.target, patient=True).created
        self._spent.lasts(created)
        if self._created and created and job.created not in (0.0, created):  # replaced while this machine slept
            job.seen = 0.0
            self._gone()
        if created and not self._created:
            with contextlib.suppress(UserError):  # the bucket does not tell of slices of another `run` that has ended
                self._spent.settle(created, 0.0, 0.0)
        self._count(created)
        if not self._created:
            self._requested = self.capacity.requested
        self.capacity.requested = False
        keeps = job.changed and created in (0.0, self._created) and (not job.until or job.until > time.time())
        job.created = created or (job.created if self._created else 0.0)
        self._created = created or self._created or time.time()
        if keeps:  # the limit that another `run` has given
            return
        job.until, job.told, job.changed = 0.0, False, False
        try:
            job.until = self.policy.until(self._created)
        except OverError:
            job.started = "running" in job.survey().values()
            if not job.started:
                raise
            job.until = time.time()  # worker 0 ends the job, which saves

    def _leave(self) -> None:
        """After an error: deletes the slice as after any end, if no job can be running there; else says that it
        stays.
        """
        job, name = self.job, self.job.target.name
        if job.gcloud.dry or job.gcloud.state(job.target, patient=True) != READY:
            return
        states = job.states()
        self._over = bool(self._created and job.until and time.time() > job.until + SAVED)
        if "running" in states.values():
            say(f"a job is still running on {name}")
        elif self._idle(states):
            self._delete(1)
        else:
            say(f"a job may be running on {name}: {stays(job.target)}")

    def _idle(self, states: States) -> bool:
        """Whether it is certain that no job is running on the slice: all workers say so; or this process requested it,
        or its time is over, and neither this one nor another `run` has started a job there.
        """
        job = self.job
        assert job.target.accelerator is not None
        if len(states) >= job.target.accelerator.hosts:
            return True
        try:
            ours = self._requested or self._over
            return ours and not job.started and not self._spent.starts(self._created)
        except UserError:
            return False

    def _delete(self, code: int) -> None:
        """Deletes the slice at the end of its job if the policy says so; prints what happens to it.

        Raises:
          UserError: it could not be deleted.
        """
        job, target = self.job, self.job.target
        if job.gcloud.dry:
            if self.policy.deletes(code, self._over):
                job.gcloud.run(target.delete())
            return
        state = job.gcloud.state(target, patient=True)
        going = state in GOING
        if going or job.is_another(job.gcloud.node(target, patient=True)):
            if not going:
                say(f"{target.name} is left to the `run` that has created it again")
            if self._created:
                self._gone()
            return
        if not self.policy.deletes(code, self._over):
            if state == PREEMPTED:
                say(f"{target.name} is {state}: nothing runs there, and {how_to_delete(target)} removes it")
            else:
                say(stays(target, job.until if job.ended else 0.0))
            return
        why = "its time is over" if self._over else f"--delete_when={self.policy.delete_when}"
        say(f"deleting {target.name} ({why})")
        self._remove()
        job.seen = time.time()
        if self._created:
            self._gone()

    def _remove(self) -> None:
        gcloud, target = self.job.gcloud, self.job.target
        for left in reversed(range(DELETIONS)):
            try:
                gcloud.run(target.delete())
                break
            except UserError:
                time.sleep(gcloud.poll)
                if gcloud.state(target, patient=True) in GOING:
                    break
                if not left:
                    say(f"it could not be deleted: {stays(target)}")
                    raise


def how_to_delete(target: SliceRequest) -> str:
    """The command that deletes a slice."""
    project = [f"--project={target.project}"] if target.project else []
    where = [f"--name={target.name}", f"--zone={target.zone}", *project]
    return f"`python -m tpu.launch delete {shlex.join(where)} --yes`"


def stays(target: SliceRequest, limit: float = 0.0) -> str:
    """A sentence on a slice that is not deleted; `limit`: when worker 0 deletes it, in seconds since 1970; or 0."""
    at = time.strftime("%Y-%m-%d %H:%M", time.gmtime(limit))
    sooner = f"its limit, {at} UTC, when worker 0 deletes it, or until " if limit else ""
    return f"{target.name} stays, and is paid for, until {sooner}{how_to_delete(target)}"
