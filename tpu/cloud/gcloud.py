"""Runs gcloud: with time limits, with retries, or not at all in a dry run."""

import contextlib
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

from scaling.core.errors import UserError
from tpu.cloud.found import GRANTED, LEAVING, MISSING, READY, WAITING, Found, Node
from tpu.cloud.slices import SliceRequest

LONGEST = 300  # seconds between two attempts if gcloud does not respond
LIMIT = 120.0  # seconds that a query may take; one command to all workers may take MUCH
MUCH = 1800.0
PREPARED = 3600.0  # seconds in which granted capacity becomes a slice, before another place is asked after all
ASKED = 3  # times that a query is given before its failure counts
MISSED = "NOT_FOUND"  # in the error of a query for a resource that does not exist
_GONE = 5.0  # seconds for a command that was killed


Answer = TypeVar("Answer")


class GcloudError(UserError):
    """A command that failed with `code`; 124 if it took too long."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


def reason(code: int, error: str) -> str:
    """The last line of what a failed command wrote, or its exit code."""
    return (error.strip().splitlines() or [f"code {code}"])[-1]


def names(listing: str) -> list[str]:
    """Names of the objects and folders that `gcloud storage ls` prints."""
    return [line.rstrip("/").rpartition("/")[2] for line in listing.splitlines() if line.startswith("gs://")]


def asked(query: Callable[[], Answer], settled: Callable[[Answer], bool], pause: float) -> Answer:
    """The answer to a query, which is repeated up to ASKED times until `settled` is true of it."""
    for left in reversed(range(ASKED)):
        answer = query()
        if settled(answer):
            break
        if left:
            time.sleep(pause)
    return answer


def say(text: str) -> None:
    """Prints a line. Where nobody reads any more, such as after `| head`, the run continues without output: a slice
    that is paid for has to be followed and deleted all the same.
    """
    try:
        print(text, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Gcloud:
    """Runs commands; with `dry` it prints them, runs nothing, and behaves as if all succeeded.

    Args:
      dry: whether to print only.
      poll: seconds between two queries of a state.
      there: whether the slice exists in a dry run from its beginning, or once its request is printed.
    """

    def __init__(self, dry: bool, poll: float, there: bool = True):
        self.dry, self.poll, self._there = dry, poll, there
        if not dry and shutil.which("gcloud") is None:
            raise UserError("gcloud: is not on PATH; install the Google Cloud CLI and run `gcloud auth login`")

    def run(self, command: list[str], limit: float = MUCH) -> None:
        """Runs a command whose output the user sees.

        Raises:
          GcloudError: it failed, or took more than `limit` seconds.
        """
        if self._printed(command):
            return
        what = f"`{' '.join(command[:6])}`"
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            code = process.wait(limit)
        except BaseException as e:
            end(process)
            if not isinstance(e, subprocess.TimeoutExpired):
                raise
            late = f"{what}: did not end within {limit:.0f} s; look whether it waits for something, and start again"
            raise GcloudError(late, 124) from e
        if code:
            raise GcloudError(f"{what}: failed with code {code}; see its message above", code)

    def read(self, command: list[str], limit: float = LIMIT) -> tuple[int, str, str]:
        """Exit code, output and error output of a command; (0, "", "") in a dry run. After `limit` seconds the
        command is ended with code 124 and its output so far.
        """
        if self._printed(command):
            return 0, "", ""
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        code = 0
        try:
            out, error = process.communicate(timeout=limit)
            code = process.returncode
        except subprocess.TimeoutExpired:
            code = 124
            out, error = end(process)
            error += f"no answer within {limit:.0f} s".encode()
        except BaseException:
            end(process)
            raise
        return code, out.decode(errors="replace"), error.decode(errors="replace")

    def ask(self, command: list[str], settled: Callable[[int, str, str], bool]) -> tuple[int, str, str]:
        """As `read`, but given up to ASKED times until `settled` is true of the result."""
        return asked(lambda: self.read(command), lambda result: settled(*result), self.poll)

    def follow(self, command: list[str]) -> subprocess.Popen[bytes] | None:
        """Starts a command whose output the user sees; None in a dry run."""
        return (
            None
            if self._printed(command)
            else subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        )

    def node(self, target: SliceRequest, patient: bool = False) -> Node:
        """The machines of a slice; an empty Node if there are none or, unless `patient`, if gcloud does not respond."""
        try:
            found = self._described(target, target.describe_node(), patient)
        except UserError:
            return Node()
        return Node.of(found) if found else Node()

    def created(self, target: SliceRequest) -> float:
        """When the machines of a slice were created; 0 if there are none, or gcloud does not tell though it is asked
        ASKED times.
        """
        code, out, _ = self.ask(target.describe_node(), lambda code, _, error: not code or MISSED in error)
        with contextlib.suppress(ValueError):
            return 0.0 if code else Node.of(json.loads(out)).created
        return 0.0

    def listed(self, command: list[str]) -> list[dict[str, Any]]:
        """The resources that a `list` command finds.

        Raises:
          UserError: gcloud does not respond.
        """
        code, out, error = self.read([*command, "--format=json"])
        if code:
            raise UserError(f"`{' '.join(command[:5])}`: {reason(code, error)}")
        return list(json.loads(out or "[]"))

    def file(self, path: str) -> str:
        """The content of an object in a bucket; empty if it cannot be read."""
        return self.read(["gcloud", "storage", "cat", path])[1] if path.startswith("gs://") else ""

    def folder(self, path: str) -> list[str]:
        """Names in a folder of a bucket; none if it cannot be read."""
        if not path.startswith("gs://"):
            return []
        return names(self.read(["gcloud", "storage", "ls", f"{path.rstrip('/')}/"])[1])

    def look(self, target: SliceRequest, patient: bool = False) -> Found:
        """The queued resource: MISSING if there is none of that name, or not yet in a dry run; then READY, with the
        values of the flags.

        If gcloud does not respond and `patient` is set, reports that once and retries indefinitely: the network may be
        down here while the slice keeps running.

        Raises:
          UserError: gcloud did not respond.
        """
        found = self._described(target, target.describe(), patient)
        if self.dry and self._there:
            return Found(READY, spot=target.spot, reserved=target.reserved)
        return Found(MISSING) if found is None else Found.of(found)

    def _described(self, target: SliceRequest, command: list[str], patient: bool) -> dict[str, Any] | None:
        """The JSON of a `describe`; None if there is no such thing, or in a dry run. For `patient` see `look`."""
        attempt = 0
        while True:
            code, out, error = self.read(command)
            if self.dry or MISSED in error:
                return None
            with contextlib.suppress(ValueError):
                if code == 0:
                    return dict(json.loads(out))
            message = f"--name={target.name}: gcloud cannot tell its state: {reason(code, error)}"
            if not patient:
                raise UserError(f"{message}; start again when it can")
            if not attempt:
                say(f"{message}; asking again until it can")
            attempt += 1
            time.sleep(min(self.poll * 2 ** min(attempt, 8), LONGEST))

    def state(self, target: SliceRequest, patient: bool = False) -> str:
        """The state alone."""
        return self.look(target, patient).state

    def wait(
        self,
        target: SliceRequest,
        through: tuple[str, ...] = (*WAITING, *LEAVING),
        patience: float | None = None,
    ) -> Found:
        """The queued resource once its state is none of those, or has been one of WAITING for `patience` seconds, of
        which granted capacity has at least PREPARED; prints every state in between.
        """
        said, began, granted = None, time.monotonic(), math.inf
        while (found := self.look(target, patient=True)).state in through:
            if found.state != said:
                say(f"{target.name} is {found.state}")
                said = found.state
            now = time.monotonic()
            granted = min(granted, now) if found.state == GRANTED else granted
            if patience is not None and found.state in WAITING:
                late = now - granted > max(patience, PREPARED) if found.state == GRANTED else now - began > patience
                if late:
                    return found
            time.sleep(self.poll)
        return found

    def _printed(self, command: list[str]) -> bool:
        if self.dry:
            print(shlex.join(command), flush=True)
            self._there = self._there or {"queued-resources", "create"} <= set(command[:6])
        return self.dry


def end(process: "subprocess.Popen[bytes]") -> tuple[bytes, bytes]:
    """Kills gcloud and the ssh that it waits for; returns what it has written and nobody has read."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    try:
        out, error = process.communicate(timeout=_GONE)
        return out or b"", error or b""
    except subprocess.TimeoutExpired as e:  # a process outside of its group holds the pipe
        return e.stdout or b"", e.stderr or b""
