"""Training on Cloud TPU: a slice, its environment and the job on it, through gcloud.

    python -m tpu.launch create|setup|run|status|logs|stop|delete --name=NAME --zone=ZONE [--project=ID] [--dry-run]
    python -m tpu.launch run --name=NAME --zone=ZONE --accelerator=v5litepod-256 [--spot|--reserved] \\
        --config=vit_h.py --workdir=gs://BUCKET/runs/vit_h [--config.path.to.field=value ...]
    python -m tpu.launch bundle --bundle=gs://BUCKET/bundles
    python -m tpu.launch list --zone=ZONE [--price=USD_PER_CHIP_HOUR]
    python -m tpu.launch manifest --name=NAME --accelerator=v5litepod-256 --image=IMAGE --config=... --workdir=...

create   requests the slice and waits until it is granted; if it already exists, says so
setup    ships the code of the current commit to all workers and creates its environment there
run      creates the slice if it is missing, sets it up, starts training on all workers, and shows the output of worker
         0 until it ends. A slice that is preempted or fails is re-created (in another of --zones if its zone has no
         capacity), and training resumes from the newest checkpoint. The same command, given again, follows the running
         job. Give it the flags that `create` was given. --delete_when=done|end|never, --max_hours and --max_cost decide
         when the slice is deleted; worker 0 deletes it if this machine is no longer running `run`. --babysit prints how
         to run `run` on a small machine of the cloud
status   shows the state of the slice and of the job on each worker, and age, cost, step, loss and time left
list     shows all slices of a zone (and of --zones), with age, cost, step, loss and time left
logs     shows the output of worker 0, or of --worker=K
stop     sends SIGTERM: all hosts save the same step and exit; `run` resumes from it
delete   removes the slice; needs --yes
bundle   puts all that workers install into --bundle=gs://BUCKET/PATH, for `run` and `setup` with the same flag
manifest prints a GKE JobSet that runs the same job

--dry-run prints the exact commands without running them. `run` exits with the code of the job.
"""

import shlex
import signal
from collections.abc import Callable

from ml_collections import config_flags

from scaling import cli
from scaling.core.errors import UserError
from scaling.core.files import in_bucket
from scaling.training import profiling
from scaling.training.stored_config import run_kind
from tpu.cloud import babysit, bundle, manage, options, shipment, worker
from tpu.cloud.capacity import Capacity, with_project
from tpu.cloud.found import FAILED, MISSING, PREEMPTED, READY
from tpu.cloud.gcloud import say
from tpu.cloud.life import Run, told_to_end
from tpu.cloud.manifest import Pods, manifest
from tpu.cloud.options import job_on, slice_of
from tpu.cloud.paid import how_to_delete, stays
from tpu.cloud.policy import Policy
from tpu.cloud.slices import SliceRequest
from tpu.flags import Accelerator, accelerator


def define_flags(define: cli.Define) -> None:
    options.define_slice(define)
    options.define_life(define)
    define.config(run_kind)
    define.string("workdir", "", "Working directory of the run: gs://BUCKET/...")
    define.integer("timeout", 900, "Seconds that the hosts wait for each other.", lower_bound=1)
    define.string("profile", "", "Steps that worker 0 traces for TensorBoard and XProf, as 100:110.")
    define.string("bundle", "", "Where `bundle` put what the workers install: gs://BUCKET/PATH; by default an index.")
    define.bool("allow_dirty", False, "Ship the working tree as it is, not the current commit.")
    define.bool("local_data", False, "Accept data in a folder that every worker has, such as a mounted bucket.")
    define.bool("babysit", False, "Print the commands that run this on a small machine of the cloud, and exit.")
    define.string("worker", "0", "Worker whose output `logs` prints.")
    define.string("image", "", "Container image with this code and its environment, for `manifest`.")
    define.integer("max_restarts", 5, "Restarts of a JobSet before it fails.", lower_bound=0)
    define.integer("node_chips", 0, "Chips per node: 4 for slices of 8 on two nodes.", lower_bound=0)
    define.string("pod_account", "", "Kubernetes service account of the pods, with access to the bucket.")
    define.string("queue", "", "Kueue queue of the JobSet.")
    define.string("placement_policy", "", "Workload policy of a TPU7x node pool with several machines.")
    define.bool("yes", False, "Really delete; without it `delete` is refused.")
    define.float("poll", 30, "Seconds between two queries of the state.", lower_bound=0)
    define.bool("dry_run", False, "Print the commands without running them.")
    for name in options.AS_GCLOUD:
        define.alias(name.replace("_", "-"), name)  # gcloud's spelling


