"""The GKE manifest, read back from its YAML."""

import pytest
import yaml

from tpu.cloud.manifest import manifest
from tpu.flags import accelerator

COMMAND = ["python", "-u", "-m", "scaling.train", '--config.data.source=arrayrecord:gs://b/it\'s: {a} # "name"']


IMAGE = "europe-docker.pkg.dev/p/r/image:1"
VARIABLES = {"LIBTPU_INIT_ARGS": "--a=b --c=d", "SCALING_CACHE": "gs://b/it's/cache"}


def read(name="v5litepod-256", spot=False):
    return yaml.safe_load(manifest("vit", accelerator(name), IMAGE, VARIABLES, COMMAND, spot))


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
    assert container["command"] == COMMAND
    assert {entry["name"]: entry["value"] for entry in container["env"]} == VARIABLES


def test_a_failed_pod_starts_all_of_them_again_unless_its_code_is_final():
    jobset = read()
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["backoffLimit"] == 0
    assert pod_of(jobset)["restartPolicy"] == "Never"
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"] == {"containerName": "train", "operator": "In", "values": [2, 3]}
    policy = jobset["spec"]["failurePolicy"]
    assert policy["maxRestarts"] > 0
    assert [(r["action"], r["onJobFailureReasons"]) for r in policy["rules"]] == [("FailJobSet", ["PodFailurePolicy"])]


def test_spot_nodes_are_selected_and_tolerated():
    pod = pod_of(read(spot=True))
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    (toleration,) = pod["tolerations"]
    assert toleration["key"] == "cloud.google.com/gke-spot"
    assert "tolerations" not in pod_of(read())
