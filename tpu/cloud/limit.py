"""The limit of a job, and what this `run` and worker 0 know of it: another `run` may have given the job another one."""

import dataclasses
import re
import time

from scaling.core.errors import UserError
from tpu.cloud import worker
from tpu.cloud.gcloud import Gcloud, reason, say
from tpu.cloud.policy import SAVED, OverError
from tpu.cloud.slices import SliceRequest

ANSWER = 45.0  # seconds for a batch of workers to report their state; one that does not is named at the next query
LATE = 300.0  # seconds after SAVED in which worker 0 has ended its job; past them nothing there keeps the limit

States = dict[str, str]


@dataclasses.dataclass
class LimitedJob:
    """A job on the workers of a slice, which worker 0 ends at its limit.

    Attributes:
      started: whether it is known to run on at least some workers.
      attempt: name of its newest start; empty if unknown.
      until: time in seconds since 1970 at which worker 0 ends it; 0 for no limit.
      told: whether worker 0 has that limit from this `run`.
      changed: whether that limit is one that another `run` has given since.
    """

    target: SliceRequest
    gcloud: Gcloud
    _: dataclasses.KW_ONLY
    started: bool = False
    attempt: str = ""
    until: float = 0.0
    told: bool = False
    changed: bool = False

    def states(self, which: str = "all") -> States:
        """State of each worker that responds, by its number: `none`, `running` or an exit code; `143_stopped` if `stop`
        ended it, `143_over` if its limit did.
        """
        limit = ANSWER * (self.target.batches if which == "all" else 1)
        out = self.gcloud.read(self.target.ssh(worker.STATE, which), limit)[1]
        found = re.findall(r"^job: (\S+) (\w+)(?: (\S+))?$", out, re.MULTILINE)
        self.attempt = next((attempt for *_, attempt in found if attempt), self.attempt)
        return dict(sorted(((number, state) for number, state, _ in found), key=lambda x: (len(x[0]), x[0])))

    def keep_limit(self) -> None:
        """Tells worker 0 the limit of a job that runs already, or that it has none any more. From one that is past, it
        has its time to save.
        """
        self.until = self.until and max(self.until, time.time())
        code, _, error = self.gcloud.ask(self.target.ssh(worker.limit(self.until), "0"), lambda code, *_: not code)
        if not code:
            self.told = True
            return
        say(f"worker 0 could not be told the limit, and keeps the one that it has: {reason(code, error)}")

    def in_time(self, states: States | None = None) -> None:
        """Checks the limit before the job has started; later, worker 0 ends the job.

        Args:
          states: of the workers; None to query them.

        Raises:
          OverError: it is reached, and no job is running.
          UserError: one is running, and worker 0 does not tell its limit.
        """
        if not self.until or self.started or time.time() <= self.until:
            return
        states = self.states() if states is None else states
        if "running" in states.values():  # another `run` has started it while this machine slept: it saves at its limit
            if self._takes_over() is None:
                raise UserError(
                    f"--name={self.target.name}: runs a job that another `run` has started, and does not tell its "
                    "limit; `run` again follows it"
                )
        elif states:  # without an answer nothing is certain
            raise OverError("the run has had its time before its job could start; --max_hours or --max_cost gives more")

    def long_over(self) -> bool:
        """Whether the limit was reached so long ago that a job must have saved and ended."""
        return bool(self.until) and time.time() > self.until + SAVED + LATE

    def check_over(self, running: bool) -> None:
        """Raises an OverError if that is so, by the limit that worker 0 has by now: another `run` may have given it
        one.
        """
        if not (running or self.started) or not self.long_over():
            return
        if running and not self.told:
            self.keep_limit()
        elif self._takes_over() is False:  # untold, it may be another: worker 0 keeps it
            raise OverError("the run has had its time, and its job has not ended; --max_hours or --max_cost gives more")

    def _takes_over(self) -> bool | None:
        """Takes over the limit that worker 0 has, if it is another. Whether it is; None if worker 0 does not tell."""
        limit = self._limit_there()
        if limit is None or limit == round(self.until):
            return None if limit is None else False
        self.until, self.changed, self.told = limit, True, True
        return True

    def _limit_there(self) -> float | None:
        """The limit of the job on worker 0; 0 if it has none that concerns this `run`; None if it does not tell."""
        ask = self.target.ssh(worker.LIMIT, "0")
        code, out, _ = self.gcloud.ask(ask, lambda code, *_: code in (0, worker.FAILED))
        told = re.findall(r"^limit: (\d+)$", out, re.MULTILINE)
        return 0.0 if code == worker.FAILED else float(told[0]) if told else None
