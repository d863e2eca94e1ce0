"""The launcher through its command line, with a gcloud on PATH that plays Cloud TPU in a folder."""

import re
import shlex
import shutil
import signal
import subprocess
import tarfile
import time

import pytest

from scaling.core.errors import UserError
from tests.commands import ROOT, error_of
from tests.tpu.cloud import DATA, NAME, RUN, SLICE, WAYS_TO_ACTIVE, Cloud
from tpu.cloud import shipment
from tpu.flags import CHIPS


@pytest.fixture
def cloud(launcher):
    return launcher


DELETE = f"`python -m tpu.launch delete {' '.join(NAME)} --yes`"


class TestCreate:
    def test_waits_until_the_slice_is_granted_and_asks_for_what_was_given(self, cloud):
        out = cloud.created().stdout
        assert out.splitlines() == ["vit is WAITING_FOR_RESOURCES", "vit is PROVISIONING", "vit is ACTIVE"]
        (call,) = [call for call in cloud.rows("calls") if "create" in call]
        assert call[:5] == ["compute", "tpus", "queued-resources", "create", "vit"]
        assert set(call[5:]) == {
            *NAME[1:],
            "--node-id=vit",
            "--accelerator-type=v5litepod-16",
            "--runtime-version=v2-alpha-tpuv5-lite",
            "--spot",
            "--metadata=scaling-topology=default,scaling-create_flags=none",
            "--quiet",
        }

    def test_again_says_that_it_is_there(self, cloud):
        cloud.created()
        assert cloud.created().stdout.splitlines() == ["vit is there already", "vit is ACTIVE"]
        assert cloud.verbs() == ["create"]

    def test_a_request_that_fails_is_an_error(self, cloud):
        cloud.plan({"states": ["PROVISIONING", "FAILED"], "steps": 0, "end": 0})
        why = "--name=vit: is FAILED: Quota 'TPUs' exceeded. Limit: 16; mend that, "
        assert error_of(cloud.launch("create", *SLICE, "--poll=0.01"), 2).startswith(why)
        assert error_of(cloud.launch("create", *SLICE), 2) == f"{why}and `delete` it first"

    def test_what_reservations_and_networks_need_is_passed_on(self, cloud):
        flags = (
            "--reserved",
            "--service-account=me@my-project.iam.gserviceaccount.com",
            "--network=net",
            "--internal-ips",
        )
        more = (*flags, "--subnetwork=projects/p/regions/r/subnetworks/s")
        assert cloud.launch("create", *SLICE, *more, "--poll=0.01").returncode == 0
        (call,) = [call for call in cloud.rows("calls") if "create" in call]
        assert set(more) < set(call)
        connects = cloud.launch("setup", *NAME, "--internal_ips", "--dry-run").stdout.splitlines()[1:]
        assert any("the workers need a way to PyPI" in line for line in connects)
        assert [" --internal-ip " in f"{line} " for line in connects if "tpu-vm s" in line] == [True] * 3


