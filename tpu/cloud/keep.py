"""Runs beside the training on every worker: copies its log to the bucket, ends it at its limit, and deletes the slice.

    python -m tpu.cloud.keep --worker=K [--logs=gs://BUCKET/runs/RUN/logs] [--delete='gcloud ...' --delete-when=end]

job.sh starts it. It reads and writes the files beside the code, see `tpu.cloud.worker`, and does not depend on the
machine that started the job: closing a laptop costs nothing.
"""

import argparse
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from etils import epath

EVERY = 30.0  # seconds between two uploads of a log
SOON, LATE = 300.0, 1800.0  # seconds until the slice is deleted, after a final end and after one that a person may fix
ENOUGH = 25.0  # seconds for the last uploads, each; job.sh waits for a minute
DELETING = 600  # seconds for a command that deletes the slice, before it is given again
FOR_GOOD = (0, 2, 3)  # done, wrong input, a run that cannot continue
WHEN = ("done", "end", "never")


def grace(code: int, stopped: bool, over: bool, when: str) -> float | None:
    """Seconds between the end of a job and the deletion of its slice by worker 0; None if it is not deleted.

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
        self._size, self._said = -1, ""
        self._uploading = threading.Thread()

    def run(self, sleep: Callable[[float], None] = time.sleep) -> None:
        """Returns after the end of the job; on worker 0, if the slice is to be deleted, after that."""
        pid = int(self._read("pid"))
        kept = time.monotonic()
        while alive(pid):
            sleep(min(1.0, self._every))
            limit = float(self._read("limit") or 0)  # `run` may have changed it
            if self._worker == "0" and limit and time.time() > limit and not (self._here / "over").exists():
                (self._here / "over").touch()
                os.kill(pid, signal.SIGTERM)  # on one host only: all hosts then save
            if time.monotonic() - kept >= self._every:
                self._upload(("log",))
                kept = time.monotonic()
        deadline = time.monotonic() + 10
        while not (self._here / "result").exists() and time.monotonic() < deadline:
            sleep(0.1)
        if self._uploading.is_alive():
            self._uploading.join(ENOUGH)
        self._upload(("log", "result"), ENOUGH)
        (self._here / "kept").touch()
        if self._worker == "0":
            self._end(int(self._read("result") or self._read("exit_code") or 137), sleep)

    def _end(self, code: int, sleep: Callable[[float], None]) -> None:
        stopped, over = ((self._here / name).exists() for name in ("stopped", "over"))
        left = grace(code, stopped, over, self._when)
        if left is None or not self._delete:
            return
        sleep(left)
        # a command that hangs is ended, with what it started, and given again
        delete = ["timeout", "--kill-after=10", str(DELETING), *self._delete]
        while subprocess.run(delete, stdin=subprocess.DEVNULL).returncode:
            sleep(60)

    def _upload(self, names: Sequence[str], wait: float = 0.0) -> None:
        """Copies files to the bucket, in a thread: a bucket that does not answer must not hold up limit and deletion.
        Waits for so many seconds. Without waiting it does nothing while an earlier upload is running; the last one
        must not be held up by it.
        """
        if wait or not self._uploading.is_alive():
            self._uploading = threading.Thread(target=self._copy, args=names, daemon=True)
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
        file = self._here / name
        return file.read_text().strip() if file.exists() else ""


def alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


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
