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

from absl import flags
from ml_collections import config_flags

from scaling import cli
from scaling.errors import UserError
from tpu import shipment
from tpu.flags import Accelerator, accelerator
from tpu.gcloud import EXTRAS, FAILED, MISSING, PREEMPTED, READY, Gcloud, Slice
from tpu.job import Job, bring_to_end, script
from tpu.manifest import manifest

_NAME = flags.DEFINE_string("name", "", "Name of the queued resource and of its node.")
_ZONE = flags.DEFINE_string("zone", "", "Zone, like us-central1-a.")
_PROJECT = flags.DEFINE_string("project", "", "Project ID; gcloud's own default if empty.")
_ACCELERATOR = flags.DEFINE_string("accelerator", "", "Accelerator type: v4-N, v5litepod-N, v5p-N or v6e-N.")
_RUNTIME = flags.DEFINE_string("runtime_version", "", "TPU software version; by default that of the generation.")
_SPOT = flags.DEFINE_bool("spot", False, "Spot capacity, which can be preempted; on demand otherwise.")
_RESERVED = flags.DEFINE_bool("reserved", False, "Capacity of a reservation of the project.")
_INTERNAL = flags.DEFINE_bool("internal_ips", False, "No external addresses; for all commands, run inside the network.")
_EXTRAS = {
    name: flags.DEFINE_string(name.replace("-", "_"), "", f"The {name.replace('-', ' ')} of the slice, as in gcloud.")
    for name in EXTRAS
}
_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, by path or by bare name.")
_WORKDIR = flags.DEFINE_string("workdir", "", "Where the run is kept: gs://BUCKET/...")
_TIMEOUT = flags.DEFINE_integer("timeout", 900, "Seconds that the hosts wait for each other.", lower_bound=1)
_DIRTY = flags.DEFINE_bool("allow_dirty", False, "Ship the working tree as it is, not the current commit.")
_WORKER = flags.DEFINE_string("worker", "0", "Worker whose output `logs` shows.")
_IMAGE = flags.DEFINE_string("image", "", "Container image with this code and its environment, for `manifest`.")
_YES = flags.DEFINE_bool("yes", False, "Really delete.")
_POLL = flags.DEFINE_float("poll", 30, "Seconds between two looks at the state.", lower_bound=0)
_DRY = flags.DEFINE_bool("dry_run", False, "Print the commands, run none.")
for _name in (
    "runtime_version",
    "allow_dirty",
    "dry_run",
    "internal_ips",
    "service_account",
):  # as gcloud writes them, too
    flags.DEFINE_alias(_name.replace("_", "-"), _name)


def main(argv: list[str]) -> int:
    if len(argv) != 2 or argv[1] not in VERBS:
        raise UserError(
            f"give one of {', '.join(VERBS)}, not {' '.join(argv[1:]) or 'nothing'}; flags are --flag=value"
        )
    return VERBS[argv[1]]() or 0


def _slice(sized: bool = False) -> Slice:
    wanted = accelerator(_ACCELERATOR.value) if sized or _ACCELERATOR.value else None
    capacity = {"spot": _SPOT.value, "reserved": _RESERVED.value, "internal": _INTERNAL.value}
    extras = tuple((name, flag.value) for name, flag in _EXTRAS.items() if flag.value)
    target = Slice(_NAME.value, _ZONE.value, _PROJECT.value, wanted, _RUNTIME.value, **capacity, extras=extras)
    target.check()
    return target


def _job(target: Slice) -> Job:
    return Job(target, Gcloud(_DRY.value, _POLL.value))


def _there(target: Slice) -> Job:
    """A job on a slice that is granted, which is the size that it was created with."""
    job = _job(target)
    found = job.gcloud.look(target)
    if found.state != READY:
        raise UserError(f"{target.name} in {target.zone} is {found}; `create` asks for it and waits")
    if target.accelerator is None and found.accelerator:
        job.target = dataclasses.replace(target, accelerator=accelerator(found.accelerator))
    return job


def _create() -> None:
    target = _slice(sized=True)
    gcloud = _job(target).gcloud
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