class TestRun:
    def test_a_preempted_slice_is_created_again_and_training_goes_on(self, cloud):
        cloud.plan(
            {"states": WAYS_TO_ACTIVE, "steps": 5, "end": "preempt"},
            {"states": WAYS_TO_ACTIVE, "steps": 4, "end": 0},
        )
        cloud.created()
        done = cloud.launch("run", *RUN)
        assert done.returncode == 0, done.stderr
        assert cloud.verbs() == ["create", "delete", "create"]
        steps = [line for line in done.stdout.splitlines() if line.startswith("starts at")]
        assert steps == ["starts at step 0", "starts at step 5"]
        assert "step 9" in done.stdout
        assert "vit is SUSPENDED: creating it again" in done.stdout
        assert len(cloud.rows("jobs")) == 8  # four workers, twice
        first, *others = cloud.rows("jobs")
        assert all(job == first for job in others)
        (_, code), *copies = cloud.copies()  # sent to the bucket once, from where each new worker takes it
        assert re.fullmatch(r"gs://bucket/runs/it's a run/code/[0-9a-f]+-[0-9a-f]{12}\.tgz", code)
        assert copies == [[code, "../scaling.tgz"]] * 8

    @pytest.mark.long
    def test_the_command_reaches_every_worker_word_for_word(self, cloud):
        cloud.created()
        value = "arrayrecord:gs://bucket/a 'b' \"c\" $HOME"
        done = cloud.launch("run", *RUN, f"--config.data.source={value}", "--config.steps=7")
        assert done.returncode == 0, done.stderr
        jobs = cloud.rows("jobs")
        assert len(jobs) == 4
        for job in jobs:
            assert job["arguments"] == [
                "-u",
                "-m",
                "scaling.train",
                "--config=configs/vit_ti.py",
                "--config.data.threads=0",
                f"--config.data.source={value}",
                "--config.steps=7",
                "--workdir=gs://bucket/runs/it's a run",
                "--coordinator=auto:8476",
                "--timeout=900",
            ]
            assert job["flags"] == CHIPS["v5e"].init_args
            assert job["cache"] == "gs://bucket/runs/it's a run/cache"
            assert {"scaling", "tpu", "configs"} <= set(job["code"])

    @pytest.mark.long
    def test_the_environment_is_made_once(self, cloud):
        cloud.created()
        for verb in (("setup", *NAME), ("run", *RUN)):
            done = cloud.launch(*verb)
            assert done.returncode == 0, done.stderr
        assert len(cloud.rows("installed")) == 4
        pages = {"file": "/sys/kernel/mm/transparent_hugepage/enabled", "content": "always\n"}
        assert cloud.rows("written") == [pages] * 8  # JAX starts and ends faster with them, also after a reboot
        assert min(cloud.rows("installed")) > 100  # hashes

    @pytest.mark.long
    @pytest.mark.parametrize("code", [2, 3])
    def test_an_end_that_starting_again_cannot_mend_is_the_end(self, cloud, code):
        cloud.plan({"states": ["ACTIVE"], "steps": 1, "end": code})
        cloud.created()
        assert cloud.launch("run", *RUN).returncode == code
        assert len(cloud.rows("jobs")) == 4

    @pytest.mark.long
    def test_any_other_end_is_tried_again_a_few_times(self, cloud):
        cloud.plan({"states": ["ACTIVE"], "steps": 1, "end": 75})
        cloud.created()
        done = cloud.launch("run", *RUN)
        assert error_of(done, 2).startswith("the job ended 4 times on a slice that is there without a newer checkpoint")
        assert "starting it again (3 of 3)" in done.stdout
        assert cloud.verbs() == ["create"]
        assert len(cloud.copies()) == 1 + 4 * 4

    @pytest.mark.long
    def test_a_worker_that_refuses_the_connection_is_asked_again(self, cloud):
        cloud.created()
        cloud.faults("setsid bash")
        done = cloud.launch("run", *RUN)
        assert done.returncode == 0, done.stderr
        assert cloud.verbs() == ["create"]
        assert len(cloud.rows("jobs")) == 4

    @pytest.mark.long
    def test_a_job_that_runs_is_followed_by_a_second_run_and_ended_by_stop(self, cloud):
        cloud.plan({"states": ["ACTIVE"], "steps": 10_000, "end": 0})
        cloud.created()
        first = cloud.start("run", *RUN)
        while "running" not in cloud.launch("status", *SLICE).stdout:
            time.sleep(0.1)
        second = cloud.start("run", *RUN)
        assert second.stdout.readline().startswith("ships ")
        assert second.stdout.readline().startswith("the bucket bucket is in europe-west4, not in us-central1")
        assert second.stdout.readline() == "the slice is deleted by nobody but `delete` (--delete_when=never)\n"
        assert second.stdout.readline() == "the job is running already: following it\n"
        assert error_of(cloud.launch("setup", *NAME), 2) == "--name=vit: a job is running there; `stop` it first"
        stopped = cloud.launch("stop", *NAME)
        assert stopped.stdout.splitlines() == ["ended with code 143"] * 4
        for process in (first, second):
            assert "stopped by `stop`" in process.communicate(timeout=60)[0]
            assert process.returncode == 143
        status = cloud.launch("status", *SLICE).stdout
        assert status.splitlines()[:2] == [
            "vit is ACTIVE",
            f"job on its workers: {', '.join(['143 after `stop`'] * 4)}",
        ]
        assert len(cloud.rows("jobs")) == 4

    @pytest.mark.long
    @pytest.mark.parametrize(
        ("number", "state", "until", "said"),
        [
            (
                signal.SIGINT,
                "PROVISIONING",
                "vit is PROVISIONING",
                f"vit stays as it is; `run` resumes from there, {DELETE} removes it",
            ),
            (
                signal.SIGTERM,
                "PROVISIONING",
                "vit is PROVISIONING",
                f"vit stays as it is; `run` resumes from there, {DELETE} removes it",
            ),
            (signal.SIGHUP, "ACTIVE", "step 1", "the job on vit continues; `run` follows it, `stop` saves and ends it"),
        ],
    )
    def test_an_interrupt_says_what_goes_on(self, cloud, number, state, until, said):
        cloud.plan({"states": ["ACTIVE"], "steps": 10_000, "end": 0})
        cloud.created()
        cloud.becomes(state)
        running = cloud.start("run", *RUN)
        assert f"{until}\n" in iter(running.stdout.readline, "")
        running.send_signal(number)
        assert running.wait(timeout=60) == 128 + number
        assert running.stdout.read().splitlines()[-1] == said
        assert cloud.launch("delete", *NAME, "--yes").returncode == 0  # and with it what goes on

    @pytest.mark.long
    def test_logs_shows_one_worker(self, cloud):
        cloud.created()
        assert cloud.launch("run", *RUN).returncode == 0
        done = cloud.launch("logs", *NAME, "--worker=3")
        assert done.stdout.splitlines() == [
            "starts at step 0",
            "step 1",
            "step 2",
            "step 3",
        ] or done.stdout.splitlines()[0].startswith("starts at")

    @pytest.mark.long
    def test_a_slice_that_the_user_deletes_is_not_created_again(self, cloud):
        cloud.plan({"states": ["ACTIVE"], "steps": 10_000, "end": 0})
        cloud.created()
        running = cloud.start("run", *RUN)
        while "running" not in cloud.launch("status", *SLICE).stdout:
            time.sleep(0.1)
        assert cloud.launch("delete", *NAME, "--yes").returncode == 0
        out, err = running.communicate(timeout=60)
        assert running.returncode == 2, out + err
        assert "error: --name=vit: was deleted; `run` creates it and resumes" in err
        assert cloud.verbs().count("create") == 1

    def test_flags_with_which_the_slice_would_become_another_one_are_refused(self, cloud):
        cloud.created()
        on_demand = [flag for flag in RUN if flag != "--spot"]
        assert error_of(cloud.launch("run", *on_demand), 2) == (
            "--name=vit: was created with --spot, and is to be created again so; give --spot"
        )
        for flag, there in (("accelerator=v5litepod-32", "v5litepod-16"), ("runtime_version=a", "v2-alpha-tpuv5-lite")):
            name, _, given = flag.partition("=")
            assert error_of(cloud.launch("run", *RUN, f"--{flag}"), 2) == (
                f"--name=vit: was created with --{name}={there}, not {given}; give --{name}={there}"
            )
        assert cloud.verbs() == ["create"]

    @pytest.mark.parametrize(
        ("created", "run", "message"),
        [
            (("--reserved",), (), "was created with --reserved, and is to be created again so; give --reserved"),
            ((), ("--internal-ips",), "was created without --internal-ips, .*; leave out --internal-ips"),
            (("--network=mine",), (), "was created with --network=projects/p/global/networks/mine, not without; give"),
            (("--network=mine",), ("--network=yours",), "networks/mine, not yours; give"),
            (("--service-account=a@b.c",), (), "was created with --service-account=a@b.c, not without; give"),
        ],
    )
    def test_a_slice_is_never_created_again_as_another_one(self, cloud, created, run, message):
        assert cloud.launch("create", *SLICE, *created, "--poll=0.01").returncode == 0
        on_demand = [flag for flag in RUN if flag != "--spot"]
        assert re.search(message, error_of(cloud.launch("run", *on_demand, *run), 2))
        assert cloud.launch("create", *SLICE, *created).stdout.startswith("vit is there already\n")

    def test_made_up_images_are_taken_where_they_are_asked_for(self, cloud):
        unnamed = [flag for flag in RUN if flag != DATA]
        message = error_of(cloud.launch("run", *unnamed, "--dry-run"), 2)
        (flag,) = re.findall(r"or (--config\S+) if they are meant", message)
        assert cloud.launch("run", *unnamed, flag, "--dry-run").returncode == 0

    def test_logs_of_a_job_that_was_never_started_do_not_wait_for_it(self, cloud):
        cloud.created()
        assert (
            error_of(cloud.launch("logs", *NAME), 2) == "--worker=0: no job was started on it of vit; `run` starts one"
        )