@cli.command(define_flags, words=True)
def main(argv: list[str], flags: cli.Flags) -> int:
    if len(argv) != 2 or argv[1] not in VERBS:
        raise UserError(
            f"give one of {', '.join(VERBS)}, not {' '.join(argv[1:]) or 'nothing'}; flags are --flag=value"
        )
    options.check_taken(flags, argv[1])
    return VERBS[argv[1]](flags) or 0


def _create(flags: cli.Flags) -> int:
    target = slice_of(flags, sized=True)
    gcloud = options.gcloud_of(flags, there=False)
    found = gcloud.look(target)
    if found.state == PREEMPTED:
        raise UserError(f"--name={target.name}: is {found}; `delete` it first, or give `run`, which creates it again")
    if found.state == FAILED:
        raise UserError(f"--name={target.name}: is {found}; mend that, and `delete` it first")
    options.warn_of_firewall(gcloud, target)
    if found.state != MISSING:
        target.check_like(found)
        print(f"{target.name} is there already")
    try:
        with told_to_end():
            if found.state == MISSING:
                gcloud.run(target.create())
            found = gcloud.wait(target)
    except KeyboardInterrupt as e:
        how = how_to_delete(target)
        say(f"\n{target.name} may have been requested, and is paid for once it is granted; {how} removes it")
        return 128 + (e.args[0] if e.args else signal.SIGINT)
    if found.state != READY:
        raise UserError(f"--name={target.name}: is {found}; mend that, `delete` it and `create` it again")
    if not gcloud.dry:
        print(f"{target.name} is {found.state}")
    return 0


def _bundle(flags: cli.Flags) -> None:
    bundle.make(options.gcloud_of(flags), flags.bundle)


def _setup(flags: cli.Flags) -> None:
    target = slice_of(flags)
    if in_bucket(flags.workdir):
        shipment.check_workdir(flags.workdir)
    bundle.place(flags.bundle)
    with shipment.archive(flags.allow_dirty) as (path, _, commit):
        job = manage.there(flags, target)
        if "running" in job.survey().values():
            raise UserError(f"--name={target.name}: a job is running there; `stop` it first")
        job.source = options.source_of(flags, job.gcloud, path, commit)
        job.setup(path)


def _run(flags: cli.Flags) -> int:
    target = slice_of(flags, sized=True)
    assert target.accelerator is not None
    policy, places = options.policy_of(flags, target), options.places_of(flags, target)
    if flags.babysit and flags.allow_dirty:
        raise UserError("--allow_dirty: is not for --babysit, whose machine clones a commit; commit and leave it out")
    bundle.place(flags.bundle)
    environment = _environment(flags, target.accelerator)
    with shipment.archive(flags.allow_dirty) as (path, tree, commit):
        keeps_disks = target.accelerator.hosts == 1 and not target.spot
        arguments = _training(flags, target.accelerator, tree, f"auto:{options.PORT}", keeps_disks)
        if flags.babysit:
            given = [*options.given(flags, "run"), *(x for x in arguments if x.startswith("--config"))]
            print("\n".join(babysit.commands(target, commit, given)))
            return 0

        def script(place: SliceRequest) -> str:
            return worker.script(commit, environment, arguments, _keeper(flags, policy, place))

        places = with_project(options.gcloud_of(flags), places)
        job = job_on(flags, places[0], there=False)
        capacity = Capacity(job, places, flags.wait_minutes)
        options.warn_of_distance(
            job.gcloud, [flags.workdir, flags.bundle, shipment.parse(flags.config).data.source], places
        )
        options.warn_of_firewall(job.gcloud, places[0])
        if (found := capacity.find()).state != MISSING:
            job.target.check_like(found)
        try:
            job.source = options.source_of(flags, job.gcloud, path, commit)
        except UserError:
            if found.state != MISSING:
                say(stays(job.target))
            raise
        say(_promise(policy, flags))
        try:
            with told_to_end():
                return Run(job, capacity, policy).to_its_end(path, script, create=True)
        except KeyboardInterrupt as e:
            if job.started and not job.ended:
                say(f"\nthe job on {target.name} continues; `run` follows it, `stop` saves and ends it")
            else:
                how = how_to_delete(job.target)
                say(f"\n{target.name} stays as it is; `run` resumes from there, {how} removes it")
            return 128 + (e.args[0] if e.args else signal.SIGINT)


