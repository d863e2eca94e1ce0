"""Runs beside the training on every worker: copies its log to the bucket, ends it at its limit, and deletes the slice.

    python -m tpu.cloud.keep --worker=K [--logs=gs://BUCKET/runs/RUN/logs] [--delete='gcloud ...' --delete-when=end]

job.sh starts it. It reads and writes the files beside the code, see `tpu.cloud.worker`, and does not depend on the
machine that started the job: closing a laptop costs nothing.
"""

import argparse
import contextlib
import math
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from etils import epath

from tpu.cloud.policy import SAVED

EVERY = 30.0  # seconds between two uploads of a log
SOON, LATE = 300.0, 1800.0  # seconds until the slice is deleted, after a final end and after one that a person may fix
ENOUGH = 25.0  # seconds for the last uploads, each; job.sh waits for a minute
DELETING = 600  # seconds for a command that deletes the slice, before it is given again
FOR_GOOD = (0, 2, 3)  # done, wrong input, a run that cannot continue
WHEN = ("done", "end", "never")
UPLOAD = "upload"  # name of the thread that copies to the bucket


def grace(code: int, stopped: bool, over: bool, when: str) -> float | None:
    """Seconds between the end of a job and the deletion of its slice by worker 0; None if it stays, which is until its
    limit if there is one.

    Args:
      code: exit code of the job on worker 0.
      stopped: whether `stop` ended it.
      over: whether its limit ended it; the slice is then deleted whatever `when`.
      when: one of WHEN: only after success, after any end unless somebody restarts the job, never.
    """
    if over:
        return SOON
    if when == "never" or (when == "done" and code):
        return None
    return SOON if code in FOR_GOOD or stopped else LATE


