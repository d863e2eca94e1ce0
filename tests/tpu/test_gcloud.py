"""gcloud that fails, hangs or is slow, while a slice is paid for."""

import os
import subprocess
import sys
import time

import pytest

from tests.commands import ROOT, environment
from tests.tpu.cloud import ALIVE, ONE_HOST, job_on
from tpu.cloud import gcloud as running
from tpu.cloud.gcloud import Gcloud
from tpu.cloud.job import Job


class TestTheMachines:
    def test_one_failure_does_not_make_the_slice_a_new_one(self, cloud):
        job = job_on(cloud, ALIVE)
        created = job.gcloud.node(job.target).created
        cloud.faults("tpu-vm describe")
        assert job.gcloud.node(job.target).created == 0
        cloud.faults("tpu-vm describe")
        assert job.gcloud.node(job.target, patient=True).created == created > 0

    def test_a_slice_that_is_gone_has_none(self, cloud):
        assert Gcloud(False, 0.02).node(ONE_HOST, patient=True).created == 0


class TestWaiting:
    def test_granted_capacity_has_its_own_time_which_does_not_begin_again(self, cloud, monkeypatch):
        monkeypatch.setattr(running, "PREPARED", 1.0)
        job = job_on(cloud, {**ALIVE, "states": ["PROVISIONING", "WAITING_FOR_RESOURCES"] * 50})
        began = time.monotonic()
        assert job.gcloud.wait(job.target, patience=0.5).state in ("PROVISIONING", "WAITING_FOR_RESOURCES")
        assert time.monotonic() - began < 5

    @pytest.mark.parametrize(("states", "created"), [(["PROVISIONING"] * 9, "ACTIVE"), (["ACCEPTED"] * 9, "ACCEPTED")])
    def test_only_a_place_in_the_queue_is_given_up(self, cloud, states, created):
        job = job_on(cloud, {**ALIVE, "states": [*states, "ACTIVE"]})
        assert job.gcloud.wait(job.target, patience=0.1).state == created


class TestProcesses:
    def test_what_a_killed_command_wrote_is_read_even_if_another_holds_its_pipe(self, cloud, monkeypatch):
        monkeypatch.setattr(running, "_GONE", 0.5)
        began = time.monotonic()
        holds = "import subprocess, sys; subprocess.Popen(['sleep', '20'], start_new_session=True); print('half')"
        code, _, error = Gcloud(False, 1).read(
            [sys.executable, "-c", f"{holds}; sys.stdout.flush(); import time; time.sleep(20)"], 2.0
        )
        assert (code, "no answer within 2 s" in error) == (124, True)
        assert time.monotonic() - began < 10

    def test_the_command_that_shows_a_log_is_killed_if_it_does_not_end(self, cloud, tmp_path, monkeypatch):
        monkeypatch.setattr("tpu.cloud.job._ENDING", 0.3)
        stubborn = f"trap '' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 0.1; done"
        job = Job(ONE_HOST, Gcloud(False, 0.02))
        monkeypatch.setattr(Job, "log", lambda *_: ["bash", "-c", stubborn])
        monkeypatch.setattr(Job, "there", lambda _: not (tmp_path / "pid").exists())
        assert job.follow("20") == {}
        assert job.ended
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), 0)

    def test_without_a_reader_it_goes_on(self):
        code = "import time; from tpu.cloud.gcloud import say\nfor k in range(9): say(k); time.sleep(0.05)\nsys.exit(7)"
        process = subprocess.Popen(
            [sys.executable, "-c", f"import sys; {code}"], cwd=ROOT, env=environment(), stdout=subprocess.PIPE
        )
        process.stdout.readline()
        process.stdout.close()
        assert process.wait() == 7
