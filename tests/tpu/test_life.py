"""A run through preemptions, bad machines, zones without capacity, and to the end of its budget."""

import dataclasses
import datetime
import json
import re
import time

import pytest

from scaling.core.errors import UserError
from tests.commands import error_of
from tests.tpu.cloud import ALIVE, DATA, FOUR_HOSTS, NAME, ONE_HOST, RUN, SLICE, WAYS_TO_ACTIVE, ending, job_on
from tpu.cloud import capacity
from tpu.cloud.capacity import Capacity, places
from tpu.cloud.found import Found, Node
from tpu.cloud.gcloud import Gcloud
from tpu.cloud.job import Job
from tpu.cloud.keep import alive
from tpu.cloud.life import Run
from tpu.cloud.limit import ANSWER
from tpu.cloud.options import opens
from tpu.cloud.policy import EndedError, Policy
from tpu.cloud.slices import EXTRAS, PASSED, PASSED_ALPHA
from tpu.cloud.status import HEADER, cells, duration, progress
from tpu.flags import accelerator

NO_CAPACITY = {"states": ["WAITING_FOR_RESOURCES", "FAILED"], "steps": 0, "end": 0, "why": "There is no more capacity"}
ZONES = ("us-central1-a", "us-south1-ai1b", "europe-west4-b")


def zones_asked(cloud):
    calls = [call for call in cloud.rows("calls") if "create" in call]
    return [
        (next(a.removeprefix("--zone=") for a in call if a.startswith("--zone=")), "--spot" in call) for call in calls
    ]


def _job(cloud, **fields):
    return Job(ONE_HOST, Gcloud(False, 0.02), **fields)


class TestCapacity:
    def test_zones_are_asked_in_turn_spot_first(self, cloud, archive, monkeypatch):
        pauses = []
        monkeypatch.setattr(capacity.time, "sleep", lambda s: pauses.append(s) if s > 1 else None)
        cloud.plan(*[NO_CAPACITY] * 7, {**ALIVE, "end": 0}, workers=1)
        job = _job(cloud)
        capacity_ = Capacity(job, places(job.target, ZONES[1:], on_demand=True), 30.0, pause=60.0)
        found = capacity_.granted(create=True)
        assert found.state == "ACTIVE"
        spot = [(zone, True) for zone in ZONES]
        assert zones_asked(cloud) == [*spot, *[(zone, False) for zone in ZONES], *spot[:2]]
        assert pauses == [60.0]  # once all of them had nothing
        assert job.target.zone == "us-south1-ai1b"

    def test_what_asking_again_cannot_mend_is_the_end(self, cloud):
        cloud.plan({**NO_CAPACITY, "why": "Quota 'TPUV5sPreemptibleLitepodPerProjectPerZone' exhausted"}, workers=1)
        job = _job(cloud)
        with pytest.raises(UserError, match=r"is FAILED: Quota .* exhausted; mend that"):
            Capacity(job, places(job.target, ZONES[1:], True)).granted(create=True)
        assert len(zones_asked(cloud)) == 1


@pytest.mark.long
class TestBadMachines:
    def test_a_node_that_stays_unwell_is_replaced(self, cloud, archive, capfd):
        job = job_on(cloud, ALIVE, ALIVE)
        job.replace_minutes = 0.01
        (cloud.folder / "health.json").write_text(json.dumps({"state": "READY", "health": "UNHEALTHY_MAINTENANCE"}))
        assert Run(job, Capacity(job, (job.target,)), Policy()).to_its_end(archive, lambda _: ending(0)) == 0
        assert cloud.verbs()[-3:] == ["delete", "create", "scp"]
        assert "broken: its machines are READY, UNHEALTHY_MAINTENANCE" in capfd.readouterr().out

    def test_one_worker_that_does_not_answer_is_named_and_replaced(self, cloud, archive, capfd, monkeypatch):
        monkeypatch.setattr("tpu.cloud.limit.ANSWER", 2.0)
        job = job_on(cloud, ALIVE, ALIVE, target=FOUR_HOSTS)
        cloud.plan(ALIVE, ALIVE, workers=4, silent=["2"])
        job.replace_minutes = 0.08
        assert job.survey() == {}
        out = capfd.readouterr().out
        assert "vit: worker 2 does not answer; asking again" in out
        assert job.broken == "broken: worker 2 does not answer"

    def test_what_is_left_of_an_earlier_job_is_ended_before_a_start(self, cloud):
        """A data worker that outlives its python holds the chips: the next start would fail, three times."""
        job = job_on(cloud, ALIVE)
        left = (
            "cd ~/scaling; exec 8>alive; flock 8; echo $$ > session; echo $$ > pid; echo > log; echo 75 > exit_code\n"
        )
        job.start(left + "sleep 60 & echo $! > left; wait")
        home = cloud.folder / "workers" / "0" / "scaling"
        while not (home / "left").exists():
            time.sleep(0.05)
        old = int((home / "left").read_text())
        job.start(ending(0, after=60))
        assert job.survey() == {"0": "running"}
        assert not alive(old)