class Keeper:
    """Attends one start of a job.

    Args:
      here: folder with `log`, `pid`, `attempt` and so on.
      worker: index of the worker.
      logs: folder for logs; empty for none.
      delete, when: command that deletes the slice, and the condition for it.
      every: seconds between two uploads.
    """

    def __init__(self, here: Path, worker: str, logs: str, delete: Sequence[str], when: str, every: float = EVERY):
        self._here, self._worker, self._delete, self._when, self._every = here, worker, delete, when, every
        self._folder = epath.Path(logs) / self._read("attempt") if logs else None
        self._size, self._said, self._limit, self._told = -1, "", 0.0, 0.0
        self._uploading = threading.Thread()

    def run(self, sleep: Callable[[float], None] = time.sleep) -> None:
        """Returns after the end of the job; on worker 0, if the slice is to be deleted, after that."""
        pid = int(self._read("pid"))
        kept = time.monotonic()
        while alive(pid):
            sleep(min(1.0, self._every))
            if self._worker == "0" and not self._told and self._rest() <= 0:
                self._tell(pid)
            if self._told and time.monotonic() - self._told >= SAVED:
                self._kill(pid)
                break  # not even this ends a process that waits for a device
            if time.monotonic() - kept >= self._every:
                self._upload(("log",))
                kept = time.monotonic()
        deadline = time.monotonic() + 10
        while not self._code() and time.monotonic() < deadline:
            sleep(0.1)
        code = int(self._code() or 137)
        if self._uploading.is_alive():
            self._uploading.join(ENOUGH)
        self._upload(("log", "result"), ENOUGH)
        self._mark("kept")
        if self._worker == "0" and self._delete and self._wait(code, sleep):
            # a command that hangs is ended, with what it started, and given again
            delete = ["timeout", "--kill-after=10", str(DELETING), *self._delete]
            while subprocess.run(delete, stdin=subprocess.DEVNULL).returncode:
                sleep(60)

    def _code(self) -> str:
        return self._read("result") or self._read("exit_code")

    def _rest(self) -> float:
        """Seconds until the limit, which `run` may change at any time; infinite if there is none."""
        self._limit = float(self._read("limit") or self._limit)  # it is empty for a moment while it is written
        return self._limit - time.time() if self._limit else math.inf

    def _tell(self, pid: int) -> None:
        """Asks the job to save and to end, on one host only: all hosts then do."""
        self._told = time.monotonic()
        self._mark("over")
        with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(pid, signal.SIGTERM)

    def _kill(self, pid: int) -> None:
        """Ends the job with what it started, but neither job.sh, which writes its exit code, nor this process."""
        session = int(self._read("session") or 0)
        started = members(session) if session else set()
        for each in {pid, *started} - {session, os.getpid()}:
            with contextlib.suppress(OSError):
                os.kill(each, signal.SIGKILL)
        with contextlib.suppress(OSError), (self._here / "log").open("a") as log:
            log.write(f"the job had not ended {SAVED:.0f} seconds after its limit, and was killed\n")

    def _wait(self, code: int, sleep: Callable[[float], None]) -> bool:
        """Waits after the end of the job until the slice is to be deleted, which its limit may bring forward; returns
        whether it is.
        """
        left = grace(code, (self._here / "stopped").exists(), bool(self._told), self._when)
        if left is not None:
            left = min(left, max(self._rest(), SOON))
            while left > 0:
                self._upload(("kept",))  # a sign of life: the hours of the slice count up to its last
                sleep(step := min(left, SOON))
                left -= step
            return True
        told = -math.inf
        while 0 < (rest := self._rest()) < math.inf:
            if time.monotonic() - told >= SOON:
                self._upload(("kept",))
                told = time.monotonic()
            sleep(min(rest, EVERY))
        return rest <= 0

    def _mark(self, name: str) -> None:
        with contextlib.suppress(OSError):  # a full disk must not keep the slice
            (self._here / name).touch()

    def _upload(self, names: Sequence[str], wait: float = 0.0) -> None:
        """Copies files to the bucket, in a thread: a bucket that does not answer must not hold up limit and deletion.
        Waits for so many seconds. Without waiting it does nothing while an earlier upload is running; the last one
        must not be held up by it.
        """
        if wait or not self._uploading.is_alive():
            self._uploading = threading.Thread(target=self._copy, args=names, name=UPLOAD, daemon=True)
            self._uploading.start()
        self._uploading.join(wait)

    def _copy(self, *names: str) -> None:
        """Copies files to the bucket; a failure is ignored."""
        for name in names:
            self._copy_one(name)

    def _copy_one(self, name: str) -> None:
        file = self._here / name
        if not self._folder or not file.exists() or (name == "log" and file.stat().st_size == self._size):
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / f"{self._worker}.{name}").write_bytes(file.read_bytes())
            self._size = file.stat().st_size if name == "log" else self._size
        except Exception as e:  # the libraries behind buckets raise anything
            if str(e) != self._said:
                print(f"{name} could not be kept in {self._folder}: {e}", flush=True)
            self._said = str(e)

    def _read(self, name: str) -> str:
        try:
            return (self._here / name).read_text().strip()
        except FileNotFoundError:  # job.sh moves `result`
            return ""


def _stat(pid: int) -> list[str]:
    """What the kernel tells of a process, from its state on; nothing if it does not exist."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    return _stat(pid)[:1] not in ([], ["Z"])


def members(session: int) -> set[int]:
    """The processes of a session."""
    pids = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
    return {pid for pid in pids if _stat(pid)[3:4] == [str(session)]}


def main() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):  # a shutdown sends them to everyone: the end of the log comes last
        signal.signal(number, signal.SIG_IGN)
    parser = argparse.ArgumentParser()
    for name in ("worker", "logs", "delete", "delete-when"):
        parser.add_argument(f"--{name}", default="")
    flags = parser.parse_args()
    Keeper(Path("..").resolve(), flags.worker, flags.logs, shlex.split(flags.delete), flags.delete_when).run()
    os._exit(0)  # without the exit handlers of libraries, which may wait for a bucket


if __name__ == "__main__":
    main()
