"""A training job on the workers of a slice: ships the code, starts it, queries it, and follows it to its end."""

import contextlib
import dataclasses
import os
import re
import shlex
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

from scaling.core.errors import UserError
from tpu.cloud import worker
from tpu.cloud.found import READY, Node
from tpu.cloud.gcloud import MUCH, end, reason, say
from tpu.cloud.limit import LATE, LimitedJob, States

PATIENCE = 10  # consecutive failures of gcloud while the slice exists: workers that have just booted refuse connections
_ENDING = 10.0  # seconds for the command that shows the log, once it is asked to end


@dataclasses.dataclass
class Job(LimitedJob):
    """A training job on a slice.

    Attributes:
      workdir: working directory of the run.
      replace_minutes: minutes after which machines that are unhealthy or do not respond are replaced; 0 for never.
      ended: whether it is known to run on none any more.
      created: creation time of the slice in seconds since 1970; 0 if unknown.
      seen: time at which the slice was last seen to exist, in seconds since 1970; 0 if never.
      broken: reason why the slice has to be replaced; empty if there is none.
      source: where the workers take code and environment from.
    """

    workdir: str = ""
    replace_minutes: float = 0.0
    ended: bool = False
    created: float = 0.0
    seen: float = 0.0
    broken: str = ""
    source: worker.Source = worker.SENT
    _unwell_since: float = 0.0

    def setup(self, archive: Path) -> None:
        """Replaces the code on all workers and makes its environment; the record of an earlier, ended job is
        removed.
        """
        self.attempt, self.ended = "", False  # how an earlier job ended says nothing of this one
        if not self.source.code:
            self._on_all(self.target.scp(archive, "scaling.tgz"))
        self._on_all(self.target.ssh(worker.setup(self.source)))

    def start(self, script: str) -> None:
        """Starts job.sh on all workers on which it is not running; does not replace another running job."""
        if not (self.started and self.attempt):  # else it is repeated on the workers that it has not reached
            self.attempt = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        self.started, self.ended = True, False
        self._on_all(self.target.ssh(worker.start(script, self.attempt, self.until)))
        self.told = True

    def _on_all(self, command: list[str]) -> None:
        self.gcloud.run(command, MUCH * self.target.batches)

    def survey(self) -> States:
        """The states of all workers, queried until every one responds; empty if the slice is lost or has to be
        replaced. A worker that does not respond is named after the second query.

        Raises:
          UserError: some workers do not respond although the slice is healthy and nothing is to be replaced; or none
            do; or there are more than expected.
          OverError: the limit was reached long ago, and the job has not ended.
        """
        began, attempt = time.monotonic(), 0
        while True:
            if not self.there():
                return {}
            states = self.states()
            if self.gcloud.dry:
                return {"0": "0"}
            if self._complete(states):
                return states
            if attempt == 1:
                say(f"{self.target.name}: {self._missing(states)}; asking again")
            long = time.monotonic() - began >= 60 * self.replace_minutes
            if states and self.replace_minutes and long:  # if none responds, the connection from here may be blocked
                self.broken = f"broken: {self._missing(states)}"
                return {}
            # Unwell machines are replaced after a while or, once well again, given time to answer.
            since, allowed = self._unwell_since, 60 * self.replace_minutes + LATE
            unwell = self.replace_minutes and since and time.monotonic() - since < allowed
            if attempt >= PATIENCE and not unwell and not (states and self.replace_minutes):
                raise UserError(
                    f"--name={self.target.name}: only {len(states)} of {self._hosts} workers answer: "
                    f"{self._missing(states)}; `run` again follows the job, and where that stays so `delete` and "
                    "`run` give a new slice"
                )
            began, attempt = (time.monotonic(), min(attempt + 1, 2)) if unwell else (began, attempt + 1)
            time.sleep(self.gcloud.poll)

    @property
    def _hosts(self) -> int:
        if self.target.accelerator is None:
            raise UserError(f"--name={self.target.name}: does not tell how many workers it has; give --accelerator")
        return self.target.accelerator.hosts

    def _complete(self, states: States) -> bool:
        """Whether every worker has responded. For what it raises see `survey`."""
        complete, running = len(states) == self._hosts, "running" in states.values()
        if running or not complete:
            self.check_over(running)
        if len(states) > self._hosts:
            assert self.target.accelerator is not None
            raise UserError(
                f"--accelerator={self.target.accelerator.name}: has {self._hosts} workers, but "
                f"{len(states)} answer; give the accelerator of the slice, and a --topology of that size"
            )
        return complete

    def _missing(self, states: States) -> str:
        absent = [str(k) for k in range(self._hosts) if str(k) not in states]
        if len(absent) == 1:
            return f"worker {absent[0]} does not answer"
        return f"workers {', '.join(absent[:8])} do not answer"

    def there(self) -> bool:
        """Whether the slice is still granted and its machines are healthy, or have been unhealthy only briefly."""
        if self.gcloud.state(self.target, patient=True) != READY:
            self._unwell_since = 0.0
            return False
        node = self.gcloud.node(self.target)
        if self.is_another(node):
            self._unwell_since = 0.0
            return False
        self.seen = time.time()
        if node.well:
            self._unwell_since = 0.0 if node.state else self._unwell_since  # gcloud may not have told
            return True
        now = time.monotonic()
        if not self._unwell_since:
            self._unwell_since = now
            say(f"the machines of {self.target.name} are {node}")
        if self.replace_minutes and now - self._unwell_since >= 60 * self.replace_minutes:
            self.broken, self._unwell_since = f"broken: its machines are {node}", 0.0
            return False
        return True

    def is_another(self, node: Node) -> bool:
        """Whether these are not the machines of the job: another `run` may have created the slice again."""
        return bool(node.created and self.created and node.created != self.created)

    def check_same(self, script: str) -> None:
        """Raises a UserError that names the differences between job.sh on worker 0 and the intended job."""
        show = self.target.ssh(worker.SHOW, "0")
        for attempt in range(PATIENCE):
            if attempt:
                time.sleep(self.gcloud.poll)
                if self.gcloud.state(self.target, patient=True) != READY:
                    return  # nothing to compare with
            code, out, error = self.gcloud.read(show)
            if code == worker.FAILED:
                raise UserError(f"--name={self.target.name}: {reason(code, error)}")
            if lines := re.findall(r"^job\.sh: (.*)$", out, re.MULTILINE):
                break
        else:
            raise UserError(
                f"--name={self.target.name}: worker 0 does not tell which job it runs; `run` again asks it again"
            )
        there, given = Counter(shlex.split("\n".join(lines))), Counter(shlex.split(script))
        if there != given:
            theirs, ours = (" ".join(words.elements()) or "less" for words in (there - given, given - there))
            raise UserError(
                f"--name={self.target.name}: runs another job, with {theirs}, here with {ours}; give the command that "
                "started it, at that commit, or `stop` it first"
            )

    def stop(self) -> None:
        """Sends SIGTERM to all workers and waits until they have saved."""
        self._on_all(self.target.ssh(worker.STOP))

    def outcome(self) -> int | None:
        """The exit code that worker 0 wrote to the bucket; None if it has not."""
        text = self.gcloud.file(f"{self.workdir}/logs/{self.attempt}/0.result") if self.attempt else ""
        return int(text) if text.strip().isdigit() else None

    def newest_checkpoint(self) -> int | None:
        """The step of the newest checkpoint; None if there is none, or it cannot be found out."""
        folder = f"{self.workdir}/checkpoints"
        if self.workdir.startswith("gs://"):
            names = self.gcloud.folder(folder)
        else:
            names = self.gcloud.read(self.target.ssh(f"ls {shlex.quote(folder)}", "0"))[1].split()
        return max((int(name) for name in names if name.isdigit()), default=None)

    def log(self, lines: str, which: str = "0") -> list[str]:
        """The command that shows the output of one worker until its job ends, starting at a line (+1) or at the
        last few.
        """
        wait = "for i in $(seq 150); do [ -f scaling/pid ] && break; sleep 0.2; done"
        return self.target.ssh(f'{wait}; tail -n {lines} --pid="$(cat scaling/pid)" -f scaling/log', which)

    def follow(self, lines: str) -> States:
        """Shows the output of worker 0 until the job has ended on all workers.

        Returns the states of the workers; empty if the slice was lost or has to be replaced.
        """
        shown = False
        while True:
            code = 0 if shown else self._show(lines)
            if code is None:
                self.ended = True
                return {}
            shown = code == 0  # else the connection was lost
            states = self.survey()
            if "running" not in states.values():
                self.ended = True
                self._show_worst(states)
                return states
            lines = "20"
            time.sleep(self.gcloud.poll)

    def _show(self, lines: str) -> int | None:
        """Shows the log until the job ends (0) or the connection does (not 0); None if the slice is lost or broken."""
        tail = self.gcloud.follow(self.log(lines))
        if tail is None:
            return 0
        try:
            while tail.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    tail.wait(self.gcloud.poll)
                if not self.there():
                    return None
                if not self.told:
                    self.keep_limit()
                if self.long_over():
                    return 1
            return tail.returncode
        finally:
            _end(tail)

    def _show_worst(self, states: States) -> None:
        """Shows the end of another worker's output, if that worker is the one that failed."""
        failed = [k for k, state in states.items() if state.isdigit() and int(state) not in (0, 75, 143)]
        if failed and "0" not in failed:
            say(f"worker {failed[0]} ended with {states[failed[0]]}; the end of its output:")
            say(self.gcloud.read(self.target.ssh("tail -n 40 scaling/log", failed[0]))[1].rstrip("\n"))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and the ssh it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_ENDING)
            return
        end(process)