class TestDelete:
    def test_needs_yes(self, cloud):
        cloud.created()
        assert error_of(cloud.launch("delete", *NAME), 2).endswith("give --yes")
        assert cloud.launch("delete", *NAME, "--yes").returncode == 0
        assert cloud.verbs() == ["create", "delete"]
        message = error_of(cloud.launch("delete", *NAME, "--yes"), 2)
        assert message == (
            "--name=vit: is not in us-central1-a; `list` shows the slices of a zone, and --zones names others"
        )
        assert cloud.launch("status", *NAME).stdout == "vit is MISSING\n"

    def test_it_is_looked_for_in_all_zones(self, cloud):
        cloud.created()
        elsewhere = ("--name=vit", "--zone=us-central1-b", "--project=my-project", "--zones=us-central1-a")
        assert cloud.launch("status", *elsewhere).stdout.startswith("vit is ")
        assert cloud.launch("delete", *elsewhere, "--yes").returncode == 0
        assert cloud.verbs() == ["create", "delete"]
        message = error_of(cloud.launch("delete", *elsewhere, "--yes"), 2)
        assert message.startswith("--name=vit: is not in us-central1-b, us-central1-a; ")


class TestDryRun:
    @pytest.mark.parametrize("verb", ["create", "setup", "run", "status", "logs", "stop", "delete"])
    def test_prints_commands_that_a_shell_reads_back_and_runs_nothing(self, cloud, verb):
        done = cloud.launch(verb, *(RUN if verb == "run" else SLICE), "--dry-run", path="/usr/bin:/bin")
        assert done.returncode == 0, done.stderr
        words = shlex.split(done.stdout)
        commands = [words[i + 1 : i + 3] for i, word in enumerate(words) if word == "gcloud"]
        assert ["compute", "tpus"] in commands
        assert all(command in (["compute", "tpus"], ["storage", "buckets"], ["storage", "cp"]) for command in commands)
        assert not cloud.rows("calls")
        assert not cloud.rows("jobs")

    def test_run_asks_for_the_slice_before_it_sets_it_up(self, cloud):
        out = cloud.launch("run", *RUN, "--dry-run").stdout
        assert out.count("queued-resources create") == 1
        assert out.index("queued-resources create") < out.index("tpu-vm ssh")


