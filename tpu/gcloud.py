"""One slice of Cloud TPU as a queued resource: its gcloud commands, and running them.

Syntax and states: "gcloud compute tpus queued-resources", "gcloud compute tpus tpu-vm" and "Manage queued resources" of
the Google Cloud documentation. The queued resource and its only node have the same name.
"""

import dataclasses
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

from scaling.errors import UserError
from tpu.flags import Accelerator

WAITING = ("CREATING", "ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING")
READY = "ACTIVE"
GONE = ("SUSPENDED", "FAILED")  # preempted, or never granted: only deleting and creating again helps
LEAVING = ("SUSPENDING", "DELETING")
MISSING = "MISSING"  # our word for: there is none of that name


@dataclasses.dataclass(frozen=True)
class Slice:
    """What is asked of Cloud TPU. `project` may be empty: then it is gcloud's own default."""

    name: str
    zone: str
    project: str
    accelerator: Accelerator | None
    runtime: str = ""
    spot: bool = False

    def check(self) -> None:
        """Raises a UserError naming the first thing that Cloud TPU would refuse."""
        if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", self.name):
            raise UserError(
                f"--name={self.name}: a name has at most 63 lower-case letters, digits and hyphens, begins with a "
                "letter and does not end with a hyphen (RFC 1035)"
            )
        if not re.fullmatch(r"[a-z]+-[a-z]+\d+-[a-z]", self.zone):
            raise UserError(f"--zone={self.zone or '(none)'} is not a zone; one looks like us-central1-a")
        if self.project and not re.fullmatch(r"([a-z0-9.-]+:)?[a-z][-a-z0-9]{4,28}[a-z0-9]", self.project):
            raise UserError(
                f"--project={self.project} is not a project ID (6 to 30 lower-case letters, digits, hyphens)"
            )
        if self.runtime and not re.fullmatch(r"[a-z0-9][-a-z0-9.]*", self.runtime):
            raise UserError(f"--runtime_version={self.runtime} is not the name of a TPU software version")

    @property
    def _place(self) -> list[str]:
        return [f"--zone={self.zone}", *([f"--project={self.project}"] if self.project else [])]

    def _queued(self, verb: str, *flags: str) -> list[str]:
        return ["gcloud", "compute", "tpus", "queued-resources", verb, self.name, *self._place, *flags]

    def create(self) -> list[str]:
        """Asks for the slice; returns when the request is in the queue."""
        assert self.accelerator is not None
        flags = [
            f"--node-id={self.name}",
            f"--accelerator-type={self.accelerator.name}",
            f"--runtime-version={self.runtime or self.accelerator.chip.runtime}",
            *(["--spot"] if self.spot else []),
        ]
        return self._queued("create", *flags, "--quiet")

    def describe(self) -> list[str]:
        """Prints the state."""
        return self._queued("describe", "--format=value(state.state)")

    def delete(self) -> list[str]:
        """Removes the request and its node; returns when both are gone."""
        return self._queued("delete", "--force", "--quiet")

    def ssh(self, command: str, worker: str = "all") -> list[str]:
        """Runs a shell command on one worker, or on all at once."""
        return [
            *["gcloud", "compute", "tpus", "tpu-vm", "ssh", self.name, *self._place],
            *[f"--worker={worker}", "--ssh-flag=-o ServerAliveInterval=30", f"--command={command}"],
        ]

    def scp(self, path: Path, target: str) -> list[str]:
        """Copies a file to all workers; `target` is relative to their home directories."""
        where = [*self._place, "--worker=all"]
        return ["gcloud", "compute", "tpus", "tpu-vm", "scp", str(path), f"{self.name}:{target}", *where]


class Gcloud:
    """Runs commands; with `dry` it prints them, runs nothing, and behaves as if all went well.

    Args:
      dry: whether to print only.
      poll: seconds between two looks at a state.
    """

    def __init__(self, dry: bool, poll: float):
        self.dry, self.poll = dry, poll
        if not dry and shutil.which("gcloud") is None:
            raise UserError("gcloud is not on PATH; install the Google Cloud CLI and run `gcloud auth login`")

    def run(self, command: list[str]) -> None:
        """Runs a command whose output the user sees.

        Raises:
          UserError: it failed.
        """
        if self._printed(command):
            return
        done = subprocess.run(command, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise UserError(f"`{' '.join(command[:6])}` failed with code {done.returncode}, see its message above")

    def read(self, command: list[str]) -> tuple[int, str, str]:
        """Exit code, output and error output of a command; (0, "", "") in a dry run."""
        if self._printed(command):
            return 0, "", ""
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    def follow(self, command: list[str]) -> subprocess.Popen[bytes] | None:
        """Starts a command whose output the user sees; None in a dry run."""
        return (
            None
            if self._printed(command)
            else subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        )

    def state(self, target: Slice, attempts: int = 1) -> str:
        """State of the queued resource, MISSING where there is none of that name, READY in a dry run.

        Raises:
          UserError: gcloud did not answer so many times in a row.
        """
        for attempt in range(attempts):
            if attempt:
                time.sleep(self.poll)
            code, out, error = self.read(target.describe())
            if code == 0:
                return out.strip() or READY
            if "NOT_FOUND" in error:
                return MISSING
        lines = error.strip().splitlines() or [f"code {code}"]
        raise UserError(f"gcloud cannot tell the state of {target.name}: {lines[-1]}")

    def wait(self, target: Slice) -> str:
        """The state as soon as it is none of WAITING and LEAVING; says each one it goes through."""
        said = None
        while (state := self.state(target, 10)) in (*WAITING, *LEAVING):
            if state != said:
                print(f"{target.name} is {state}", flush=True)
                said = state
            time.sleep(self.poll)
        return state

    def _printed(self, command: list[str]) -> bool:
        if self.dry:
            print(shlex.join(command), flush=True)
        return self.dry