def _keeper(flags: cli.Flags, policy: Policy, place: SliceRequest) -> list[str]:
    """Arguments of `tpu.cloud.keep` on every worker."""
    logs = [f"--logs={flags.workdir.rstrip('/')}/logs"] if in_bucket(flags.workdir) else []
    return [*logs, f"--delete-when={policy.delete_when}", f"--delete={shlex.join(place.delete(wait=False))}"]


def _promise(policy: Policy, flags: cli.Flags) -> str:
    when = {"done": "when it has succeeded", "end": "when it has ended", "never": "by nobody but `delete`"}
    both = flags.max_cost and flags.allow_on_demand
    price = f" (if {flags.price:g} USD is the price on demand)" if both else ""
    hours = f"; it may take {policy.max_hours:,.1f} hours{price}; once the job has started, it is deleted then anyway"
    limit = hours if policy.max_hours else ""
    return f"the slice is deleted {when[policy.delete_when]} (--delete_when={policy.delete_when}){limit}"


def _environment(flags: cli.Flags, slice_: Accelerator) -> dict[str, str]:
    """Environment of the training processes. The cache of compiled programs is in the bucket, for slices that are
    created again.
    """
    cache = {"SCALING_CACHE": f"{flags.workdir.rstrip('/')}/cache"} if in_bucket(flags.workdir) else {}
    plain = {
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"
    }  # gcsfs would otherwise query the kind of each bucket over gRPC
    return {"LIBTPU_INIT_ARGS": slice_.chip.init_args, **plain, **cache}


def _training(flags: cli.Flags, slice_: Accelerator, tree: str, coordinator: str, keeps_disks: bool) -> list[str]:
    """Checked arguments of python on every worker."""
    values = shipment.parse(flags.config)
    overrides = config_flags.get_override_values(flags["config"])
    shipment.check(values, slice_.devices, flags.workdir, keeps_disks, overrides, flags.local_data)
    overrides = {"data.threads": 0, **overrides}  # 0: one per core of a worker
    config = shipment.shipped_path(config_flags.get_config_filename(flags["config"]), tree)
    where = {"workdir": flags.workdir, "coordinator": coordinator, "timeout": flags.timeout}
    if flags.profile:
        profiling.parsed(flags.profile, values.steps)
        where["profile"] = flags.profile
    return shipment.arguments(config, overrides, **where)


def _manifest(flags: cli.Flags) -> None:
    wanted = accelerator(flags.accelerator)
    target = SliceRequest(flags.name, "us-central1-a", "", wanted, spot=flags.spot)  # a JobSet has no zone
    target.check()
    if not flags.image:
        raise UserError(
            "--image: is missing; give --image=IMAGE, a container image with this repository and its environment"
        )
    command = ["python", "-u", *_training(flags, wanted, "HEAD", "auto", keeps_disks=False)]
    pods = Pods(
        target.spot, flags.max_restarts, flags.node_chips, flags.pod_account, flags.queue, flags.placement_policy
    )
    print(manifest(target.name, wanted, flags.image, _environment(flags, wanted), command, pods), end="")


VERBS: dict[str, Callable[[cli.Flags], int | None]] = {
    "create": _create,
    "setup": _setup,
    "run": _run,
    "status": manage.status,
    "list": manage.listing,
    "logs": manage.logs,
    "stop": manage.stop,
    "delete": manage.delete,
    "bundle": _bundle,
    "manifest": _manifest,
}

if __name__ == "__main__":
    cli.run(main)