class TestCost:
    def test_hours_of_earlier_slices_count(self):
        policy = Policy("end", max_hours=10, spent=6)
        assert policy.until(time.time() - 3600) == pytest.approx(time.time() + 3 * 3600, abs=5)
        with pytest.raises(EndedError, match=r"has had its 10\.0 hours"):
            policy.until(time.time() - 5 * 3600)
        assert Policy().until(time.time() - 1e6) == 0

    def test_a_cost_is_hours_at_a_price(self, launcher):
        done = launcher.launch("run", *RUN, "--max_cost=192", "--price=1.2", "--dry-run")
        assert "it may take 10.0 hours" in done.stdout  # 16 chips at 19.2 USD an hour
        assert error_of(launcher.launch("run", *RUN, "--max-cost=100"), 2).startswith("--max_cost=100: needs --price")

    def test_worker_0_is_told_how_long_it_may_take(self, cloud):
        job = job_on(cloud, ALIVE)
        job.until = time.time() + 7200
        job.start(ending(0, after=5))
        limit = int((cloud.folder / "workers" / "0" / "scaling" / "limit").read_text())
        assert limit == pytest.approx(time.time() + 7200, abs=60)


# Flags of gcloud by command: "Google Cloud SDK > gcloud compute tpus queued-resources", "... tpu-vm" and "gcloud
# storage" of the reference at cloud.google.com/sdk/gcloud/reference (SDK 528); each was compared with --help.
DOCUMENTED = {
    "queued-resources create": {
        "runtime-version", "accelerator-type", "topology", "type", "node-id", "spot", "reserved", "internal-ips",
        "metadata", *EXTRAS, *PASSED,
    },
    "alpha create": {"topology", "type", *PASSED_ALPHA},
    "queued-resources describe": set(),
    "queued-resources delete": {"force", "async"},
    "queued-resources list": set(),
    "queued-resources ssh": {"ssh-flag", "worker", "command", "internal-ip", "tunnel-through-iap", "node"},
    "queued-resources scp": {"scp-flag", "worker", "internal-ip", "tunnel-through-iap", "node", "batch-size"},
    "tpu-vm describe": set(),
    "tpu-vm list": set(),
    "tpu-vm ssh": {"ssh-flag", "worker", "command", "internal-ip"},
    "tpu-vm scp": {"scp-flag", "worker", "internal-ip"},
    "storage cat": set(),
    "storage ls": {"long"},
    "storage cp": {"no-clobber"},
    "storage buckets describe": set(),
}  # fmt: skip
EVERYWHERE = {"zone", "project", "quiet", "format"}


def check_documented(call):
    if call[:3] == ["compute", "firewall-rules", "list"]:
        assert {a.partition("=")[0] for a in call[3:]} <= {"--filter", "--project", "--format"}
        return
    if call[0] == "storage":
        verb = " ".join(call[1:3]) if call[1] == "buckets" else call[1]
        given = {a[2:].partition("=")[0] for a in call if a.startswith("--")}
        assert given <= {*EVERYWHERE, *DOCUMENTED[f"storage {verb}"]}
        return
    alpha = call[0] == "alpha"
    group, verb = call[3:5] if alpha else call[2:4]
    known = EVERYWHERE | DOCUMENTED[f"{group} {verb}"] | (DOCUMENTED["alpha create"] if alpha else set())
    unknown = {a[2:].partition("=")[0] for a in call if a.startswith("--")} - known
    assert not unknown, f"{group} {verb}: {unknown}"


