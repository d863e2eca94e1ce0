"""One slice of Cloud TPU as a queued resource: the request, and the gcloud commands.

Syntax: "gcloud compute tpus queued-resources" and "gcloud compute tpus tpu-vm" of the Google Cloud SDK 528. The queued
resource and its only node have the same name.
"""

import dataclasses
import hashlib
import math
import re
import shlex
from pathlib import Path

from scaling.core.errors import UserError
from tpu.cloud.found import OURS, Found
from tpu.compiler import topology
from tpu.flags import CHIPS, Accelerator

# Options of a request beside the slice itself: flags of `queued-resources create`, and the form of their values
EXTRAS = {
    "service-account": r"[-a-z0-9.]+@[-a-z0-9.]+",
    "network": r"[a-z0-9][-a-z0-9_./:]*",
    "subnetwork": r"[a-z0-9][-a-z0-9_./:]*",
}
# Other flags, passed on unchanged; the rest of `gcloud alpha`'s flags need it.
PASSED = (
    "data-disk", "description", "guaranteed", "labels", "metadata-from-file", "range", "reservation-host-folder",
    "reservation-host-organization", "reservation-host-project", "scopes", "shielded-secure-boot", "tags",
    "valid-after-duration", "valid-after-time", "valid-until-duration", "valid-until-time",
)  # fmt: skip
PASSED_ALPHA = (
    "autocheckpoint-enabled", "best-effort", "boot-disk", "max-run-duration", "network-config", "provisioning-model",
    "reservation", "workload-type",
)  # fmt: skip

BATCH = 64  # connections at once of `queued-resources ssh` and `scp`, by default

_DEFAULT = re.compile(r".*-compute@developer\.gserviceaccount\.com|(.*/)?default")  # of a slice that asked for none


