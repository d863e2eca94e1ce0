"""The GKE manifest, read back from its YAML."""

import json
import re
import subprocess

import pytest
import yaml

from scaling.core.errors import UserError
from tests.commands import ROOT
from tpu.cloud.manifest import Pods, manifest
from tpu.flags import accelerator

COMMAND = ["python", "-u", "-m", "scaling.train", '--config.data.source=arrayrecord:gs://b/it\'s: {a} # "name"']


IMAGE = "europe-docker.pkg.dev/p/r/image:1"
VARIABLES = {"LIBTPU_INIT_ARGS": "--a=b --c=d", "SCALING_CACHE": "gs://b/it's/cache"}


def read(name="v5litepod-256", jobset="vit", **pods):
    return yaml.safe_load(manifest(jobset, accelerator(name), IMAGE, VARIABLES, COMMAND, Pods(**pods)))


def pod_of(jobset):
    (replicated,) = jobset["spec"]["replicatedJobs"]
    assert replicated["replicas"] == 1
    return replicated["template"]["spec"]["template"]["spec"]


def test_it_is_a_jobset_of_that_name():
    jobset = read()
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert jobset["metadata"]["name"] == "vit"
    assert set(jobset) == {"apiVersion", "kind", "metadata", "spec"}


@pytest.mark.parametrize(
    ("name", "pods", "chips", "pool", "topology"),
    [
        ("v5litepod-256", 64, 4, "tpu-v5-lite-podslice", "16x16"),
        ("v5litepod-8", 1, 8, "tpu-v5-lite-podslice", "2x4"),
        ("v5p-256", 32, 4, "tpu-v5p-slice", "4x4x8"),
        ("v4-64", 8, 4, "tpu-v4-podslice", "2x4x4"),
        ("v6e-1", 1, 1, "tpu-v6e-slice", "1x1"),
        ("tpu7x-8", 1, 4, "tpu7x", "2x2x1"),
        ("tpu7x-128", 16, 4, "tpu7x", "4x4x4"),
    ],
)
def test_one_pod_a_host_takes_all_its_chips(name, pods, chips, pool, topology):
    jobset = read(name)
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert (job["parallelism"], job["completions"], job["completionMode"]) == (pods, pods, "Indexed")
    assert pod_of(jobset)["containers"][0]["resources"]["limits"] == {"google.com/tpu": chips}
    assert pod_of(jobset)["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": pool,
        "cloud.google.com/gke-tpu-topology": topology,
    }


def test_the_command_and_its_variables_come_back_as_they_were():
    (container,) = pod_of(read())["containers"]
    assert container["command"][-len(COMMAND) :] == COMMAND
    assert {entry["name"]: entry["value"] for entry in container["env"]} == VARIABLES


def test_what_happens_after_each_kind_of_end():
    jobset = read(restarts=3)
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["backoffLimit"] == 0
    assert pod_of(jobset)["restartPolicy"] == "Never"
    evicted, final = job["podFailurePolicy"]["rules"]  # in this order: an evicted pod has a code too
    assert evicted == {"action": "Count", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert final["action"] == "FailJob"
    codes = {"containerName": "train", "operator": "NotIn", "values": [75, 137, 143]}
    assert final["onExitCodes"] == codes  # 1, a bug, ends it: it was started a hundred times on a whole slice
    policy = jobset["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 3
    assert [(r["action"], r["onJobFailureReasons"]) for r in policy["rules"]] == [("FailJobSet", ["PodFailurePolicy"])]


def test_libtpu_can_start_and_python_can_save():
    pod = pod_of(read())
    (container,) = pod["containers"]
    assert container["securityContext"] == {"privileged": True}
    assert container["command"][:3] == ["bash", "-c", 'ulimit -l unlimited; exec "$@"']
    assert container["volumeMounts"] == [{"name": "shm", "mountPath": "/dev/shm"}]
    assert pod["volumes"] == [{"name": "shm", "emptyDir": {"medium": "Memory"}}]
    assert pod["shareProcessNamespace"]
    assert pod["terminationGracePeriodSeconds"] == 600
    assert pod_of(read(spot=True))["terminationGracePeriodSeconds"] == 30  # of which a spot node grants 15
    done = subprocess.run([*container["command"][:4], "sh", "-c", "echo $0 $1", "a b"], capture_output=True, text=True)
    assert done.stdout == "a b\n"


def test_the_two_machines_of_a_2x4_slice():
    job = read("v6e-8", chips=4)["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    assert (job["parallelism"], pod["containers"][0]["resources"]["limits"]) == (2, {"google.com/tpu": 4})
    assert pod["nodeSelector"]["cloud.google.com/gke-accelerator-count"] == "4"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"jobset": "a" * 47}, "is too long; the names of the pods of v5litepod-256 leave it 46 characters"),
        ({"account": "me@project"}, "--pod_account=me@project: must be a Kubernetes name"),
        ({"chips": 3}, "--node_chips=3: nodes of v5litepod-256 have 4"),
        ({"chips": 4, "name": "v5litepod-1"}, "--node_chips=4: nodes of v5litepod-1 have 1; give one"),
        ({"policy": "p"}, "--placement_policy=p: only node pools of several TPU7x machines have one"),
        ({"name": "tpu7x-8", "policy": "p"}, "--placement_policy=p: only node pools of several TPU7x machines"),
        ({"name": "tpu7x-128", "policy": "P"}, "--placement_policy=P: must be a Kubernetes name"),
    ],
)
def test_what_kubernetes_would_refuse_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        read(**fields)