@pytest.mark.long
def test_a_whole_life(launcher):
    """Created by `run`, preempted as a machine is shut down, no capacity where it was, another zone, done, deleted."""
    first = {"states": WAYS_TO_ACTIVE, "steps": 5, "end": "preempt"}
    last = {"states": WAYS_TO_ACTIVE, "steps": 4, "end": 0}
    launcher.plan(first, NO_CAPACITY, last, workers=4, saving=1.0)
    done = launcher.launch(
        "run", *RUN, "--zones=us-south1-ai1b", "--delete-when=end", "--create-flags=--labels=team=eo", "--price=1.2"
    )
    assert done.returncode == 0, done.stderr
    assert zones_asked(launcher) == [("us-central1-a", True), ("us-central1-a", True), ("us-south1-ai1b", True)]
    assert launcher.verbs() == ["create", "delete", "create", "delete", "create", "delete"]
    assert sorted(launcher.rows("saved")) == ["0", "1", "2", "3"]  # SIGTERM and SIGHUP to everyone, and all have saved
    assert "starts at step 5" in done.stdout
    assert "the bucket bucket is in europe-west4, not in us-central1, us-south1: reads" in done.stdout
    assert "deleting vit (--delete_when=end)" in done.stdout
    logs = launcher.folder / "bucket" / "bucket" / "runs" / "it's a run" / "logs"
    assert sorted(path.name for path in logs.glob("*/*.log")) == [f"{k}.log" for k in range(4) for _ in range(2)]
    assert {path.read_text() for path in logs.glob("*/0.result")} == {"143\n", "0\n"}
    for call in launcher.rows("calls"):
        check_documented(call)


def test_flags_of_create_are_passed_on_and_those_of_alpha_where_they_are(launcher):
    flags = "--create_flags=--reservation=mine --provisioning-model=reservation-bound --labels=team=eo"
    size = ("--accelerator=v5p-256", "--topology=4x4x8_untwisted")
    done = launcher.launch("create", *NAME, *size, flags, "--dry-run")
    (line,) = [line for line in done.stdout.splitlines() if " create " in line]
    assert line.startswith("gcloud alpha compute tpus queued-resources create vit ")
    assert "--type=v5p --topology=4x4x8_untwisted" in line
    assert "accelerator-type" not in line
    check_documented(line.split()[1:])
    message = error_of(launcher.launch("create", *SLICE, "--create_flags=--zone=b"), 2)
    assert message.startswith("--create_flags=--zone=b: must be --NAME or --NAME=VALUE; give one of data-disk, ")


def test_a_proxy_and_more_than_a_hundred_workers_need_another_command():
    tunnelled = dataclasses.replace(FOUR_HOSTS, tunnel=True).ssh("true")
    assert tunnelled[3:5] == ["queued-resources", "ssh"]
    assert "--tunnel-through-iap" in tunnelled
    check_documented(tunnelled[1:])
    assert "--ssh-flag=-o ConnectTimeout=10" in FOUR_HOSTS.ssh("true")


@pytest.mark.parametrize(("name", "times"), [("v5p-512", 1), ("v5p-2048", 4)])
def test_workers_that_are_reached_in_turn_have_time_to_answer(name, times):
    limits = []

    class Watched(Gcloud):
        def read(self, command, limit):
            limits.append(limit)
            return 0, "", ""

    job = Job(dataclasses.replace(ONE_HOST, accelerator=accelerator(name)), Watched(True, 1))
    job.states()
    job.states("0")
    assert limits == [ANSWER * times, ANSWER]