def _setup() -> None:
    target = _slice()
    with shipment.archive(_DIRTY.value) as (path, *_):
        job = _there(target)
        if "running" in job.survey():
            raise UserError(f"a job is running on {target.name}; `stop` it first")
        job.setup(path)


def _run() -> int:
    target = _slice(sized=True)
    assert target.accelerator is not None
    environment = _environment(target.accelerator)
    with shipment.archive(_DIRTY.value) as (path, tree, commit):
        # 8476 is the port that the firewall of a queued resource opens (jax-ml/jax#35905)
        keeps_disks = target.accelerator.hosts == 1 and not target.spot
        arguments = _training(target.accelerator, tree, "auto:8476", keeps_disks)
        job = _job(target)
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


def _environment(slice_: Accelerator) -> dict[str, str]:
    """Of the training processes. Kept in the bucket, what was compiled is there for a slice that is made anew."""
    cache = {"SCALING_CACHE": f"{_WORKDIR.value.rstrip('/')}/cache"} if "://" in _WORKDIR.value else {}
    return {"LIBTPU_INIT_ARGS": slice_.chip.init_args, **cache}


def _training(slice_: Accelerator, tree: str, coordinator: str, keeps_disks: bool) -> list[str]:
    """Arguments of python on every worker, checked."""
    values = shipment.parse(_CONFIG.value)
    overrides = config_flags.get_override_values(flags.FLAGS["config"])
    shipment.check(values, slice_.chips, _WORKDIR.value, keeps_disks, overrides)
    config = shipment.shipped_path(config_flags.get_config_filename(flags.FLAGS["config"]), tree)
    where = {"workdir": _WORKDIR.value, "coordinator": coordinator, "timeout": _TIMEOUT.value}
    return shipment.arguments(config, overrides, **where)


def _status() -> None:
    target = _slice()
    job = _job(target)
    found = job.gcloud.look(target)
    print(f"{target.name} is {found}")
    if found.state == READY:
        states = ", ".join(job.states()).replace("_stopped", " after `stop`")
        print(f"job on its workers: {states or 'no worker answers'}")


def _logs() -> None:
    if not _WORKER.value.isdigit():
        raise UserError(f"--worker={_WORKER.value} is not the number of a worker")
    job = _there(_slice())
    state = job.states(_WORKER.value)
    if not (state or job.gcloud.dry):
        raise UserError(f"worker {_WORKER.value} of {job.target.name} does not answer; `status` tells who does")
    if state == ["none"]:
        raise UserError(f"no job was started on worker {_WORKER.value} of {job.target.name}; `run` starts one")
    job.gcloud.run(job.log("+1", _WORKER.value))


def _stop() -> None:
    _there(_slice()).stop()


def _delete() -> None:
    target = _slice()
    if not (_YES.value or _DRY.value):
        raise UserError(f"this removes {target.name} with its disks and whatever runs there; give --yes")
    gcloud = _job(target).gcloud
    if gcloud.state(target) == MISSING:
        print(f"there is no {target.name} in {target.zone}")
        return
    gcloud.run(target.delete())


def _manifest() -> None:
    wanted = accelerator(_ACCELERATOR.value)
    target = Slice(_NAME.value, "us-central1-a", "", wanted, spot=_SPOT.value)  # a JobSet has no zone
    target.check()
    if not _IMAGE.value:
        raise UserError("give --image=IMAGE, a container image with this repository and its environment")
    of_the_pool = ("zone", "project", "runtime_version", "reserved", "internal_ips", "allow_dirty")
    for flag in (*of_the_pool, *(name.replace("-", "_") for name in EXTRAS)):
        if flags.FLAGS[flag].present:
            raise UserError(f"--{flag} is not of a JobSet but of its node pool or image; leave it out")
    command = ["python", "-u", *_training(wanted, "HEAD", "auto", keeps_disks=False)]
    print(manifest(target.name, wanted, _IMAGE.value, _environment(wanted), command, target.spot), end="")


VERBS: dict[str, Callable[[], int | None]] = {
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
    cli.run(main, words=True)
