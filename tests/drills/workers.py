"""Runs a reader on hostile input in forked processes: limited in memory and time, watched for what it must not do.

A worker reads many inputs. One that ends it (a signal), stops it (a hang) or takes too much memory is a defect of this
input, and the next input is read by a new worker.
"""

import contextlib
import faulthandler
import gc
import json
import os
import resource
import select
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from scaling.core.errors import UserError
from scaling.data.images import CorruptImage
from tests.drills.cases import DEFECT, FINE, REFUSED, Outcome

MEMORY = 2 << 30  # bytes beyond those before the first input
SECONDS = 10.0  # for each input

# What a reader of a file has no reason to do, as events of `sys.addaudithook`.
_FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.", "pty.")
_FORBIDDEN += ("socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.bind")
_CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
_LETTERS = set("wax+")
_OUT_OF_MEMORY = ("unable to allocate", "memoryerror", "cannot allocate", "out of memory", "bad_alloc", "memory alloc")
# libtiff's words for a size beyond that of the file, which it declines to allocate
_DECLINED = "out of memory reading of"


class Watch:
    """Notes the first forbidden act of a process since `begin`."""

    def __init__(self, folder: Path):
        self._folder, self._on, self.seen = str(folder), False, ""
        sys.addaudithook(self._event)

    def begin(self) -> None:
        self._on, self.seen = True, ""

    def end(self) -> None:
        self._on = False

    def _event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._on or self.seen:
            return
        if event.startswith(_FORBIDDEN):
            self.seen = f"did {event} {arguments!r:.100}"
        elif event in _CHANGES and not str(arguments[0]).startswith(self._folder):
            self.seen = f"did {event} {arguments[0]!r}"
        elif event == "open" and isinstance(arguments[0], str | bytes) and _writes(arguments):
            path = os.fsdecode(arguments[0])
            if not path.startswith((self._folder, "/dev/null")):
                self.seen = f"wrote {path!r}"


def _writes(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = arguments
    if isinstance(mode, str):
        return bool(_LETTERS & set(mode))
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def judged(read: Callable[[Path, int], Any], warm: Callable[[Path], Any], cases: Iterable[int]) -> Iterator[Outcome]:
    """The outcome of each case, in order.

    Args:
      read: makes the input of a case in the folder given and reads it; returns normally, or raises UserError or
        CorruptImage. A returned text is a defect.
      warm: reads valid input in the folder, before memory is limited.
      cases: numbers of the cases.
    """
    left = list(cases)
    with tempfile.TemporaryDirectory(prefix="drills-", dir=_scratch()) as folder:
        while left:
            for outcome in _worker(read, warm, left, Path(folder)):
                assert outcome.case == left[0]
                left.pop(0)
                yield outcome


def _scratch() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _worker(read: Any, warm: Any, cases: list[int], folder: Path) -> Iterator[Outcome]:
    """Outcomes until the worker has read all or is gone."""
    receiving, sending = os.pipe()
    child = os.fork()
    if not child:
        os.close(receiving)
        _work(read, warm, cases, folder, sending)
    os.close(sending)
    waiting, text, first = list(cases), b"", True
    try:
        while waiting:
            ready, _, _ = select.select([receiving], [], [], 120 if first else SECONDS)
            found = os.read(receiving, 1 << 16) if ready else b""
            text += found
            *lines, text = text.split(b"\n")
            for line in lines:
                first = False
                if line != b"ready":
                    yield Outcome(**json.loads(line))
                    waiting.pop(0)
            if not ready:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                yield Outcome(waiting[0], DEFECT, f"took more than {SECONDS:g} s")
                return
            if not found:
                _, status = os.waitpid(child, 0)
                if first:
                    raise RuntimeError(f"the worker ended before its first input: {status}")
                how = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"status {status >> 8}"
                if waiting:
                    yield Outcome(waiting[0], DEFECT, f"ended the process: {how}")
                return
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)
    finally:
        os.close(receiving)


def _work(read: Any, warm: Any, cases: list[int], folder: Path, sending: int) -> None:
    """The life of a worker, in the forked process."""
    try:
        sys.dont_write_bytecode = True
        faulthandler.disable()  # pytest's
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        warm(folder)
        if not os.environ.get("DRILLS_LOUD"):
            os.dup2(quiet, 2)
        watch = Watch(folder)
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.write(sending, b"ready\n")
        for case in cases:
            watch.begin()
            outcome = _judge(read, folder, case)
            watch.end()
            if watch.seen:
                outcome = Outcome(case, DEFECT, watch.seen)
            os.write(sending, json.dumps(outcome.__dict__).encode() + b"\n")
    except BaseException as error:  # nothing may leave the fork
        if os.environ.get("DRILLS_LOUD"):
            sys.excepthook(type(error), error, error.__traceback__)
        os._exit(70)
    os._exit(0)


def _judge(read: Any, folder: Path, case: int) -> Outcome:
    try:
        wrong = read(folder, case)
    except (UserError, CorruptImage) as error:
        said = str(error)
        if any(word in said.lower().replace(_DECLINED, "") for word in _OUT_OF_MEMORY):
            return Outcome(case, DEFECT, f"takes more than {MEMORY >> 30} GiB: {said[:200]}")
        lines = said.strip().splitlines()
        if len(lines) != 1 and isinstance(error, UserError):
            return Outcome(case, DEFECT, f"a message of {len(lines)} lines: {said[:200]!r}")
        return Outcome(case, REFUSED, said[:200])
    except BaseException as error:
        if os.environ.get("DRILLS_LOUD"):
            sys.excepthook(type(error), error, error.__traceback__)
        return Outcome(case, DEFECT, f"{type(error).__name__}: {str(error)[:200]}")
    return Outcome(case, DEFECT, wrong) if isinstance(wrong, str) else Outcome(case, FINE)
