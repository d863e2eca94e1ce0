"""The life of a run on preemptible slices: from the first request to the last deletion."""

import contextlib
import dataclasses
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from scaling.core.errors import UserError
from scaling.parallel.hosts import STOPPED
from tpu.cloud.capacity import Capacity
from tpu.cloud.found import MISSING, READY, WAITING
from tpu.cloud.gcloud import GcloudError, say
from tpu.cloud.job import PATIENCE, SAVED, Job, States
from tpu.cloud.keep import FOR_GOOD
from tpu.cloud.policy import EndedError, OverError, Policy
from tpu.cloud.slices import SliceRequest
from tpu.cloud.spent import Spent
from tpu.cloud.worker import FAILED

FINAL = FOR_GOOD[1:]  # wrong input, and a run that cannot continue: a restart ends the same way
RESTARTS = 3  # restarts without a newer checkpoint, on existing slices
REPLACED = 3  # slices replaced one after the other before the job could start
DELETIONS = 3  # tries to delete a slice
ASLEEP = 600.0  # seconds without a look at the slice after which this machine must have slept
ANSWERS = 3  # failures of a setup by itself, or without an end: they will not go away


@dataclasses.dataclass
class Run:
    """A job, the places for its slice, and its limits."""

    job: Job
    capacity: Capacity
    policy: Policy
    _created: float = 0.0  # creation time of the current slice, seconds since 1970
    _requested: bool = False  # whether this process requested it
    _over: bool = False  # whether the job ended at its limit

    def __post_init__(self) -> None:
        self._spent = Spent(self.job.gcloud, self.job.workdir)
        self._before = self.policy.spent

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
            return None
        job.until, job.told, job.changed = 0.0, False, False
        try:
            job.until = self.policy.until(self._created)
        except OverError:
            job.started = "running" in job.survey().values()
            if not job.started:
                raise
            job.until = time.time()  # worker 0 ends the job, which saves
        return None

    def _gone(self) -> None:
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
        if job.gcloud.state(target, patient=True) in (MISSING, "DELETING"):
            if self._created:
                self._gone()
            return
        if job.is_another(job.gcloud.node(target, patient=True)):
            say(f"{target.name} is left to the `run` that has created it again")
            if self._created:
                self._gone()
            return
        job.seen = time.time()
        if not self.policy.deletes(code, self._over):
            say(stays(target, job.until if job.ended else 0.0))
            return
        why = "its time is over" if self._over else f"--delete_when={self.policy.delete_when}"
        say(f"deleting {target.name} ({why})")
        for attempt in range(DELETIONS):
            try:
                job.gcloud.run(target.delete())
                break
            except UserError:
                time.sleep(job.gcloud.poll)
                if job.gcloud.state(target, patient=True) in (MISSING, "DELETING"):
                    break
                if attempt == DELETIONS - 1:
                    say(f"it could not be deleted: {stays(target)}")
                    raise
        job.seen = time.time()
        if self._created:
            self._gone()


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
