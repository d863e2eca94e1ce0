"""The flags of the launcher, and the objects made from them: the slice, the places to ask for it, the limits."""

import contextlib
import dataclasses
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scaling import cli
from scaling.core.errors import UserError
from tpu.cloud import bundle, shipment
from tpu.cloud.capacity import places
from tpu.cloud.found import MISSING, Found
from tpu.cloud.gcloud import Gcloud
from tpu.cloud.job import Job
from tpu.cloud.keep import WHEN
from tpu.cloud.policy import Policy
from tpu.cloud.slices import EXTRAS, SliceRequest, check_zone
from tpu.cloud.worker import MIRROR, Source
from tpu.flags import accelerator

AS_GCLOUD = (  # accepted with hyphens too
    "runtime_version", "allow_dirty", "dry_run", "internal_ips", "service_account", "tunnel_through_iap",
    "create_flags", "delete_when", "max_hours", "max_cost",
)  # fmt: skip

_SLICE = "name zone project accelerator internal_ips tunnel_through_iap poll dry_run"
_REQUEST = f"{_SLICE} topology runtime_version spot reserved create_flags {' '.join(EXTRAS).replace('-', '_')}"
_TRAINING = "config workdir timeout profile local_data"
# The flags that each verb takes; the fields of --config go with it.
TAKES = {
    "create": _REQUEST,
    "setup": f"{_SLICE} zones workdir bundle allow_dirty",
    "run": f"{_REQUEST} {_TRAINING} zones allow_on_demand wait_minutes replace_minutes delete_when max_hours max_cost "
    "price bundle allow_dirty babysit",
    "status": f"{_SLICE} zones workdir price",
    "list": "zone zones project price poll dry_run",
    "logs": f"{_SLICE} zones worker",
    "stop": f"{_SLICE} zones",
    "delete": f"{_SLICE} zones yes",
    "bundle": "bundle poll dry_run",
    "manifest": f"name accelerator spot {_TRAINING} image max_restarts node_chips pod_account queue placement_policy "
    "dry_run",
}

LONGEST = 1e6  # hours: a century, beyond which the arithmetic of a shell would fail


def check_taken(flags: cli.Flags, verb: str) -> None:
    """Raises a UserError for a flag that has no effect on this verb."""
    takes = {each: words.split() for each, words in TAKES.items()}
    for name in flags:
        root = name.partition(".")[0]
        others = [f"`{each}`" for each, taken in takes.items() if root in taken]
        if others and root not in takes[verb] and flags[name].present:
            why = "a JobSet has it from its node pool and image" if verb == "manifest" else "it has no effect there"
            raise UserError(
                f"{flags[name].serialize()}: is not a flag of `{verb}` but of {', '.join(others)}: {why}; leave it out"
            )


def given(flags: cli.Flags, verb: str) -> list[str]:
    """The flags of a verb that are given, but for --config and those that only print."""
    names = (name for name in TAKES[verb].split() if name not in ("config", "babysit", "dry_run"))
    return [str(flags[name].serialize()) for name in names if flags[name].present]


def define_slice(define: cli.Define) -> None:
    """Defines the flags that describe the slice."""
    define.string("name", "", "Name of the queued resource and its node.")
    define.string("zone", "", "Zone, like us-central1-a.")
    define.string("project", "", "Project ID; gcloud's own default if empty.")
    define.string("accelerator", "", "Accelerator type: v4-N, v5litepod-N, v5p-N, v6e-N or, on GKE, tpu7x-N.")
    define.string(
        "topology", "", "Shape of a v4 or v5p slice, as 4x4x8_untwisted; by default that of the accelerator type."
    )
    define.string("runtime_version", "", "TPU software version; by default that of the generation.")
    define.bool("spot", False, "Spot capacity, which can be preempted; on demand otherwise.")
    define.bool("reserved", False, "Capacity from a reservation of the project.")
    define.bool(
        "internal_ips",
        False,
        "No external IP addresses; give it to all commands on the slice, and run them inside the network.",
    )
    define.bool(
        "tunnel_through_iap", False, "Connect through Identity-Aware Proxy; give it to all commands on the slice."
    )
    for name in EXTRAS:
        define.string(name.replace("-", "_"), "", f"The {name.replace('-', ' ')} of the slice, as in gcloud.")
    define.string("create_flags", "", "More flags for gcloud's `create`: '--labels=team=eo --reservation=NAME'.")