def problems(value, schema, where=""):
    """Violations of a structural OpenAPI schema of Kubernetes by a value; unknown fields too."""
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int}
    if schema.get("x-kubernetes-int-or-string"):
        return [] if isinstance(value, int | str) else [f"{where}: neither integer nor string"]
    kind = kinds.get(schema.get("type"), object)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        return [f"{where}: {value!r} is not of type {schema['type']}"]
    found = [f"{where}: {value!r} is not one of {schema['enum']}"] if value not in schema.get("enum", [value]) else []
    if isinstance(value, list):
        return found + [p for i, x in enumerate(value) for p in problems(x, schema["items"], f"{where}[{i}]")]
    if not isinstance(value, dict):
        return found
    found += [f"{where}: lacks {name}" for name in schema.get("required", ()) if name not in value]
    for name, x in value.items():
        of = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
        open_ = schema.get("x-kubernetes-preserve-unknown-fields") or (
            schema.get("type") == "object" and len(schema) == 1
        )
        found += problems(x, of, f"{where}.{name}") if of else [] if open_ else [f"{where}.{name}: is unknown"]
    return found


# From config/components/crd/bases of kubernetes-sigs/jobset at 08dfbdf (Apache 2.0), which has the schema of pods in
# it; without descriptions, and without what no manifest here has.
SCHEMA = json.loads((ROOT / "tests" / "tpu" / "jobset_v1alpha2.json").read_text())


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"spot": True},
        {"name": "v6e-8", "chips": 4},
        {"account": "trainer", "queue": "tpus", "restarts": 0},
        {"name": "tpu7x-128", "policy": "tpu7x-4x4x4"},
    ],
)
def test_every_field_is_one_that_kubernetes_knows(fields):
    assert problems(read(**fields), SCHEMA) == []


def test_the_schema_finds_what_is_wrong():
    jobset = read()
    pod_of(jobset)["restartPolicies"] = "Never"
    jobset["spec"]["failurePolicy"]["maxRestarts"] = "3"
    jobset["spec"]["failurePolicy"]["rules"][0]["action"] = "Fail"
    assert len(problems(jobset, SCHEMA)) == 3


def test_a_queue_of_kueue_is_a_label():
    assert read(queue="tpus")["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "tpus"}
    assert pod_of(read(account="trainer"))["serviceAccountName"] == "trainer"


def test_a_pool_of_tpu7x_is_found_by_its_workload_policy():
    """As in the pods that AI-Hypercomputer/xpk makes (goldens of `workload create --tpu-type=tpu7x-128`)."""
    selector = pod_of(read("tpu7x-128", policy="tpu7x-4x4x4"))["nodeSelector"]
    assert selector["cloud.google.com/placement-policy-name"] == "tpu7x-4x4x4"
    assert "cloud.google.com/placement-policy-name" not in pod_of(read("tpu7x-128"))["nodeSelector"]


def test_the_image_is_made_of_what_is_there():
    text = (ROOT / "tpu" / "Dockerfile").read_text()
    for source in re.findall(r"^COPY (\S+) ", text, re.MULTILINE):
        assert (ROOT / source).exists(), source
    assert "--require-hashes" in text


def test_spot_nodes_are_selected_and_tolerated():
    pod = pod_of(read(spot=True))
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    (toleration,) = pod["tolerations"]
    assert toleration["key"] == "cloud.google.com/gke-spot"
    assert "tolerations" not in pod_of(read())
