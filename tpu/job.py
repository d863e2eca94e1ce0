"""A training job on the workers of a slice: shipping the code, starting it, following it to its end.

On every worker `~/scaling` holds `code/` (one commit), `venv/`, `job.sh`, and what the job writes: `log`, `pid` and,
when it ends, `exit_code`. The job runs in tmux, so that it outlives the connection.
"""

import contextlib
import dataclasses
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from scaling.errors import UserError
from scaling.parallel.hosts import STOPPED
from tpu.gcloud import GONE, MISSING, READY, Gcloud, Slice

FINAL = (2, 3)  # wrong input, and a run that cannot go on: starting again ends the same way
RESTARTS = 3  # in a row, on a slice that is still there
PATIENCE = 10  # connections in a row that fail while the slice is there: workers that have just booted refuse some

_SETUP = (
    "set -e; mkdir -p scaling; rm -rf scaling/code; mkdir scaling/code; tar -xzf scaling.tgz -C scaling/code; "
    "bash scaling/code/tpu/setup.sh"
)
_RUNNING = "tmux has-session -t =scaling 2>/dev/null && [ ! -f exit_code ]"
_STATE = (
    "cd scaling 2>/dev/null && [ -f job.sh ] || { echo 'job: none'; exit; }; "
    f"if {_RUNNING}; then echo 'job: running'; "
    "elif [ -f stopped ]; then echo 'job: stopped'; "
    'else echo "job: $(cat exit_code 2>/dev/null || echo 137)"; fi'
)
_STOP = (
    f"cd scaling && {_RUNNING} || {{ echo 'no job is running here'; exit; }}; "
    'while [ ! -f pid ]; do sleep 0.2; done; touch stopped; kill -TERM "$(cat pid)"; '
    "while [ ! -f exit_code ]; do sleep 1; done; "
    'echo "ended with code $(cat exit_code)"'
)


def script(environment: dict[str, str], arguments: list[str]) -> str:
    """job.sh: runs `python ARGUMENTS` in the shipped code and keeps its output, process and exit code."""
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())
    return (
        f"cd ~/scaling/code\n{exports}"
        f"../venv/bin/python -u {shlex.join(arguments)} > ../log 2>&1 &\n"
        "echo $! > ../pid\nwait $!\necho $? > ../exit_code.new\nmv ../exit_code.new ../exit_code\n"
    )


