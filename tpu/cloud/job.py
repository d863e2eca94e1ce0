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
from collections import Counter
from pathlib import Path

from scaling.core.errors import UserError
from scaling.parallel.hosts import STOPPED
from tpu.cloud.gcloud import FAILED, LEAVING, MISSING, PREEMPTED, READY, Gcloud, SliceRequest

FINAL = (2, 3)  # wrong input, and a run that cannot go on: starting again ends the same way
RESTARTS = 3  # in a row, on a slice that is still there
LONG = 1800  # seconds; a job that ran for so long has worked: its end begins the row anew
PATIENCE = 10  # failures of gcloud in a row while the slice is there: workers that have just booted refuse connections

_RUNNING = "tmux has-session -t =scaling 2>/dev/null && [ ! -f exit_code ]"
_ALONE = "mkdir -p scaling && cd scaling && exec 9>lock && flock 9"  # two `run`s may follow one slice
_SETUP = (
    f"set -e; {_ALONE}; if {_RUNNING}; then echo 'a job is running here' >&2; exit 1; fi; "
    "rm -rf code; mkdir code; tar -xzf ../scaling.tgz -C code; bash code/tpu/setup.sh; "
    "rm -f job.sh"  # a start that then reaches only some workers leaves others without a job, not with the end of one
)
_STATE = (
    "cd scaling 2>/dev/null && [ -f job.sh ] || { echo 'job: none'; exit; }; "
    f"if {_RUNNING}; then echo 'job: running'; "
    'else echo "job: $(cat exit_code 2>/dev/null || echo 137)$([ -f stopped ] && echo _stopped)"; fi'
)
_STOP = (
    f"cd scaling && {_RUNNING} || {{ echo 'no job is running here'; exit; }}; "
    'while [ ! -f pid ]; do sleep 0.2; done; touch stopped; kill -TERM "$(cat pid)"; '
    "while [ ! -f exit_code ]; do sleep 1; done; "
    'echo "ended with code $(cat exit_code)"'
)


def script(commit: str, environment: dict[str, str], arguments: list[str]) -> str:
    """job.sh: runs `python ARGUMENTS` in the shipped code and keeps its output, process and exit code."""
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())
    return (
        f"# commit={commit}\ncd ~/scaling/code\n{exports}"
        f"../venv/bin/python -u {shlex.join(arguments)} > ../log 2>&1 &\n"
        "echo $! > ../pid\nwait $!\necho $? > ../exit_code.new\nmv ../exit_code.new ../exit_code\n"
    )


@dataclasses.dataclass
class Job:
    """What runs on a slice.

    Attributes:
      started: whether it is known to run, on some of the workers at least.
    """

    target: SliceRequest
    gcloud: Gcloud
    started: bool = False

    def setup(self, archive: Path) -> None:
        """Replaces the code on all workers and makes its environment; a job that ended there is forgotten."""
        self.gcloud.run(self.target.scp(archive, "scaling.tgz"))
        self.gcloud.run(self.target.ssh(_SETUP))

    def start(self, script: str) -> None:
        """Starts job.sh on all workers, but not where it is running; replaces no other one that is running."""
        write = f"printf %s {shlex.quote(script)}"
        start = (
            f"{_ALONE} || exit 1; if {_RUNNING}; then {write} | cmp -s - job.sh && exit; "
            "echo 'another job is running here' >&2; exit 1; fi; "
            "tmux kill-session -t =scaling 2>/dev/null; rm -f exit_code stopped log pid && "
            f"{write} > job.sh && tmux new-session -d -s scaling 'bash job.sh' 9>&-"
        )
        self.started = True
        self.gcloud.run(self.target.ssh(start))

    def states(self, worker: str = "all") -> list[str]:
        """`none`, `running` or an exit code for each worker that answers; `143_stopped` for one that `stop` ended."""
        return re.findall(r"^job: (\w+)$", self.gcloud.read(self.target.ssh(_STATE, worker))[1], re.MULTILINE)

    def survey(self) -> list[str]:
        """The states of all workers, asked for until every one answers; an empty list where the slice is taken away.

        Raises:
          UserError: some do not answer though the slice is there.
        """
        for attempt in range(PATIENCE + 1):
            if attempt:
                time.sleep(self.gcloud.poll)
            if self.gcloud.state(self.target, patient=True) != READY:
                return []
            states = self.states()
            if self.gcloud.dry:
                return ["0"]
            if self.target.accelerator is None:
                raise UserError(f"{self.target.name} does not tell how many workers it has; give --accelerator")
            if len(states) == self.target.accelerator.hosts:
                return states
        assert self.target.accelerator is not None
        raise UserError(
            f"only {len(states)} of {self.target.accelerator.hosts} workers of {self.target.name} answer; `run` again "
            "follows the job, and where that stays so `delete` and `create` give a new slice"
        )

    def check_same(self, script: str) -> None:
        """Raises a UserError naming what differs between job.sh on worker 0 and the job that should run."""
        show = self.target.ssh("sed 's/^/job.sh: /' scaling/job.sh", "0")
        for attempt in range(PATIENCE):
            if attempt:
                time.sleep(self.gcloud.poll)
                if self.gcloud.state(self.target, patient=True) != READY:
                    return  # there is nothing to differ from
            lines = re.findall(r"^job\.sh: (.*)$", self.gcloud.read(show)[1], re.MULTILINE)
            if lines:
                break
        else:
            raise UserError(
                f"worker 0 of {self.target.name} does not tell which job it runs; `run` again asks it again"
            )
        there, given = Counter(shlex.split("\n".join(lines))), Counter(shlex.split(script))
        if there != given:
            theirs, ours = (" ".join(words.elements()) or "less" for words in (there - given, given - there))
            raise UserError(
                f"{self.target.name} runs another job, with {theirs}, here with {ours}; give the command that "
                "started it, at that commit, or `stop` it first"
            )

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
        shown = False
        while True:
            code = 0 if shown else self._show(lines)
            if code is None:
                return []
            shown = code == 0  # else the connection broke
            states = self.survey()
            if "running" not in states:
                return states
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
                if self.gcloud.state(self.target, patient=True) != READY:
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
    restarts = 0
    while True:
        job.started = False
        if _regain(job):
            restarts = 0
        if (lines := _join(job, archive, script)) is None:
            continue
        began = time.monotonic()
        if not (states := job.follow(lines)):
            continue
        code, final = _verdict(states)
        if final and code in (0, STOPPED):
            return code
        time.sleep(job.gcloud.poll)
        if job.gcloud.state(job.target, patient=True) != READY and not _stopped(states):
            continue  # being taken away is why it ended
        if final:
            return code
        restarts = 1 if time.monotonic() - began > LONG else restarts + 1
        codes = ", ".join(states)
        if restarts > RESTARTS:
            raise UserError(f"the job ended {RESTARTS + 1} times in a row on a slice that is there, last with {codes}")
        print(f"the job ended with {codes}; starting it again ({restarts} of {RESTARTS})", flush=True)


