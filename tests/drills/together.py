"""Kills of one process of several, late starts and a port in use: the others end in one sentence with the code that
asks for a new start, and the run that all processes take up again is the undisturbed one to the last bit.
"""

import dataclasses
import functools
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from scaling.core.errors import TemporaryError
from tests.commands import finish, free_port, start, train_command
from tests.drills.cases import DEFECT, FINE, MISSED, Outcome, Part, differing, random_of
from tests.drills.kills import SHORT, Results, trained

LOST, STOPPED = TemporaryError.exit_code, 143
TIMEOUT = 60  # seconds after which a process that is alone gives up
_KINDS = ("SIGKILL", "SIGKILL", "SIGTERM", "coordinator", "late", "port")

Ends = list[subprocess.CompletedProcess[str]]


@dataclasses.dataclass(frozen=True)
class Together:
    """Training in several processes.

    Attributes:
      processes, devices: numbers of processes, and of devices of each.
    """

    processes: int
    devices: int

    def run(self, cases: Iterable[int]) -> Iterator[Outcome]:
        """Disturbs the run in every case, in the way that the case says."""
        with tempfile.TemporaryDirectory(prefix="drills-together-") as made:
            for case in cases:
                yield self._case(case, Path(made) / str(case), *_undisturbed(self))

    def _case(self, case: int, folder: Path, duration: float, expected: Results) -> Outcome:
        rng = random_of(f"kills:{self.processes}_processes", case)
        kind = rng.choice(_KINDS)
        said, wrong = self._disturb(folder, kind, duration, rng)
        if not wrong:
            ends = self._finish(self._start(folder))
            wrong = next((f"then code {x.returncode}: {x.stderr[-300:]!r}" for x in ends if x.returncode), "")
        if not wrong:
            found = trained(folder)
            names = differing(expected, found)
            wrong = f"{len(names)} other results: {names[0]}" if names else ""
        shutil.rmtree(folder, ignore_errors=True)
        verdict = DEFECT if wrong else MISSED if said.endswith("too late") else FINE
        return Outcome(case, verdict, f"{said}: {wrong}" if wrong else said)

    def _disturb(self, folder: Path, kind: str, duration: float, rng: random.Random) -> tuple[str, str]:
        """What was done, and what was wrong with how the processes ended."""
        if kind == "port":
            with socket.create_server(("0.0.0.0", 0)) as other:
                ends = self._finish(self._start(folder, port=other.getsockname()[1]))
            return kind, _wrong(ends, {LOST})
        if kind == "late":
            which, delay = rng.randrange(self.processes), rng.uniform(1, TIMEOUT / 3)
            return f"{which} {delay:.1f} s late", _wrong(self._finish(self._start(folder, which, delay)), {0})
        which = 0 if kind == "coordinator" else rng.randrange(self.processes)
        how = signal.SIGTERM if kind == "SIGTERM" else signal.SIGKILL
        running, limit = self._start(folder), duration * rng.uniform(0.1, 1.0)
        time.sleep(limit)
        running[which].send_signal(how)
        ends = self._finish(running)
        said, hit = f"{how.name} to {which} at {limit:.2f} s", ends.pop(which)
        if hit.returncode == 0:
            return f"{said}, too late", _wrong(ends, {0})
        if how == signal.SIGTERM:
            return said, _wrong([hit, *ends], {-how, LOST, STOPPED})
        finished = (folder / "checkpoints" / str(SHORT["steps"])).exists()  # killed on its way out
        return said, _wrong([hit], {-how}) or _wrong(ends, {0, LOST} if finished else {LOST})

    def _start(
        self, folder: Path, late: int = -1, delay: float = 0.0, port: int | None = None
    ) -> list[subprocess.Popen[str]]:
        together = {"coordinator": f"localhost:{port or free_port()}", "processes": self.processes, "timeout": TIMEOUT}
        lines = [train_command(folder, SHORT, process=k, **together) for k in range(self.processes)]
        running = {k: start(line, self.devices) for k, line in enumerate(lines) if k != late}
        if late >= 0:
            time.sleep(delay)
            running[late] = start(lines[late], self.devices)
        return [running[k] for k in range(self.processes)]

    def _finish(self, running: list[subprocess.Popen[str]]) -> Ends:
        try:
            return [finish(process) for process in running]
        finally:
            for process in running:
                process.kill()

    def part(self) -> Part:
        about = f"training in {self.processes} processes: one killed, late, or without its port"
        return Part(f"kills:{self.processes}_processes", about, self.run, 20, 1, 1)


@functools.cache
def _undisturbed(job: Together) -> tuple[float, Results]:
    """Seconds and results of a run that is left alone, run once for all its cases."""
    with tempfile.TemporaryDirectory(prefix="drills-together-") as made:
        for name in ("first", "whole"):  # the first compiles what all others reuse
            began = time.monotonic()
            ends = job._finish(job._start(Path(made) / name))
        if any(done.returncode for done in ends):
            raise RuntimeError("\n".join(done.stderr[-1000:] for done in ends))
        return time.monotonic() - began, trained(Path(made) / "whole")


def _wrong(ends: Ends, allowed: set[int]) -> str:
    for done in ends:
        said = done.returncode != LOST or sum(line.startswith("error: ") for line in done.stderr.splitlines()) == 1
        if done.returncode not in allowed or not said or re.search("Traceback|stack trace", done.stderr):
            return f"code {done.returncode}: {done.stderr[-300:]!r}"
    return ""


PARTS = (Together(2, 2).part(), Together(4, 1).part())
