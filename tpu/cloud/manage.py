"""The verbs of the launcher on slices that are there: status, list, logs, stop and delete."""

import contextlib
import dataclasses
import re

from rich.table import Table

from scaling import cli
from scaling.core.console import console
from scaling.core.errors import UserError
from scaling.core.files import in_bucket
from tpu.cloud import options
from tpu.cloud import status as reports
from tpu.cloud.found import FAILED, LEAVING, MISSING, PREEMPTED, READY
from tpu.cloud.gcloud import Gcloud, asked, say
from tpu.cloud.job import Job
from tpu.cloud.options import job_on, slice_of
from tpu.cloud.slices import SliceRequest
from tpu.cloud.spent import Spent
from tpu.flags import accelerator


def there(flags: cli.Flags, target: SliceRequest) -> Job:
    """A job on a granted slice, with the size that it was created with."""
    job = job_on(flags, target)
    job.target, found = options.found_in(flags, target, job.gcloud)
    if found.state != READY:
        where = options.in_zones(flags) if found.state == MISSING else job.target.zone
        if found.state in (PREEMPTED, FAILED):
            remedy = "`run` creates it again; or `delete` it"
        else:
            remedy = "wait until it is gone" if found.state in LEAVING else "`create` asks for it and waits"
        raise UserError(f"--name={target.name}: is {found} in {where}; {remedy}")
    if target.accelerator is None and found.accelerator:
        with contextlib.suppress(UserError):  # of a generation that is not known here
            job.target = dataclasses.replace(job.target, accelerator=accelerator(found.accelerator))
    return job


def status(flags: cli.Flags) -> None:
    """Prints the state of the slice, of the job on each worker, and of its run."""
    target = slice_of(flags)
    job = job_on(flags, target)
    target, found = options.found_in(flags, target, job.gcloud)
    job.target = target
    print(f"{target.name} is {found}")
    if found.state != READY:
        return
    node = job.gcloud.node(target)
    states = ", ".join(job.states().values()).replace("_stopped", " after `stop`").replace("_over", " at its limit")
    print(f"job on its workers: {states or 'no worker answers'}")
    run = reports.progress(job.gcloud, flags.workdir.rstrip("/") or found.about.get("workdir", "").rstrip("/"))
    values = reports.cells(found, node, target.zone, target.name, flags.price, run)
    said = [f"{name} {value}" for name, value in zip(reports.HEADER, values, strict=True) if value][3:]
    said += [run["over all"]] if "over all" in run else []
    if said:
        print(", ".join(said))


def listing(flags: cli.Flags) -> None:
    """Prints a table of all slices of the zones."""
    SliceRequest("any", flags.zone, flags.project, None).check()
    gcloud = options.gcloud_of(flags)
    table = Table(*reports.HEADER)
    for zone in dict.fromkeys([flags.zone, *options.zones_of(flags)]):
        for row in reports.everything(gcloud, zone, flags.project, flags.price):
            table.add_row(*row)
    console().print(table)


def logs(flags: cli.Flags) -> None:
    """Prints the output of a worker until its job ends."""
    if not re.fullmatch("[0-9]+", flags.worker):
        raise UserError(f"--worker={flags.worker}: must be the number of a worker; give one from 0")
    job = there(flags, slice_of(flags))
    state = job.states(flags.worker)
    if not (state or job.gcloud.dry):
        raise UserError(f"--worker={flags.worker}: of {job.target.name} does not answer; `status` tells who does")
    if "none" in state.values():
        raise UserError(f"--worker={flags.worker}: no job was started on it of {job.target.name}; `run` starts one")
    job.gcloud.run(job.log("+1", flags.worker))


def stop(flags: cli.Flags) -> None:
    """Lets the job save and end. Raises a UserError if none is running: the next start would not be stopped."""
    job = there(flags, slice_of(flags))
    hosts = job.target.accelerator.hosts if job.target.accelerator else 0
    states = asked(
        job.states,
        lambda states: "running" in states.values() or job.gcloud.dry or len(states) >= hosts > 0,
        job.gcloud.poll,
    )
    if states and "running" not in states.values() and len(states) >= hosts:
        raise UserError(
            f"--name={job.target.name}: no job is running there; a `run` that follows it may start one again: end that "
            "first"
        )
    job.stop()


def delete(flags: cli.Flags) -> None:
    """Deletes the slice, and notes its hours beside its run. Raises a UserError if it is in none of the zones."""
    target = slice_of(flags)
    if not (flags.yes or flags.dry_run):
        raise UserError(f"--name={target.name}: would be deleted with its disks and all that runs there; give --yes")
    gcloud = options.gcloud_of(flags)
    target, found = options.found_in(flags, target, gcloud)
    if found.state == MISSING:
        raise UserError(
            f"--name={target.name}: is not in {options.in_zones(flags)}; `list` shows the slices of a zone, and "
            "--zones names others"
        )
    workdir = found.about.get("workdir", "").rstrip("/")
    created = gcloud.created(target) if in_bucket(workdir) and not gcloud.dry else 0.0
    gcloud.run(target.delete())
    if created:
        _note_end(gcloud, workdir, created, found.state == READY)
    elif in_bucket(workdir) and found.state == READY:
        say(f"the hours of this slice are not in {workdir}/spent.json: gcloud did not tell its age")


def _note_end(gcloud: Gcloud, workdir: str, created: float, lived: bool) -> None:
    """Notes the hours of a slice that was deleted beside its run, whose limits count them."""
    spent = Spent(gcloud, workdir)
    try:
        spent.read()
        spent.deleted(created, lived)
    except UserError as e:
        say(f"the hours of this slice could not be noted, and may be taken for more: {e}")
