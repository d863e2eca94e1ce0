"""Commands in forks of a process that has imported them, which saves a case seconds: imports are half of a short run.

Each runs in a process of its own as `python -m scaling.NAME` does, with its exit code and its streams. `Fresh` imports
them first, as a user's does.
"""

import atexit
import contextlib
import ctypes
import dataclasses
import logging
import multiprocessing
import os
import re
import resource
import runpy
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest import mock

from tests.commands import ROOT, environment, finish, start
from tests.drills.phases import watch

_MODULES = ("train", "finetune", "slim", "sweep", "prepare", "prune", "convert", "search")


@dataclasses.dataclass(frozen=True)
class Done:
    """The end of a command.

    Attributes:
      code: exit code, below 0 for a signal.
      out, err: what it wrote to its streams.
      seconds: wall-clock time.
    """

    code: int
    out: str
    err: str
    seconds: float


class Running:
    """A command that runs.

    Args:
      line: the command, as of `tests.commands.command`.
      variables: further environment variables.
      bound: whether permissions bind it, also as root.
      largest: bytes of the largest file that it may write; 0 for no limit.
      phases: file in which its phases are noted (`tests.drills.phases`).
    """

    def __init__(
        self,
        line: list[str],
        variables: Mapping[str, str] | None = None,
        bound: bool = False,
        largest: int = 0,
        phases: Path | None = None,
    ):
        context = multiprocessing.get_context("forkserver")
        pipes = [context.Pipe(duplex=False) for _ in range(2)]
        ours, theirs = zip(*pipes, strict=True)
        self.began, self._said = time.monotonic(), [b"", b""]
        arguments = (line[2], line[3:], dict(variables or {}), bound, largest, phases, theirs)
        self.process: BaseProcess = context.Process(target=_run, args=arguments)
        self.process.start()
        for pipe in theirs:
            pipe.close()
        self._threads = [threading.Thread(target=self._read, args=pair, daemon=True) for pair in enumerate(ours)]
        for thread in self._threads:
            thread.start()

    def _read(self, number: int, pipe: Connection) -> None:
        while found := os.read(pipe.fileno(), 1 << 16):
            self._said[number] += found
        pipe.close()

    def alive(self) -> bool:
        return self.process.is_alive()

    def seconds(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self.began

    def end(self, timeout: float = 600.0) -> Done:
        """Waits for its end; one that does not come is that of a killed process, with code -9."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        for thread in self._threads:
            thread.join(10)
        out, err = (said.decode(errors="backslashreplace") for said in self._said)
        assert self.process.exitcode is not None
        return Done(self.process.exitcode, out, err, time.monotonic() - self.began)


class Fresh:
    """A command that runs and begins with its imports; for `phases` see `Running`."""

    def __init__(self, line: list[str], phases: Path | None = None):
        noting = ["tests.drills.phases", str(phases)] if phases else []
        self.began, self.process = time.monotonic(), start([*line[:2], *noting, *line[2:]])

    def alive(self) -> bool:
        return self.process.poll() is None

    def seconds(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self.began

    def end(self) -> Done:
        done = finish(self.process)
        return Done(done.returncode, done.stdout, done.stderr, time.monotonic() - self.began)


def finished(running: Running | Fresh) -> Done:
    """Waits for the end. Raises RuntimeError where the command fails."""
    done = running.end()
    if done.code:
        raise RuntimeError(f"code {done.code}: {done.err[-2000:]}")
    return done


@contextlib.contextmanager
def commands_imported() -> Iterator[None]:
    """A context in which `Running` can be used: the process to fork from has the variables of `tests.commands`."""
    multiprocessing.set_forkserver_preload([f"scaling.{name}" for name in _MODULES])
    with mock.patch.dict(os.environ, environment(), clear=True):
        yield


def _run(
    module: str,
    arguments: list[str],
    variables: Mapping[str, str],
    bound: bool,
    largest: int,
    phases: Path | None,
    streams: tuple[Connection, Connection],
) -> None:
    """The life of a command, in the forked process."""
    os.chdir(ROOT)
    for number, pipe in enumerate(streams, start=1):
        os.dup2(pipe.fileno(), number)
        pipe.close()
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    logging.root.handlers.clear()  # one of the streams before, which absl removes from a process of its own
    os.environ.update(variables)
    if largest:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    if bound and not os.getuid():
        _drop_override()
    if phases:
        watch(phases)
    sys.argv = [module, *arguments]
    sys.modules.pop(module, None)  # runpy warns of a module that is there already
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()


def _drop_override() -> None:
    """Gives up the capabilities by which permissions do not bind root: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""
    given = re.search(r"CapPrm:\s*(\w+)", Path("/proc/self/status").read_text())
    held = int(given[1], 16) & ~0b110 if given else 0
    version, words = 0x20080522, (ctypes.c_uint32 * 6)()
    for half in range(2):
        words[3 * half] = words[3 * half + 1] = held >> 32 * half & 0xFFFFFFFF  # effective, permitted
    if ctypes.CDLL(None, use_errno=True).capset((ctypes.c_uint32 * 2)(version, 0), words):
        raise OSError(ctypes.get_errno(), "capset")