class TestFirewall:
    @pytest.mark.parametrize(
        ("allowed", "direction", "opened"),
        [
            ([{"IPProtocol": "tcp", "ports": ["22", "8470-8480"]}], "INGRESS", True),
            ([{"IPProtocol": "tcp"}], "INGRESS", True),
            ([{"IPProtocol": "all"}], "INGRESS", True),
            ([{"IPProtocol": "tcp", "ports": ["22"]}, {"IPProtocol": "icmp"}], "INGRESS", False),
            ([{"IPProtocol": "udp", "ports": ["8476"]}], "INGRESS", False),
            ([{"IPProtocol": "tcp"}], "EGRESS", False),
        ],
    )
    def test_rules_that_let_the_workers_meet(self, allowed, direction, opened):
        assert opens([{"direction": direction, "allowed": allowed}], 8476) == opened
        assert not opens([{"direction": direction, "allowed": allowed, "disabled": True}], 8476)

    def test_a_network_that_keeps_them_apart_is_named_before_it_is_paid_for(self, launcher):
        launcher.plan({"states": ["ACTIVE"], "steps": 0, "end": 0}, allowed=[{"IPProtocol": "icmp"}])
        done = launcher.launch("create", *SLICE, "--network=projects/p/global/networks/mine", "--poll=0.01")
        assert done.stdout.startswith("--network=mine: none of its firewall rules allows connections to port 8476")
        (call,) = [call for call in launcher.rows("calls") if "firewall-rules" in call]
        check_documented(call)


class TestStatus:
    def test_a_resource_without_a_state_is_not_there_yet(self):
        assert Found.of({"name": "vit"}).state == "CREATING"

    def test_what_a_slice_costs_and_how_far_its_run_is(self, monkeypatch):
        now = datetime.datetime.now(datetime.UTC)
        made = (now - datetime.timedelta(hours=2, minutes=30)).isoformat().replace("+00:00", "Z")
        about = {"scaling-workdir": "gs://b/run", "scaling-price": "1.2"}
        node = Node.of(
            {"name": "a/b/vit", "state": "READY", "health": "HEALTHY", "createTime": made, "metadata": about}
        )
        files = {
            "gs://b/run/metrics.jsonl": '{"step": 100, "loss": 0.5, "images_per_second": 1000.0, "goodput": 0.9}\n{"st',
            "gs://b/run/config.json": '{"steps": 1100, "batch_size": 4096}',
        }
        monkeypatch.setattr(Gcloud, "file", lambda self, path: files.get(path, ""))
        run = progress(Gcloud(True, 1), "gs://b/run")
        found = Found("ACTIVE", accelerator="v5litepod-256", about={"price": "1.2"})
        row = dict(zip(HEADER, cells(found, node, "z", "vit", 0.0, run), strict=True))
        assert row == {
            "name": "vit", "zone": "z", "state": "ACTIVE", "health": "healthy", "age": "2 h 30 min",
            "cost": "768 USD", "step": "100 of 1,100", "loss": "0.5000", "left": "1 h 8 min",
        }  # fmt: skip
        assert duration(100_000) == "1 d 3 h"

    def test_list_shows_all_slices_of_a_zone(self, launcher):
        launcher.created()
        out = launcher.launch("list", NAME[1], "--price=1").stdout
        assert re.search(r"vit .*us-central1-a .*ACTIVE .*healthy", out), out


def test_how_to_run_it_where_nobody_closes_the_lid(launcher):
    done = launcher.launch("run", *RUN, "--babysit")
    lines = done.stdout.splitlines()[1:]
    assert lines[0].startswith("gcloud compute instances create vit-babysitter --zone=us-central1-a ")
    assert any("tpu.launch run" in line and DATA in line and "--babysit" not in line for line in lines)
    assert not launcher.rows("calls")


class TestHomes:
    """The home directory of a worker belongs to its user."""

    def test_where_scaling_is_a_file_nothing_is_removed(self, cloud, archive):
        job = job_on(cloud, ALIVE)
        home = cloud.folder / "workers" / "0"
        (home / "scaling").write_text("a file of the user")
        (home / "code").mkdir()
        (home / "code" / "mine.txt").write_text("work")
        with pytest.raises(UserError, match="failed with code"):
            job.setup(archive)
        assert (home / "code" / "mine.txt").read_text() == "work"


def test_a_command_that_takes_too_long_is_ended_with_what_it_started(cloud, tmp_path):
    with pytest.raises(UserError, match=r"did not end within 0 s"):
        Gcloud(False, 1).run(["bash", "-c", f"sleep 60 & echo $! > {tmp_path}/pid; wait"], 0.4)
    deadline = time.monotonic() + 10
    while alive(int((tmp_path / "pid").read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.01)
