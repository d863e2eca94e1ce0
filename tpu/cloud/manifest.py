"""A training job as a GKE JobSet.

Fields: "JobSet API v1alpha2" of the Kubernetes SIGs, "Pod failure policy" of Kubernetes, "Deploy TPU workloads in GKE
Standard" and "About Ironwood (TPU7x) in GKE" of Google Cloud, and Kueue's "Run a JobSet". GKE tells the pods of a
slice about each other, which is what --coordinator=auto reads.
"""

import dataclasses
import re
from typing import Any

import yaml

from scaling.core.errors import UserError
from tpu.flags import Accelerator

_SPOT = "cloud.google.com/gke-spot"
AGAIN = (75, 137, 143)  # a lost, killed or stopped host; any other code of a container ends the whole job
KEPT = 12 * 3600  # seconds that a finished JobSet remains visible
_LONGEST = 63  # longest name of a pod, in characters

# DMA needs locked memory: libtpu does not start under the default limit of a container.
_UNLIMITED = ["bash", "-c", 'ulimit -l unlimited; exec "$@"', "train"]


@dataclasses.dataclass(frozen=True)
class Pods:
    """Options for the pods of a JobSet.

    Attributes:
      spot: whether to use spot nodes, whose pods have 15 seconds to end.
      restarts: restarts of the whole JobSet after evictions and lost hosts before it fails.
      chips: chips per node, if a slice of 8 chips can have two machines of four; 0 for one machine.
      account: Kubernetes service account, which reaches the bucket by Workload Identity; empty for the default.
      queue: name of the Kueue queue; empty for none.
      policy: workload policy of the node pool, which TPU7x pools of several machines have; empty for any.
    """

    spot: bool = False
    restarts: int = 5
    chips: int = 0
    account: str = ""
    queue: str = ""
    policy: str = ""


def check(name: str, slice_: Accelerator, image: str, pods: Pods) -> None:
    """Raises a UserError for what JobSet or Kubernetes would refuse."""
    sizes = sorted({slice_.chips // slice_.hosts, 4} if slice_.chips >= 4 else {slice_.chips})
    if pods.chips and pods.chips not in sizes:
        raise UserError(
            f"--node_chips={pods.chips}: nodes of {slice_.name} have {' or '.join(map(str, sizes))}; give one"
        )
    if not re.fullmatch(r"[^\s]+", image):
        raise UserError(f"--image={image}: must be a container image, without spaces; give its name")
    longest = len(f"-slice-0-{_hosts(slice_, pods) - 1}-xxxxx")
    if len(name) > _LONGEST - longest:
        raise UserError(
            f"--name={name}: is too long; the names of the pods of {slice_.name} leave it {_LONGEST - longest} "
            "characters; shorten it"
        )
    names = {"pod_account": (pods.account, 253), "queue": (pods.queue, 63), "placement_policy": (pods.policy, 63)}
    for flag, (value, most) in names.items():
        if value and (len(value) > most or not re.fullmatch(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?", value)):
            raise UserError(
                f"--{flag}={value}: must be a Kubernetes name (RFC 1123) of at most {most} characters; give another"
            )
    if pods.policy and (slice_.chip.runtime or slice_.hosts == 1):
        raise UserError(
            f"--placement_policy={pods.policy}: only node pools of several TPU7x machines have one; leave it out"
        )


def manifest(
    name: str, slice_: Accelerator, image: str, environment: dict[str, str], command: list[str], pods: Pods
) -> str:
    """The YAML of a JobSet with one pod for each host of a slice.

    If a pod is evicted or loses another, all pods restart, and training resumes from its newest checkpoint; any other
    exit code fails the JobSet.

    Args:
      name: name of the JobSet.
      slice_: the slice it runs on.
      image: container image with this repository in its working directory, and its environment.
      environment: environment variables of every pod.
      command: command of every pod.
      pods: see `Pods`.
    """
    check(name, slice_, image, pods)
    container = {
        "name": "train",
        "image": image,
        "command": [*_UNLIMITED, *command],
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "ports": [{"containerPort": 8471}, {"containerPort": 8482}],
        "resources": {"limits": {"google.com/tpu": slice_.chips // _hosts(slice_, pods)}},
        "securityContext": {"privileged": True},  # the driver's devices, and the limit above
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
    }
    given_up = {"name": "final", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    job = _job(_hosts(slice_, pods), _pod(slice_, container, pods))
    template = {"name": "slice", "replicas": 1, "template": {"spec": job}}
    labels = {"labels": {"kueue.x-k8s.io/queue-name": pods.queue}} if pods.queue else {}
    jobset = {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": name,
            **labels,
            "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"},
        },
        "spec": {
            "failurePolicy": {"maxRestarts": pods.restarts, "rules": [given_up]},
            "ttlSecondsAfterFinished": KEPT,
            "replicatedJobs": [template],
        },
    }
    return yaml.safe_dump(jobset, sort_keys=False, width=120)


def _hosts(slice_: Accelerator, pods: Pods) -> int:
    return slice_.chips // pods.chips if pods.chips else slice_.hosts


def _job(hosts: int, pod: dict[str, Any]) -> dict[str, Any]:
    """One pod per host. Rules in order: an eviction restarts all pods, as do the codes of AGAIN; other codes end
    the job.
    """
    evicted = {"onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    final = {"onExitCodes": {"containerName": "train", "operator": "NotIn", "values": list(AGAIN)}}
    return {
        "parallelism": hosts,
        "completions": hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": [{"action": "Count", **evicted}, {"action": "FailJob", **final}]},
        "template": {"spec": pod},
    }


def _pod(slice_: Accelerator, container: dict[str, Any], pods: Pods) -> dict[str, Any]:
    """A pod on nodes of the slice's kind and topology."""
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 30 if pods.spot else 600,  # time to save after SIGTERM
        "shareProcessNamespace": True,  # the first process of a namespace ignores SIGTERM until it has a handler
        "nodeSelector": {
            "cloud.google.com/gke-tpu-accelerator": slice_.chip.gke,
            "cloud.google.com/gke-tpu-topology": slice_.topology,
        },
        "containers": [container],
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}],  # otherwise 64 MB, too little for data workers
    }
    if pods.chips:
        pod["nodeSelector"]["cloud.google.com/gke-accelerator-count"] = str(pods.chips)
    if pods.policy:
        pod["nodeSelector"]["cloud.google.com/placement-policy-name"] = pods.policy
    if pods.account:
        pod["serviceAccountName"] = pods.account
    if pods.spot:
        pod["nodeSelector"][_SPOT] = "true"
        pod["tolerations"] = [{"key": _SPOT, "operator": "Equal", "value": "true", "effect": "NoSchedule"}]
    return pod
