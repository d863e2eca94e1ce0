"""A training job as a GKE JobSet.

Fields: "JobSet API v1alpha2" of the Kubernetes SIGs, "Pod failure policy" of Kubernetes, and "Deploy TPU workloads in
GKE Standard" of Google Cloud. GKE tells the pods of a slice about each other, which is what --coordinator=auto reads.
"""

from typing import Any

import yaml

from tpu.cloud.life import FINAL
from tpu.flags import Accelerator

_SPOT = "cloud.google.com/gke-spot"


def manifest(
    name: str, slice_: Accelerator, image: str, environment: dict[str, str], command: list[str], spot: bool
) -> str:
    """The YAML of a JobSet with one pod for each host of a slice.

    A pod that fails or is preempted makes all of them start again, and training goes on from its newest checkpoint;
    exit codes that starting again cannot mend fail the whole.

    Args:
      name: name of the JobSet.
      slice_: the slice; there must be a node pool of its kind and topology.
      image: container image that holds this repository in its working directory, and its environment.
      environment: variables of every pod.
      command: what every pod runs.
      spot: whether to take spot nodes.
    """
    container = {
        "name": "train",
        "image": image,
        "command": command,
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "ports": [{"containerPort": 8471}, {"containerPort": 8482}],
        "resources": {"limits": {"google.com/tpu": slice_.chips // slice_.hosts}},
    }
    given_up = {"name": "final", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    pods = {"name": "slice", "replicas": 1, "template": {"spec": _job(slice_.hosts, _pod(slice_, container, spot))}}
    jobset = {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": name,
            "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"},
        },
        "spec": {"failurePolicy": {"maxRestarts": 100, "rules": [given_up]}, "replicatedJobs": [pods]},
    }
    return yaml.safe_dump(jobset, sort_keys=False, width=120)


def _job(hosts: int, pod: dict[str, Any]) -> dict[str, Any]:
    """One pod a host; one that fails with a final code ends them all, another code makes all of them start again."""
    final = {"onExitCodes": {"containerName": "train", "operator": "In", "values": list(FINAL)}}
    return {
        "parallelism": hosts,
        "completions": hosts,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": [{"action": "FailJob", **final}]},
        "template": {"spec": pod},
    }


def _pod(slice_: Accelerator, container: dict[str, Any], spot: bool) -> dict[str, Any]:
    """On nodes of the slice's kind and topology."""
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 600,  # to save after SIGTERM
        "nodeSelector": {
            "cloud.google.com/gke-tpu-accelerator": slice_.chip.gke,
            "cloud.google.com/gke-tpu-topology": slice_.topology,
        },
        "containers": [container],
    }
    if spot:
        pod["nodeSelector"][_SPOT] = "true"
        pod["tolerations"] = [{"key": _SPOT, "operator": "Equal", "value": "true", "effect": "NoSchedule"}]
    return pod