def define_life(define: cli.Define) -> None:
    """Defines the flags for limits, deletion and other places."""
    define.list("zones", [], "Other zones to try if --zone has no capacity, and to look for the slice in.")
    define.bool("allow_on_demand", False, "Request on-demand capacity if no zone has spot capacity.")
    define.float("wait_minutes", 30, "Minutes in the queue of a zone before the next zone is tried.", lower_bound=0)
    define.float("replace_minutes", 15, "Minutes after which failing machines are replaced; 0: never.", lower_bound=0)
    define.string(
        "delete_when", "", "When `run` deletes the slice: done, end or never; by default end for spot, else never."
    )
    define.float("max_hours", 0, "Maximum hours of all slices of the run together; 0: no limit.", lower_bound=0)
    define.float(
        "max_cost",
        0,
        "Maximum cost of all slices of the run together in US dollars, at --price; 0: no limit.",
        lower_bound=0,
    )
    define.float(
        "price", 0, "US dollars per chip-hour; with --allow_on_demand, those on demand, the dearest.", lower_bound=0
    )


def slice_of(flags: cli.Flags, sized: bool = False) -> SliceRequest:
    """The slice that the flags describe. Raises a UserError for values that Cloud TPU would refuse."""
    wanted = accelerator(flags.accelerator) if sized or flags.accelerator else None
    if wanted and not wanted.chip.runtime:
        raise UserError(
            f"--accelerator={wanted.name}: is not offered by the Cloud TPU API, which this command uses; run it on "
            "GKE, with `manifest`"
        )
    try:
        passed = tuple(shlex.split(flags.create_flags))
    except ValueError as e:
        raise UserError(f"--create_flags={flags.create_flags}: {str(e).lower()}; quote it as for a shell") from e
    target = SliceRequest(
        flags.name,
        flags.zone,
        flags.project,
        wanted,
        flags.runtime_version,
        spot=flags.spot,
        reserved=flags.reserved,
        internal=flags.internal_ips,
        extras=tuple((name, value) for name in EXTRAS if (value := flags[name.replace("-", "_")].value)),
        passed=passed,
        topology=flags.topology,
        tunnel=flags.tunnel_through_iap,
    )
    target.check()
    return target


def gcloud_of(flags: cli.Flags, there: bool = True) -> Gcloud:
    """Runs gcloud commands, or prints them in a dry run, in which the slice is `there` or not yet."""
    return Gcloud(flags.dry_run, flags.poll, there)


def found_in(flags: cli.Flags, target: SliceRequest, gcloud: Gcloud) -> tuple[SliceRequest, Found]:
    """The slice where it is, in --zone or in one of --zones; in --zone and MISSING if it is in none of them."""
    for zone in dict.fromkeys([target.zone, *zones_of(flags)]):
        found = gcloud.look(here := dataclasses.replace(target, zone=zone))
        if found.state != MISSING:
            return here, found
    return target, Found(MISSING)


def in_zones(flags: cli.Flags) -> str:
    """Names of the zones in which a slice was looked for."""
    return ", ".join(dict.fromkeys([flags.zone, *flags.zones]))


def job_on(flags: cli.Flags, target: SliceRequest, there: bool = True) -> Job:
    """The job on a slice, running or to be started; see `gcloud_of`."""
    return Job(target, gcloud_of(flags, there), flags.workdir.rstrip("/"), flags.replace_minutes)


def source_of(flags: cli.Flags, gcloud: Gcloud, archive: Path, name: str) -> Source:
    """Where the workers take code and environment from; uploads the archive if the working directory is in a bucket.

    Raises:
      UserError: a bucket does not take the code, or has no whole bundle.
    """
    bundle.check(gcloud, flags.bundle)
    if flags.internal_ips and not flags.bundle:
        print("--internal-ips: without --bundle the workers need a way to PyPI and releases.astral.sh, as by Cloud NAT")
    found = shipment.stored(gcloud, archive, name, flags.workdir)
    mirror = "" if flags.bundle else os.environ.get(MIRROR, "")
    return dataclasses.replace(found, bundle=bundle.place(flags.bundle), mirror=mirror)