@dataclasses.dataclass(frozen=True)
class SliceRequest:
    """A request to Cloud TPU.

    Attributes:
      project: project ID; gcloud's own default if empty.
      runtime: runtime version; the generation's default if empty.
      spot, reserved: kind of capacity; on demand if neither.
      internal: whether to have no external addresses; gcloud then connects to the internal ones.
      extras: values for flags of EXTRAS.
      passed: other flags of `create`, passed on unchanged.
      topology: shape, with `_untwisted` for an untwisted torus where the default is twisted; empty for the
        accelerator's.
      tunnel: whether to connect through Identity-Aware Proxy.
      about: notes of the launcher, stored in the slice's metadata.
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
    passed: tuple[str, ...] = ()
    topology: str = ""
    tunnel: bool = False
    about: tuple[tuple[str, str], ...] = ()

    def check(self) -> None:
        """Raises a UserError naming the first thing that Cloud TPU would refuse."""
        if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", self.name):
            raise UserError(
                f"--name={self.name}: must have at most 63 lower-case letters, digits and hyphens, begin with a letter "
                "and not end with a hyphen (RFC 1035); give another"
            )
        check_zone("zone", self.zone)
        if self.project and not re.fullmatch(r"([a-z0-9.-]+:)?[a-z][-a-z0-9]{4,28}[a-z0-9]", self.project):
            raise UserError(
                f"--project={self.project}: must be a project ID (6 to 30 letters, digits, hyphens); give one"
            )
        if self.runtime and not re.fullmatch(r"[a-z0-9][-a-z0-9.]*", self.runtime):
            raise UserError(f"--runtime_version={self.runtime}: must be a TPU software version; leave it out")
        if self.spot and self.reserved:
            raise UserError("--spot and --reserved: are two kinds of capacity; give one of them")
        for name, value in self.extras:
            if not re.fullmatch(EXTRAS[name], value):
                raise UserError(f"--{name}={value}: is not a {name.replace('-', ' ')} as gcloud takes it; mend it")
        for flag in self.passed:
            name = flag.partition("=")[0].removeprefix("--")
            if not flag.startswith("--") or name not in (*PASSED, *PASSED_ALPHA):
                known = ", ".join((*PASSED, *PASSED_ALPHA))
                raise UserError(f"--create_flags={flag}: must be --NAME or --NAME=VALUE; give one of {known}")
        if self.topology and self.accelerator:
            _check_shape(self.topology, self.accelerator)

    def check_like(self, found: Found) -> None:
        """Raises a UserError if the existing slice differs from this request, which would then replace it."""
        assert self.accelerator is not None
        runtime = self.runtime or self.accelerator.chip.runtime
        extras = dict(self.extras)
        sides = self.topology.removesuffix("_untwisted")
        for flag, given, there in (
            ("accelerator", self.accelerator.name, found.accelerator),
            ("topology", sides, found.topology if self.topology else ""),
            ("runtime_version", runtime, found.runtime),
            *((name, extras.get(name, ""), there) for name, there in found.extras),
        ):
            same = given.rpartition("/")[2] == there.rpartition("/")[2]  # a network can be given by its full path
            if there and not same and (given or not _DEFAULT.fullmatch(there)):
                raise UserError(
                    f"--name={self.name}: was created with --{flag}={there}, not {given or 'without'}; "
                    f"give --{flag}={there}"
                )
        for flag, given in self.noted.items():
            if flag in found.about and found.about[flag] != given:
                raise UserError(
                    f"--name={self.name}: was created with another --{flag}, or without; give that one, or `delete` it"
                )
        for flag, wanted, has in (
            ("spot", self.spot, found.spot),
            ("reserved", self.reserved, found.reserved),
            ("internal-ips", self.internal, found.internal),
        ):
            if has is not None and wanted != has:
                how, give = ("with", "give") if has else ("without", "leave out")
                raise UserError(
                    f"--name={self.name}: was created {how} --{flag}, and is to be created again so; {give} --{flag}"
                )

    @property
    def noted(self) -> dict[str, str]:
        """What is kept of the request in the slice's metadata, as Cloud TPU does not report it: a torus is twisted or
        not, and flags that are passed on."""
        passed = hashlib.sha256(shlex.join(self.passed).encode()).hexdigest()[:12] if self.passed else "none"
        return {"topology": self.topology or "default", "create_flags": passed}

    @property
    def label(self) -> str:
        """Its name, and where and how it is asked for."""
        return f"{self.name} in {self.zone}, {'spot' if self.spot else 'reserved' if self.reserved else 'on demand'}"

    @property
    def _place(self) -> list[str]:
        return [f"--zone={self.zone}", *([f"--project={self.project}"] if self.project else [])]

    def _queued(self, verb: str, *flags: str, alpha: bool = False) -> list[str]:
        track = ["gcloud", "alpha"] if alpha else ["gcloud"]
        return [*track, "compute", "tpus", "queued-resources", verb, self.name, *self._place, *flags]

    def create(self) -> list[str]:
        """Asks for the slice; returns when the request is in the queue."""
        assert self.accelerator is not None
        chip = self.accelerator.chip
        size = [f"--accelerator-type={self.accelerator.name}"]
        if self.topology:
            size = [f"--type={chip.prefix.removesuffix('-')}", f"--topology={self.topology}"]
        about = {**self.noted, **dict(self.about)}
        noted = ",".join(f"{OURS}{name}={value}" for name, value in about.items() if "," not in value)
        alpha = bool(self.topology) or any(x.partition("=")[0].removeprefix("--") in PASSED_ALPHA for x in self.passed)
        flags = [
            f"--node-id={self.name}",
            *size,
            f"--runtime-version={self.runtime or chip.runtime}",
            *(["--spot"] if self.spot else []),
            *(["--reserved"] if self.reserved else []),
            *(["--internal-ips"] if self.internal else []),
            *[f"--{name}={value}" for name, value in self.extras],
            *([f"--metadata={noted}"] if noted else []),
            *self.passed,
        ]
        return self._queued("create", *flags, "--quiet", alpha=alpha)

    def describe(self) -> list[str]:
        """The command that prints the state and the request."""
        return self._queued("describe", "--format=json")

    def describe_node(self) -> list[str]:
        """Prints the state and health of the machines."""
        return ["gcloud", "compute", "tpus", "tpu-vm", "describe", self.name, *self._place, "--format=json"]

    def delete(self, wait: bool = True) -> list[str]:
        """Removes the request and its node; returns when both are gone, or are going."""
        return self._queued("delete", "--force", "--quiet", *([] if wait else ["--async"]))

    @property
    def _connected(self) -> list[str]:
        """gcloud and how it reaches the workers: `queued-resources` does so through a proxy, and many at a time."""
        if self.tunnel or (self.accelerator and self.accelerator.hosts > 100):
            way = ["--tunnel-through-iap"] if self.tunnel else ["--internal-ip"] if self.internal else []
            return ["queued-resources", *way, "--node=all"]
        return ["tpu-vm", *(["--internal-ip"] if self.internal else [])]

    @property
    def batches(self) -> int:
        """Number of groups of workers that a command to all of them reaches one after the other."""
        if self.accelerator is None or self._connected[0] == "tpu-vm":
            return 1
        return -(-self.accelerator.hosts // BATCH)

    def ssh(self, command: str, worker: str = "all") -> list[str]:
        """Runs a shell command on one worker, or on all at once."""
        group, *way = self._connected
        options = [f"--ssh-flag=-o {option}" for option in _SSH]
        return [
            *["gcloud", "compute", "tpus", group, "ssh", self.name, *self._place, *way],
            *[f"--worker={worker}", *options, "--quiet", f"--command={command}"],
        ]

    def scp(self, path: Path, target: str) -> list[str]:
        """Copies a file to all workers; `target` is relative to their home directories."""
        group, *way = self._connected
        options = [f"--scp-flag=-o {option}" for option in _SSH]
        where = [*self._place, *way, "--worker=all", *options, "--quiet"]
        return ["gcloud", "compute", "tpus", group, "scp", str(path), f"{self.name}:{target}", *where]


def check_zone(flag: str, zone: str) -> None:
    """Raises a UserError if the value of that flag is not a zone."""
    if not re.fullmatch(r"[a-z]+-[a-z]+[0-9]+-[a-z0-9]+", zone):
        raise UserError(f"--{flag}={zone or '(none)'}: must be a zone; give one such as us-central1-a")


def _check_shape(shape: str, slice_: Accelerator) -> None:
    """Raises a UserError for a topology that Cloud TPU does not offer, or that is not of this size: batch, mesh and
    cost follow the accelerator type.
    """
    kind = next(name for name, chip in CHIPS.items() if chip == slice_.chip)
    if slice_.chip.torus != 3:
        raise UserError(f"--topology={shape}: is only for v4 and v5p, and {slice_.name} has one shape; leave it out")
    sides = shape.removesuffix("_untwisted")
    if not topology.CHIPS[kind].offers(sides) or math.prod(map(int, sides.split("x"))) != slice_.chips:
        raise UserError(
            f"--topology={shape}: must be a shape of the {slice_.chips} chips of --accelerator={slice_.name}, smallest "
            f"side first; give one such as {slice_.topology}"
        )
    if shape != sides:
        topology.parse(f"{kind}:{shape}")  # one that is never twisted


# Timeouts: an unreachable worker is detected after ten seconds, a vanished one after one and a half minutes.
_SSH = ("ConnectTimeout=10", "ServerAliveInterval=30", "ServerAliveCountMax=3")
