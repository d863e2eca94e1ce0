"""Training on Cloud TPU: a slice, its environment and the job on it, through gcloud.

    python -m tpu.launch create|setup|run|status|logs|stop|delete --name=NAME --zone=ZONE [--project=ID] [--dry-run]
    python -m tpu.launch run --name=NAME --zone=ZONE --accelerator=v5litepod-256 [--spot|--reserved] \\
        --config=vit_h.py --workdir=gs://BUCKET/runs/vit_h [--config.path.to.field=value ...]
    python -m tpu.launch manifest --name=NAME --accelerator=v5litepod-256 --image=IMAGE --config=... --workdir=...

create   asks for the slice and waits until it is granted; says so where it is there already
setup    ships the code of the current commit to all workers and makes its environment there
run      setup, then training on all workers in tmux, shown from worker 0, until it ends; a preempted slice is created
         again and training goes on from the newest checkpoint. Given again, it follows the job that is running. Takes
         the flags that `create` was given
status   the state of the slice and of the job on each worker
logs     the output of worker 0, or of --worker=K
stop     SIGTERM: all hosts save the same step and end; `run` goes on
delete   removes the slice; needs --yes
manifest prints a GKE JobSet that runs the same job

--dry-run prints the exact commands and runs none. `run` exits with the code of the job.
"""

import dataclasses
from collections.abc import Callable

from ml_collections import config_flags

from scaling import cli
from scaling.core.errors import UserError
from scaling.core.files import in_bucket
from scaling.training.config import run_kind
from tpu.cloud import shipment
from tpu.cloud.gcloud import EXTRAS, FAILED, MISSING, PREEMPTED, READY, Gcloud, SliceRequest
from tpu.cloud.job import Job, bring_to_end, script
from tpu.cloud.manifest import manifest
from tpu.flags import Accelerator, accelerator


def define_flags(define: cli.Define) -> None:
    define.string("name", "", "Name of the queued resource and of its node.")
    define.string("zone", "", "Zone, like us-central1-a.")
    define.string("project", "", "Project ID; gcloud's own default if empty.")
    define.string("accelerator", "", "Accelerator type: v4-N, v5litepod-N, v5p-N or v6e-N.")
    define.string("runtime_version", "", "TPU software version; by default that of the generation.")
    define.bool("spot", False, "Spot capacity, which can be preempted; on demand otherwise.")
    define.bool("reserved", False, "Capacity of a reservation of the project.")
    define.bool("internal_ips", False, "No external addresses; for all commands, run inside the network.")
    for name in EXTRAS:
        define.string(name.replace("-", "_"), "", f"The {name.replace('-', ' ')} of the slice, as in gcloud.")
    define.config(run_kind)
    define.string("workdir", "", "Where the run is kept: gs://BUCKET/...")
    define.integer("timeout", 900, "Seconds that the hosts wait for each other.", lower_bound=1)
    define.bool("allow_dirty", False, "Ship the working tree as it is, not the current commit.")
    define.string("worker", "0", "Worker whose output `logs` shows.")
    define.string("image", "", "Container image with this code and its environment, for `manifest`.")
    define.bool("yes", False, "Really delete.")
    define.float("poll", 30, "Seconds between two looks at the state.", lower_bound=0)
    define.bool("dry_run", False, "Print the commands, run none.")
    for name in ("runtime_version", "allow_dirty", "dry_run", "internal_ips", "service_account"):
        define.alias(name.replace("_", "-"), name)  # as gcloud writes them


@cli.command(define_flags, words=True)
def main(argv: list[str], flags: cli.Flags) -> int:
    if len(argv) != 2 or argv[1] not in VERBS:
        raise UserError(
            f"give one of {', '.join(VERBS)}, not {' '.join(argv[1:]) or 'nothing'}; flags are --flag=value"
        )
    return VERBS[argv[1]](flags) or 0


def _slice(flags: cli.Flags, sized: bool = False) -> SliceRequest:
    wanted = accelerator(flags.accelerator) if sized or flags.accelerator else None
    capacity = {"spot": flags.spot, "reserved": flags.reserved, "internal": flags.internal_ips}
    extras = tuple((name, value) for name in EXTRAS if (value := flags[name.replace("-", "_")].value))
    target = SliceRequest(
        flags.name, flags.zone, flags.project, wanted, flags.runtime_version, **capacity, extras=extras
    )
    target.check()
    return target


def _job(flags: cli.Flags, target: SliceRequest) -> Job:
    return Job(target, Gcloud(flags.dry_run, flags.poll))


def _there(flags: cli.Flags, target: SliceRequest) -> Job:
    """A job on a slice that is granted, which is the size that it was created with."""
    job = _job(flags, target)
    found = job.gcloud.look(target)
    if found.state != READY:
        raise UserError(f"{target.name} in {target.zone} is {found}; `create` asks for it and waits")
    if target.accelerator is None and found.accelerator:
        job.target = dataclasses.replace(target, accelerator=accelerator(found.accelerator))
    return job