def places_of(flags: cli.Flags, target: SliceRequest) -> tuple[SliceRequest, ...]:
    """The places to ask for the slice, with the launcher's notes on it. Raises a UserError for a wrong zone."""
    about = (("workdir", flags.workdir), *([("price", f"{flags.price:g}")] if flags.price else []))
    return places(dataclasses.replace(target, about=about), zones_of(flags), flags.allow_on_demand)


def zones_of(flags: cli.Flags) -> list[str]:
    """The checked --zones."""
    for zone in flags.zones:
        check_zone("zones", zone)
    return list(flags.zones)


def warn_of_distance(gcloud: Gcloud, paths: Sequence[str], places: Sequence[SliceRequest]) -> None:
    """Warns of buckets in another region than the slice: reading from them is slow and billed by the byte."""
    regions = {place.zone.rpartition("-")[0] for place in places}
    for bucket in sorted({match[1] for path in paths if (match := re.search(r"gs://([^/]+)", path))}):
        command = ["gcloud", "storage", "buckets", "describe", f"gs://{bucket}", "--format=value(location)"]
        location = gcloud.read(command)[1].strip().lower()
        wide = {"us": "us-", "eu": "europe-", "asia": "asia-", "nam4": "us-", "eur4": "europe-"}
        if far := sorted(
            region for region in regions if location and not region.startswith(wide.get(location, location))
        ):
            print(
                f"the bucket {bucket} is in {location}, not in {', '.join(far)}: reads across regions cost time and "
                "money"
            )


PORT = 8476  # of the coordinator, which the firewall of the default network opens (jax-ml/jax#35905)


def warn_of_firewall(gcloud: Gcloud, target: SliceRequest) -> None:
    """Warns of a network of the user's own whose rules keep the workers from meeting: they would wait, at full cost."""
    network = dict(target.extras).get("network", "").rpartition("/")[2]
    if not network:
        return
    project = [f"--project={target.project}"] if target.project else []
    command = ["gcloud", "compute", "firewall-rules", "list", f"--filter=network~/{network}$", *project]
    code, out, _ = gcloud.read([*command, "--format=json"])
    with contextlib.suppress(ValueError):
        if code == 0 and out and not opens(json.loads(out), PORT):
            print(
                f"--network={network}: none of its firewall rules allows connections to port {PORT}, at which the "
                "workers meet; allow it between them with `gcloud compute firewall-rules create`"
            )


def opens(rules: Sequence[Mapping[str, Any]], port: int) -> bool:
    """Whether a rule, as `gcloud compute firewall-rules list` prints it, lets connections to a TCP port in."""
    for rule in rules:
        if rule.get("direction", "INGRESS") != "INGRESS" or rule.get("disabled"):
            continue
        for allowed in rule.get("allowed", ()):
            ranges = [part.partition("-") for part in allowed.get("ports", ())]
            named = any(int(first) <= port <= int(last or first) for first, _, last in ranges)
            if allowed.get("IPProtocol") in ("all", "tcp", "6") and (named or not ranges):
                return True
    return False


def policy_of(flags: cli.Flags, target: SliceRequest) -> Policy:
    """The limits of the run. Raises a UserError for contradictory flags."""
    assert target.accelerator is not None
    when = flags.delete_when or ("end" if target.spot else "never")
    if when not in WHEN:
        raise UserError(f"--delete_when={when}: give one of {', '.join(WHEN)}")
    if flags.max_cost and not flags.price:
        raise UserError(f"--max_cost={flags.max_cost:g}: needs --price=USD_PER_CHIP_HOUR")
    hours = [flags.max_hours] if flags.max_hours else []
    if flags.max_cost:
        hours.append(flags.max_cost / (flags.price * target.accelerator.chips))
    if (least := min(hours, default=0.0)) > LONGEST:
        flag = "max_hours" if flags.max_hours == least else "max_cost"
        raise UserError(f"--{flag}={flags[flag].value:g}: is a limit of {least:g} hours; leave it out for none")
    return Policy(when, least)