def test_a_cost_over_both_kinds_of_capacity_is_at_the_price_on_demand(cloud):
    limit = ("--max_cost=192", "--price=1.2", "--dry-run")  # 16 chips at 19.2 USD an hour
    assert (
        "it may take 10.0 hours; once the job has started, it is deleted then anyway\n"
        in cloud.launch("run", *RUN, *limit).stdout
    )
    both = cloud.launch("run", *RUN, *limit, "--allow_on_demand").stdout
    assert "it may take 10.0 hours (if 1.2 USD is the price on demand); once the job" in both


def test_the_job_has_the_variables_of_its_libraries_and_may_read_a_mounted_bucket(cloud):
    mounted = [flag if flag != DATA else "--config.data.source=arrayrecord:/mnt/data" for flag in RUN]
    assert "is not in a bucket" in error_of(cloud.launch("run", *mounted, "--dry-run"), 2)
    done = cloud.launch("run", *mounted, "--local_data", "--dry-run")
    assert done.returncode == 0, done.stderr
    for variable in ("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT=false", "LIBTPU_INIT_ARGS=", "SCALING_CACHE="):
        assert f"export {variable}" in done.stdout


GKE = ("--name=vit", "--accelerator=v5litepod-8", "--image=a/b", "--config=vit_ti.py", "--workdir=gs://bucket/a", DATA)
V5P, SHAPE = "--accelerator=v5p-256", r"--topology=\w+"
# what is wrong: arguments, message
REFUSED = {
    "no verb": ((), r"give one of create, setup, run, .*, not nothing"),
    "another verb": (("begin", *SLICE), r"give one of .*, not begin"),
    "no name": (("status", "--zone=us-central1-a"), r"--name=: must have at most 63"),
    "a name with capitals": (("create", "--name=ViT", *SLICE[1:]), r"--name=ViT: must have .* \(RFC 1035\)"),
    "a name that is too long": (("create", f"--name={'a' * 64}", *SLICE[1:]), r"must have at most 63"),
    "no accelerator": (("create", *NAME), r"--accelerator=\(none\): is not known"),
    "a region for a zone": (("status", "--name=a", "--zone=us-central1"), r"--zone=us-central1: must be a zone"),
    "a project name": (("status", *NAME[:2], "--project=My Project"), r"--project=My Project: must be a project ID"),
    "an accelerator": (
        ("create", *NAME, "--accelerator=v7-8"),
        r"--accelerator=v7-8: is not known; give one like v4-64",
    ),
    "what is not of the Cloud TPU API": (
        ("create", *NAME, "--accelerator=tpu7x-128"),
        r"--accelerator=tpu7x-128: is not offered by the Cloud TPU API.*on GKE, with `manifest`",
    ),
    "that with run": (("run", *NAME, "--accelerator=tpu7x-128", *RUN[4:]), r"is not offered by the Cloud TPU API"),
    "a size": (("create", *NAME, "--accelerator=v5p-12"), r"v5p-12: must be one of v5p-8, v5p-16, "),
    "a runtime": (("create", *SLICE, "--runtime-version=TF 1"), r"--runtime_version=TF 1: must be"),
    "no config": (("run", *SLICE, "--workdir=gs://bucket/a"), r"give --config=FILE"),
    "an unknown config": (("run", *SLICE, "--config=vit_hh.py"), r"no config file 'vit_hh.py'; did you mean vit_h.py"),
    "an unknown field": (("run", *RUN, "--config.model.widht=3"), r"unknown config field model.widht; did you mean"),
    "a wrong value": (("run", *RUN, "--config.model.image_size=100"), r"not divisible by model.patch_size"),
    "a batch": (("run", *RUN, "--config.batch_size=1000"), r"batch_size=1000 is not divisible by .* nearest that is:"),
    "a mesh": (("run", *RUN, "--config.mesh.tensor=3"), r"mesh.tensor=3 must multiply to the 16 devices"),
    "a timeout": (("run", *RUN, "--timeout=-5"), r"--timeout=-5: .*1 or greater|timeout"),
    "no workdir": (("run", *SLICE, "--config=vit_ti.py"), r"--workdir=\(none\): give gs://BUCKET/PATH"),
    "a local workdir": (("run", *SLICE, "--config=vit_ti.py", "--workdir=/runs"), r"--workdir=/runs: give gs://"),
    "local data": (
        ("run", *RUN, "--config.data.source=folder:/d"),
        r"data.source=folder:/d is not in a bucket.*prepare",
    ),
    "local data of a benchmark": (
        ("run", *RUN, "--config.data.eval_source=geobench:/d"),
        r"data.eval_source=geobench:/d is",
    ),
    "data of no kind": (("run", *RUN, "--config.data.source=/d"), r"data.source=/d: must start with one of array"),
    "what is not installed": (("run", *RUN, "--config.wandb=mine"), r"wandb=mine: tpu/requirements.txt.*--extra wandb"),
    "two kinds of capacity": (("create", *SLICE, "--spot", "--reserved"), r"--spot and --reserved: are two kinds"),
    "a network": (("create", *SLICE, "--network=My Net"), r"--network=My Net: is not a network as gcloud takes it"),
    "an account": (("create", *SLICE, "--service-account=me"), r"--service-account=me: is not a service account as"),
    "a worker": (("logs", *NAME, "--worker=all"), r"--worker=all: must be the number of a worker"),
    "no slice to set up": (("setup", *NAME), r"--name=vit: is MISSING in us-central1-a; `create`"),
    "no permission": (
        ("status", *NAME[:2], "--project=not-mine"),
        r"--name=vit: gcloud cannot tell .*PERMISSION_DENIED",
    ),
    "no image": (("manifest", *GKE, "--image="), r"give --image=IMAGE"),
    "a pod that loses its disk": (("manifest", *GKE, "--workdir=/runs"), r"--workdir=/runs: give gs://BUCKET/PATH"),
    "capacity of a node pool": (
        ("manifest", *GKE, "--reserved"),
        r"--reserved: is not a flag of `manifest` but of `create`, `run`: a JobSet has it from its node pool",
    ),
    "the zone of a node pool": (
        ("manifest", *GKE, "--zone=us-central1-a"),
        r"--zone=us-central1-a: is not a flag of `manifest`",
    ),
    "the code of an image": (
        ("manifest", *GKE, "--allow-dirty"),
        r"--allow_dirty: is not .* from its node pool and image",
    ),
    "a shape of more chips": (("create", *NAME, V5P, "--topology=8x8x8"), f"{SHAPE}: must be a shape of the 128 chips"),
    "a shape of fewer": (("create", *NAME, V5P, "--topology=4x4x4"), f"{SHAPE}: .*; give one such as 4x4x8"),
    "a shape that is none": (("create", *NAME, V5P, "--topology=abc"), f"{SHAPE}: must be a shape of"),
    "sides in another order": (("create", *NAME, V5P, "--topology=8x4x4"), f"{SHAPE}: must be .* smallest side first"),
    "a torus that is never twisted": (
        ("create", *NAME, "--accelerator=v5p-128", "--topology=4x4x4_untwisted"),
        r"is never twisted",
    ),
    "the shape of a square": (("run", *RUN, "--topology=16x16"), r"--topology=16x16: is only for v4 and v5p"),
    "an open quote": (("run", *RUN, "--create_flags=--labels='a"), r"--create_flags=--labels='a: no closing quotation"),
    "a size with a zero": (("run", *RUN, "--accelerator=v5litepod-016"), r"v5litepod-016: is not known"),
    "a size in other digits": (("run", *RUN, "--accelerator=v5litepod-١٦"), r"--accelerator=.*: is not known"),
    "a region among zones": (("run", *RUN, "--zones=us-central1"), r"--zones=us-central1: must be a zone"),
    "a bucket without a path": (("run", *RUN, "--workdir=gs://bucket/"), r"--workdir=gs://bucket/: give gs://BUCKET/"),
    "a workdir with wildcards": (("run", *RUN, "--workdir=gs://bucket/a*"), r"a\*: give gs://BUCKET/PATH, without any"),
    "more chips than a node has": (
        ("manifest", *GKE, "--accelerator=v6e-1", "--node_chips=4"),
        r"--node_chips=4: nodes of v6e-1 have 1;",
    ),
    "a long queue": (("manifest", *GKE, f"--queue={'q' * 64}"), r"--queue=q+: must be .* of at most 63 characters"),
    "an image of two words": (("manifest", *GKE, "--image=a b"), r"--image=a b: must be a container image"),
    "a limit of create": (
        ("create", *SLICE, "--max_hours=3"),
        r"--max_hours=3.*: is not a flag of `create` but of `run`",
    ),
    "other zones of create": (("create", *SLICE, "--zones=XX"), r"--zones=XX: is not a flag of `create`"),
    "an image of run": (("run", *RUN, "--image=a"), r"--image=a: is not a flag of `run` but of `manifest`"),
    "a worker of run": (("run", *RUN, "--worker=1"), r"--worker=1: is not a flag of `run` but of `logs`"),
    "a field of status": (("status", *NAME, "--config=vit_ti.py"), r"--config=\S+: is not a flag of `status` but of"),
    "a price of manifest": (("manifest", *GKE, "--price=1"), r"--price=1.0: is not a flag of `manifest`"),
    "no data": (("run", *RUN, "--config.data.source="), r"data.source=: is empty; give"),
    "no bucket of data": (("run", *RUN, "--config.data.source=arrayrecord:gs://"), r": gs:// names no bucket; give"),
    "a bucket with capitals": (("run", *RUN, f"{DATA[:-11]}Bad_B/a"), r"gs://Bad_B/a names no bucket; give"),
    "a stage in a bucket": (("run", *RUN, "--config.data.stage=gs://x"), r"data.stage=gs://x: must be a folder of"),
    "a stage in the code": (("run", *RUN, "--config.data.stage=x"), r"data.stage=x: must be a folder of the workers"),
    "a stage of what was not prepared": (
        ("run", *RUN, "--config.data.source=folder:gs://bucket/x", "--config.data.stage=/dev/shm/data"),
        r"data.stage=/dev/shm/data: copies only the files of `scaling.prepare` in a bucket, .* not folder:gs://bucket/x",
    ),
    "hours without a limit": (("run", *RUN, "--max_hours=nan"), r"--max_hours=nan: must be a finite number"),
    "a cost without a limit": (("run", *RUN, "--max_cost=1e400"), r"--max_cost=1e400: must be a finite number"),
    "a negative price": (("run", *RUN, "--price=-1"), r"--price=-1: "),
    "hours of ages": (("run", *RUN, "--max_hours=1e300"), r"--max_hours=1e\+300: is a limit of 1e\+300 hours; leave"),
    "a cost of ages": (("run", *RUN, "--max_cost=9", "--price=1e-9"), r"--max_cost=9: is a limit of .* hours; leave"),
    "a worker in other digits": (("logs", *NAME, "--worker=٣"), r"--worker=.*: must be the number of a worker"),
    "code into wildcards": (("setup", *NAME, "--workdir=gs://bucket/*"), r"--workdir=gs://bucket/\*: give gs://BUCKET"),
    "a misspelt flag": (("create", *SLICE, "--spott"), r"spott"),
}
ASKS_GCLOUD = ("no slice to set up", "no permission")