def _stopped(states: list[str]) -> bool:
    return any(state.endswith("_stopped") for state in states)


def _verdict(states: list[str]) -> tuple[int, bool]:
    """The exit code of the whole job, and whether that is its end; else it should start again."""
    codes = {state.removesuffix("_stopped") for state in states}
    if codes == {"0"}:
        return 0, True
    others = sorted({int(code) for code in codes if code.isdigit()} - {0, STOPPED}, key=lambda c: (c not in FINAL, c))
    if not _stopped(states):
        return (others or [STOPPED])[0], bool(others) and others[0] in FINAL
    if others:
        print(f"stopped by `stop`, but it ended with {', '.join(states)}: see its output", flush=True)
        return others[0], True
    print("stopped by `stop` after saving; `run` goes on", flush=True)
    return STOPPED, True


def _regain(job: Job) -> bool:
    """Returns when the slice is granted; whether it had to be created again.

    Raises:
      UserError: the user deleted it, or the request failed.
    """
    again = False
    for attempt in range(3):
        if attempt:
            time.sleep(job.gcloud.poll)
        while (found := job.gcloud.wait(job.target)).state == PREEMPTED:
            _recreate(job)
            again = True
        if found.state != MISSING:  # else another `run` may be between deleting and creating it
            break
    if found.state == MISSING:
        raise UserError(f"{job.target.name} was deleted; `create` and `run` go on from the newest checkpoint")
    if found.state == FAILED:
        raise UserError(f"{job.target.name} is {found}; mend that, then `delete`, `create` and `run` go on")
    return again


def _recreate(job: Job) -> None:
    """Deletes a preempted slice and asks for it anew, trying again a few times.

    gcloud may report a failure of what it has done, and another `run` may do the same: each attempt looks first.
    """
    failures = 0
    while (state := job.gcloud.wait(job.target, LEAVING).state) in (PREEMPTED, MISSING):
        if state == PREEMPTED:
            print(f"{job.target.name} is {state}: creating it again", flush=True)
        try:
            job.gcloud.run(job.target.delete() if state == PREEMPTED else job.target.create())
            failures = 0
        except UserError as e:
            failures += 1
            if failures > PATIENCE:
                raise
            print(f"{e}; trying again", flush=True)
            time.sleep(job.gcloud.poll)


def _join(job: Job, archive: Path, script: str) -> str | None:
    """Sets the workers up and starts the job, trying again a few times, or finds it running.

    Returns the line of its output from which on to show it, None where the slice is taken away.

    Raises:
      UserError: another job is running.
    """
    begun = False
    for attempt in range(PATIENCE + 1):
        if not (states := job.survey()):
            return None
        if "running" in states and not (begun and set(states) != {"running"}):
            job.check_same(script)
            job.started = True
            print("the job is running already: following it", flush=True)
            if "none" not in states:
                return "20"
            begun = True  # whoever started it was cut off before all workers had it
        try:
            if not begun:
                job.setup(archive)
            begun = True  # from here on some workers may have it running
            job.start(script)
            return "+1"
        except UserError as e:
            if attempt == PATIENCE:
                raise
            print(f"{e}; trying again", flush=True)
            time.sleep(job.gcloud.poll)
    return None
