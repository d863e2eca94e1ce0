"""One slice of Cloud TPU as a queued resource: its gcloud commands, and running them.

Syntax and states: "gcloud compute tpus queued-resources", "gcloud compute tpus tpu-vm" and "Manage queued resources" of
the Google Cloud documentation. The queued resource and its only node have the same name.
"""

import contextlib
import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from scaling.core.errors import UserError
from tpu.flags import Accelerator

WAITING = ("CREATING", "ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING")
READY = "ACTIVE"
PREEMPTED = "SUSPENDED"  # deleting and creating again gives a new one
FAILED = "FAILED"  # never granted: asked again as it was, it fails again
LEAVING = ("SUSPENDING", "DELETING")
LONGEST = 300  # seconds between two questions to a gcloud that does not answer
MISSING = "MISSING"  # our word for: there is none of that name

# What may be asked for beside the slice itself: flags of `queued-resources create`, and what their values look like
EXTRAS = {
    "service-account": r"[-a-z0-9.]+@[-a-z0-9.]+",
    "network": r"[a-z0-9][-a-z0-9_./:]*",
    "subnetwork": r"[a-z0-9][-a-z0-9_./:]*",
}

_DEFAULT = re.compile(r".*-compute@developer\.gserviceaccount\.com|(.*/)?default")  # of a slice that asked for none


@dataclasses.dataclass(frozen=True)
class Found:
    """What Cloud TPU says of a queued resource; empty where it does not say.

    Attributes:
      state: one of its states, or MISSING.
      reason: why it failed.
      accelerator, runtime, spot, reserved: what was asked for.
      internal: whether it is without external addresses; None where that is not said.
      extras: values of EXTRAS.
    """

    state: str
    reason: str = ""
    accelerator: str = ""
    runtime: str = ""
    spot: bool = False
    reserved: bool = False
    internal: bool | None = None
    extras: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.state}: {self.reason}" if self.reason else self.state

    @classmethod
    def read(cls, text: str) -> "Found":
        """From the JSON of `describe`: the resource QueuedResource of the Cloud TPU API."""
        resource: dict[str, Any] = json.loads(text)
        state = resource.get("state", {})
        specs = resource.get("tpu", {}).get("nodeSpec") or [{}]
        node = specs[0].get("node", {})
        reason = state.get("failedData", {}).get("error", {}).get("message", "")
        where, capacity = node.get("networkConfig", {}), node.get("schedulingConfig", {})
        extras = {
            "service-account": node.get("serviceAccount", {}).get("email", ""),
            "network": where.get("network", ""),
            "subnetwork": where.get("subnetwork", ""),
        }
        return cls(
            state.get("state", READY),
            " ".join(reason.split()),
            node.get("acceleratorType", ""),
            node.get("runtimeVersion", ""),
            spot="spot" in resource or bool(capacity.get("spot")),
            reserved=bool(resource.get("guaranteed", {}).get("reserved") or capacity.get("reserved")),
            internal=not where.get("enableExternalIps", False) if where else None,
            extras=tuple(extras.items()),
        )