class TestRefusals:
    @pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
    def test_one_sentence_before_gcloud_is_called(self, cloud, request, arguments, message):
        assert re.search(message, error_of(cloud.launch(*arguments), 2))
        if request.node.callspec.id not in ASKS_GCLOUD:
            assert not cloud.rows("calls")
        assert not cloud.verbs()

    def test_gcloud_is_not_there(self, cloud):
        assert error_of(cloud.launch("status", *NAME, path="/nowhere"), 2).startswith("gcloud: is not on PATH; install")


def test_a_chip_of_tpu7x_is_two_devices(cloud):
    flags = [flag for flag in GKE if not flag.startswith("--accelerator=")]
    mesh = [f"--config.mesh.{axis}={size}" for axis, size in (("replica", 1), ("fsdp", 128), ("tensor", 1))]
    done = cloud.launch("manifest", *flags, *mesh, "--accelerator=tpu7x-128", "--placement_policy=four-cubed")
    assert done.returncode == 0, done.stderr
    assert "cloud.google.com/gke-tpu-accelerator: tpu7x" in done.stdout
    message = error_of(cloud.launch("manifest", *flags, *mesh, "--accelerator=tpu7x-256"), 2)
    assert "must multiply to the 256 devices" in message


class TestShippedCode:
    @pytest.mark.long
    def test_changes_that_are_not_committed_are_refused_or_shipped_on_demand(self, tmp_path, checkout):
        copy = tmp_path / "copy"
        shutil.copytree(checkout, copy)
        (copy / "job.txt").write_text("second\n")
        (copy / "new.txt").write_text("new\n")
        cloud = Cloud(tmp_path, copy)
        cloud.created()
        message = error_of(cloud.launch("run", *RUN), 2)
        assert message.startswith("--allow_dirty=False: 2 files are not committed, job.txt for one; commit them")
        done = cloud.launch("run", *RUN, "--allow-dirty")
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[0].endswith(" with uncommitted changes")
        code = tmp_path / "workers" / "2" / "scaling" / "code"
        assert (code / "job.txt").read_text() == "second\n"
        assert (code / "new.txt").read_text() == "new\n"

    def test_what_no_worker_needs_is_left_out(self, tmp_path, monkeypatch):
        subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
        for name in ("scaling/a.py", "configs/b.py", "results/rows.jsonl", "tests/c.py", "docs/d.md"):
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).write_text("x = 1\n")
        git = ["git", "-C", tmp_path, "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "--quiet"]
        subprocess.run([*git, "--allow-empty", "--message=none"], check=True)
        monkeypatch.setattr(shipment, "ROOT", tmp_path)
        with shipment.archive(allow_dirty=True) as (path, tree, _), tarfile.open(path) as shipped:
            assert {name for name in shipped.getnames() if "." in name} == {"scaling/a.py", "configs/b.py"}
            assert shipment.shipped_path(str(tmp_path / "configs/b.py"), tree) == "configs/b.py"
            with pytest.raises(UserError, match="is not part of the shipped code"):
                shipment.shipped_path(str(tmp_path / "tests/c.py"), tree)

    def test_a_config_outside_of_the_repository_is_refused(self, cloud):
        shutil.copy(ROOT / "configs" / "vit_ti.py", cloud.folder / "mine.py")
        others = [flag for flag in RUN if not flag.startswith("--config=")]
        message = error_of(cloud.launch("run", f"--config={cloud.folder}/mine.py", *others), 2)
        assert "mine.py: is not part of the shipped code; put it into configs/" in message