def _create(flags: cli.Flags) -> None:
    target = _slice(flags, sized=True)
    gcloud = _job(flags, target).gcloud
    found = gcloud.look(target)
    if found.state == PREEMPTED:
        raise UserError(f"{target.name} is {found}: `delete` it first, or give `run`, which creates it again")
    if found.state == FAILED:
        raise UserError(f"{target.name} is {found}; mend that, and `delete` it first")
    if found.state == MISSING or gcloud.dry:
        gcloud.run(target.create())
    else:
        target.check_like(found)
        print(f"{target.name} is there already")
    if (found := gcloud.wait(target)).state != READY:
        raise UserError(f"{target.name} is {found}; mend that, `delete` it and `create` it again")
    if not gcloud.dry:
        print(f"{target.name} is {found.state}")


def _setup(flags: cli.Flags) -> None:
    target = _slice(flags)
    with shipment.archive(flags.allow_dirty) as (path, *_):
        job = _there(flags, target)
        if "running" in job.survey():
            raise UserError(f"a job is running on {target.name}; `stop` it first")
        job.setup(path)


def _run(flags: cli.Flags) -> int:
    target = _slice(flags, sized=True)
    assert target.accelerator is not None
    environment = _environment(flags, target.accelerator)
    with shipment.archive(flags.allow_dirty) as (path, tree, commit):
        # 8476 is the port that the firewall of a queued resource opens (jax-ml/jax#35905)
        keeps_disks = target.accelerator.hosts == 1 and not target.spot
        arguments = _training(flags, target.accelerator, tree, "auto:8476", keeps_disks)
        job = _job(flags, target)
        if (found := job.gcloud.look(target)).state == MISSING:
            raise UserError(f"there is no {target.name} in {target.zone}; `create` asks for it")
        target.check_like(found)
        try:
            return bring_to_end(job, path, script(commit, environment, arguments))
        except KeyboardInterrupt:
            if job.started:
                print(f"\nthe job on {target.name} goes on; `run` follows it, `stop` saves and ends it")
            else:
                print(f"\n{target.name} stays as it is; `run` goes on from there, `delete` removes it")
            return 130


def _environment(flags: cli.Flags, slice_: Accelerator) -> dict[str, str]:
    """Of the training processes. Kept in the bucket, what was compiled is there for a slice that is made anew."""
    cache = {"SCALING_CACHE": f"{flags.workdir.rstrip('/')}/cache"} if in_bucket(flags.workdir) else {}
    return {"LIBTPU_INIT_ARGS": slice_.chip.init_args, **cache}


def _training(flags: cli.Flags, slice_: Accelerator, tree: str, coordinator: str, keeps_disks: bool) -> list[str]:
    """Arguments of python on every worker, checked."""
    values = shipment.parse(flags.config)
    overrides = config_flags.get_override_values(flags["config"])
    shipment.check(values, slice_.chips, flags.workdir, keeps_disks, overrides)
    config = shipment.shipped_path(config_flags.get_config_filename(flags["config"]), tree)
    where = {"workdir": flags.workdir, "coordinator": coordinator, "timeout": flags.timeout}
    return shipment.arguments(config, overrides, **where)


def _status(flags: cli.Flags) -> None:
    target = _slice(flags)
    job = _job(flags, target)
    found = job.gcloud.look(target)
    print(f"{target.name} is {found}")
    if found.state == READY:
        states = ", ".join(job.states()).replace("_stopped", " after `stop`")
        print(f"job on its workers: {states or 'no worker answers'}")


def _logs(flags: cli.Flags) -> None:
    if not flags.worker.isdigit():
        raise UserError(f"--worker={flags.worker} is not the number of a worker")
    job = _there(flags, _slice(flags))
    state = job.states(flags.worker)
    if not (state or job.gcloud.dry):
        raise UserError(f"worker {flags.worker} of {job.target.name} does not answer; `status` tells who does")
    if state == ["none"]:
        raise UserError(f"no job was started on worker {flags.worker} of {job.target.name}; `run` starts one")
    job.gcloud.run(job.log("+1", flags.worker))


def _stop(flags: cli.Flags) -> None:
    _there(flags, _slice(flags)).stop()


def _delete(flags: cli.Flags) -> None:
    target = _slice(flags)
    if not (flags.yes or flags.dry_run):
        raise UserError(f"this removes {target.name} with its disks and whatever runs there; give --yes")
    gcloud = _job(flags, target).gcloud
    if gcloud.state(target) == MISSING:
        print(f"there is no {target.name} in {target.zone}")
        return
    gcloud.run(target.delete())


def _manifest(flags: cli.Flags) -> None:
    wanted = accelerator(flags.accelerator)
    target = SliceRequest(flags.name, "us-central1-a", "", wanted, spot=flags.spot)  # a JobSet has no zone
    target.check()
    if not flags.image:
        raise UserError("give --image=IMAGE, a container image with this repository and its environment")
    of_the_pool = ("zone", "project", "runtime_version", "reserved", "internal_ips", "allow_dirty")
    for flag in (*of_the_pool, *(name.replace("-", "_") for name in EXTRAS)):
        if flags[flag].present:
            raise UserError(f"--{flag} is not of a JobSet but of its node pool or image; leave it out")
    command = ["python", "-u", *_training(flags, wanted, "HEAD", "auto", keeps_disks=False)]
    print(manifest(target.name, wanted, flags.image, _environment(flags, wanted), command, target.spot), end="")


VERBS: dict[str, Callable[[cli.Flags], int | None]] = {
    "create": _create,
    "setup": _setup,
    "run": _run,
    "status": _status,
    "logs": _logs,
    "stop": _stop,
    "delete": _delete,
    "manifest": _manifest,
}

if __name__ == "__main__":
    cli.run(main)