@dataclasses.dataclass(frozen=True)
class SliceRequest:
    """What is asked of Cloud TPU.

    Attributes:
      project: gcloud's own default if empty.
      runtime: that of the generation if empty.
      spot, reserved: the kind of capacity; on demand if neither.
      internal: without external addresses; gcloud then connects to the internal ones.
      extras: values for flags of EXTRAS.
    """

    name: str
    zone: str
    project: str
    accelerator: Accelerator | None
    runtime: str = ""
    spot: bool = False
    reserved: bool = False
    internal: bool = False
    extras: tuple[tuple[str, str], ...] = ()

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
        if self.spot and self.reserved:
            raise UserError("--spot and --reserved are two kinds of capacity; give one of them")
        for name, value in self.extras:
            if not re.fullmatch(EXTRAS[name], value):
                raise UserError(f"--{name}={value} is not a {name.replace('-', ' ')} as gcloud takes it")

    def check_like(self, found: Found) -> None:
        """Raises a UserError where the slice that is there is another one than this, which would replace it."""
        assert self.accelerator is not None
        runtime = self.runtime or self.accelerator.chip.runtime
        extras = dict(self.extras)
        for flag, given, there in (
            ("accelerator", self.accelerator.name, found.accelerator),
            ("runtime_version", runtime, found.runtime),
            *((name, extras.get(name, ""), there) for name, there in found.extras),
        ):
            same = given.rpartition("/")[2] == there.rpartition("/")[2]  # a network may be told by its whole path
            if there and not same and (given or not _DEFAULT.fullmatch(there)):
                raise UserError(
                    f"{self.name} was created with --{flag}={there}, not {given or 'without'}; give --{flag}={there}"
                )
        for flag, wanted, has in (
            ("spot", self.spot, found.spot),
            ("reserved", self.reserved, found.reserved),
            ("internal-ips", self.internal, found.internal),
        ):
            if has is not None and wanted != has:
                how, give = ("with", "give") if has else ("without", "leave out")
                raise UserError(
                    f"{self.name} was created {how} --{flag}, and is to be created again so; {give} --{flag}"
                )

    @property
    def _place(self) -> list[str]:
        return [f"--zone={self.zone}", *([f"--project={self.project}"] if self.project else [])]

    @property
    def _inside(self) -> list[str]:
        return ["--internal-ip"] if self.internal else []

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
            *(["--reserved"] if self.reserved else []),
            *(["--internal-ips"] if self.internal else []),
            *[f"--{name}={value}" for name, value in self.extras],
        ]
        return self._queued("create", *flags, "--quiet")

    def describe(self) -> list[str]:
        """Prints the state, and what was asked for."""
        return self._queued("describe", "--format=json")

    def delete(self) -> list[str]:
        """Removes the request and its node; returns when both are gone."""
        return self._queued("delete", "--force", "--quiet")

    def ssh(self, command: str, worker: str = "all") -> list[str]:
        """Runs a shell command on one worker, or on all at once."""
        return [
            *["gcloud", "compute", "tpus", "tpu-vm", "ssh", self.name, *self._place, *self._inside],
            *[f"--worker={worker}", "--ssh-flag=-o ServerAliveInterval=30", f"--command={command}"],
        ]

    def scp(self, path: Path, target: str) -> list[str]:
        """Copies a file to all workers; `target` is relative to their home directories."""
        where = [*self._place, *self._inside, "--worker=all"]
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

    def look(self, target: SliceRequest, patient: bool = False) -> Found:
        """The queued resource: MISSING where there is none of that name, in a dry run READY and as the flags say.

        Where gcloud does not answer, says so once and asks again for as long as it takes, if `patient`: the network
        may be gone here, and the slice goes on.

        Raises:
          UserError: gcloud did not answer.
        """
        attempt = 0
        while True:
            code, out, error = self.read(target.describe())
            if self.dry:
                return Found(READY, spot=target.spot, reserved=target.reserved)
            if "NOT_FOUND" in error:
                return Found(MISSING)
            with contextlib.suppress(ValueError):
                if code == 0:
                    return Found.read(out)
            lines = error.strip().splitlines() or [f"code {code}"]
            message = f"gcloud cannot tell the state of {target.name}: {lines[-1]}"
            if not patient:
                raise UserError(message)
            if not attempt:
                print(f"{message}; asking again until it can", flush=True)
            attempt += 1
            time.sleep(min(self.poll * 2 ** min(attempt, 8), LONGEST))

    def state(self, target: SliceRequest, patient: bool = False) -> str:
        """The state alone."""
        return self.look(target, patient).state

    def wait(self, target: SliceRequest, through: tuple[str, ...] = (*WAITING, *LEAVING)) -> Found:
        """The queued resource as soon as its state is none of those; says each one it goes through."""
        said = None
        while (found := self.look(target, patient=True)).state in through:
            if found.state != said:
                print(f"{target.name} is {found.state}", flush=True)
                said = found.state
            time.sleep(self.poll)
        return found

    def _printed(self, command: list[str]) -> bool:
        if self.dry:
            print(shlex.join(command), flush=True)
        return self.dry