@dataclasses.dataclass
class Job:
    """What runs on a slice."""

    target: Slice
    gcloud: Gcloud

    def setup(self, archive: Path) -> None:
        """Replaces the code on all workers and makes the environment that belongs to it."""
        self.gcloud.run(self.target.scp(archive, "scaling.tgz"))
        self.gcloud.run(self.target.ssh(_SETUP))

    def start(self, script: str) -> None:
        """Starts job.sh on all workers."""
        start = (
            "tmux kill-session -t =scaling 2>/dev/null; cd scaling && rm -f exit_code stopped log pid && "
            f"printf %s {shlex.quote(script)} > job.sh && tmux new-session -d -s scaling 'bash job.sh'"
        )
        self.gcloud.run(self.target.ssh(start))

    def states(self) -> list[str]:
        """One of `none`, `running`, `stopped` or an exit code for each worker that answers."""
        return re.findall(r"^job: (\w+)$", self.gcloud.read(self.target.ssh(_STATE))[1], re.MULTILINE)

    def stop(self) -> None:
        """Sends SIGTERM to all workers and waits until they have saved."""
        self.gcloud.run(self.target.ssh(_STOP))

    def log(self, lines: str, worker: str = "0") -> list[str]:
        """The command that shows the output of one worker until its job ends, from a line (+1) or the last few on."""
        wait = "while [ ! -f scaling/pid ]; do sleep 0.2; done"
        return self.target.ssh(f'{wait}; tail -n {lines} --pid="$(cat scaling/pid)" -f scaling/log', worker)

    def follow(self, lines: str) -> list[str]:
        """Shows the output of worker 0 until the job has ended everywhere.

        Returns the states of the workers; an empty list where the slice was taken away.
        """
        assert self.target.accelerator is not None
        silent, shown = 0, False
        while True:
            code = 0 if shown else self._show(lines)
            if code is None or self.gcloud.state(self.target, PATIENCE) != READY:
                return []
            shown = code == 0  # else the connection broke
            states = self.states()
            if self.gcloud.dry:
                return ["0"]
            complete = len(states) == self.target.accelerator.hosts
            if complete and "running" not in states:
                return states
            silent = 0 if complete else silent + 1
            if silent > PATIENCE:
                raise UserError(
                    f"only {len(states)} workers of {self.target.name} answer; `delete` and `create` it again"
                )
            lines = "20"
            time.sleep(self.gcloud.poll)

    def _show(self, lines: str) -> int | None:
        """Shows the log until the job ends (0) or the connection does (not 0); None where the slice was taken away."""
        tail = self.gcloud.follow(self.log(lines))
        if tail is None:
            return 0
        try:
            while tail.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    tail.wait(self.gcloud.poll)
                if self.gcloud.state(self.target, PATIENCE) != READY:
                    return None
            return tail.returncode
        finally:
            _end(tail)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and the ssh it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def bring_to_end(job: Job, archive: Path, script: str) -> int:
    """Runs a job until it ends with success, with a code that starting again cannot mend, or is stopped by the user.

    A slice that was preempted is deleted and created again; the job then goes on from its newest checkpoint.
    Returns the exit code of the job.
    """
    restarts, attached = 0, "running" in job.states()
    while True:
        state = job.gcloud.wait(job.target)
        if state == MISSING:
            raise UserError(f"{job.target.name} was deleted; `create` and `run` go on from the newest checkpoint")
        if state in GONE:
            print(f"{job.target.name} is {state}: creating it again", flush=True)
            _insist(job, lambda: job.gcloud.run(job.target.delete()))
            _insist(job, lambda: job.gcloud.run(job.target.create()))
            restarts, attached = 0, False
            continue
        if attached:
            print("the job is running already: following it", flush=True)
        elif not _begin(job, archive, script):
            continue
        states, attached = job.follow("20" if attached else "+1"), False
        if not states:
            continue
        code = _verdict(states)
        if code in (0, STOPPED):
            return code
        time.sleep(job.gcloud.poll)
        if job.gcloud.state(job.target, PATIENCE) != READY:
            continue  # being taken away is why it ended
        if code is not None:
            return code
        restarts += 1
        codes = ", ".join(states)
        if restarts > RESTARTS:
            raise UserError(f"the job ended {RESTARTS + 1} times in a row on a slice that is there, last with {codes}")
        print(f"the job ended with {codes}; starting it again ({restarts} of {RESTARTS})", flush=True)


def _verdict(states: list[str]) -> int | None:
    """The exit code of the whole job; None where it should start again."""
    if "stopped" in states:
        print("stopped by `stop` after saving; `run` goes on", flush=True)
        return STOPPED
    codes = {int(state) for state in states if state.isdigit()}
    if codes == {0}:
        return 0
    return next((code for code in FINAL if code in codes), None)


def _begin(job: Job, archive: Path, script: str) -> bool:
    """Sets the workers up and starts the job; False where the slice is taken away meanwhile."""

    def begin() -> None:
        job.setup(archive)
        job.start(script)

    return _insist(job, begin, while_ready=True)


def _insist(job: Job, action: Callable[[], None], while_ready: bool = False) -> bool:
    """Does something, again a few times where it fails; with `while_ready` no longer than the slice is there.

    Returns whether it was done.
    """
    for attempt in range(PATIENCE + 1):
        try:
            action()
            return True
        except UserError as e:
            if while_ready and job.gcloud.state(job.target, PATIENCE) != READY:
                return False
            if attempt == PATIENCE:
                raise
            print(f"{e}; trying again", flush=True)
            time.sleep(job.gcloud.poll)
    return False
