"""Keeping one job running on a slice, whatever gcloud reports: the fake gcloud, and job.sh files that only count."""

import dataclasses
import shlex
import tarfile
import time

import pytest

from scaling.core.errors import UserError
from tests.tpu.cloud import Cloud
from tpu.cloud.gcloud import READY, Gcloud, SliceRequest
from tpu.cloud.job import Job, bring_to_end, script
from tpu.flags import accelerator

ALIVE = {"states": [READY], "steps": 0, "end": 0}
SLICE = SliceRequest("vit", "us-central1-a", "", accelerator("v5litepod-8"), spot=True)
FOUR_HOSTS = dataclasses.replace(SLICE, accelerator=accelerator("v5litepod-16"))


def ending(*codes, after=0.3):
    """A job.sh that ends with one code after the other, each time that it is started."""
    return (
        f"cd ~/scaling; echo >> starts; set -- {shlex.join(map(str, codes))}; shift $(($(wc -l < starts) - 1))\n"
        f"echo $$ > pid; echo 'this is a job' > log; sleep {after}; echo $1 > exit_code\n"
    )


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    cloud = Cloud(tmp_path)
    monkeypatch.setenv("PATH", cloud.path)
    return cloud


@pytest.fixture
def archive(tmp_path):
    (tmp_path / "setup.sh").write_text("true\n")
    with tarfile.open(tmp_path / "scaling.tgz", "w:gz") as file:
        file.add(tmp_path / "setup.sh", "tpu/setup.sh")
    return tmp_path / "scaling.tgz"


def job_on(cloud, *lives, target=SLICE, gcloud=Gcloud):
    cloud.plan(*lives, workers=target.accelerator.hosts)
    job = Job(target, gcloud(False, 0.02))
    job.gcloud.run(target.create())
    return job


def starts(cloud):
    return [len(file.read_text()) for file in sorted(cloud.folder.glob("workers/*/scaling/starts"))]


@pytest.mark.long
class TestConnections:
    def test_one_that_fails_is_not_taken_for_a_job_that_does_not_run(self, cloud, archive, capfd, monkeypatch):
        job = job_on(cloud, ALIVE, target=FOUR_HOSTS)
        job.start(ending(0, after=60))
        monkeypatch.setattr(job, "follow", lambda lines: ["0"] * 4)
        cloud.faults("job: none")
        assert bring_to_end(job, archive, ending(0, after=60)) == 0
        assert "the job is running already: following it" in capfd.readouterr().out
        assert starts(cloud) == [1, 1, 1, 1]
        assert cloud.verbs() == ["create"]

    def test_workers_that_never_answer_end_the_wait_and_nothing_else(self, cloud, archive):
        job = job_on(cloud, ALIVE, target=FOUR_HOSTS)
        job.start(ending(0, after=60))
        cloud.faults(*["job: none"] * 20)
        with pytest.raises(UserError, match="only 0 of 4 workers of vit answer; `run` again follows the job"):
            bring_to_end(job, archive, ending(0, after=60))
        cloud.faults()
        assert job.survey() == ["running"] * 4

    def test_a_start_that_reached_only_some_workers_is_repeated_on_the_others_alone(self, cloud):
        job, text = job_on(cloud, ALIVE, target=FOUR_HOSTS), ending(0, after=60)
        cloud.plan(ALIVE, workers=3)
        job.start(text)
        cloud.plan(ALIVE, workers=4)
        assert sorted(job.survey()) == ["none", "running", "running", "running"]
        job.start(text)
        assert job.survey() == ["running"] * 4
        assert starts(cloud) == [1, 1, 1, 1]

    def test_another_run_starts_it_where_the_first_was_cut_off_before_it_did(self, cloud, archive):
        job, text = job_on(cloud, ALIVE, target=FOUR_HOSTS), ending(0, after=2)
        cloud.plan(ALIVE, workers=3)
        job.start(text)
        cloud.plan(ALIVE, workers=4)
        assert bring_to_end(job, archive, text) == 0
        assert starts(cloud) == [1, 1, 1, 1]
        assert cloud.verbs() == ["create"]

    def test_another_run_starts_it_where_workers_have_only_the_end_of_an_earlier_one(self, cloud, archive):
        job, text = job_on(cloud, ALIVE, target=FOUR_HOSTS), ending(0, 0, after=2)
        job.start(ending(143, after=0))
        while "running" in job.survey():
            pass
        job.setup(archive)
        cloud.plan(ALIVE, workers=3)
        job.start(text)
        cloud.plan(ALIVE, workers=4)
        assert bring_to_end(job, archive, text) == 0
        assert starts(cloud) == [2, 2, 2, 2]

    def test_a_network_that_is_gone_for_long_ends_nothing(self, cloud, archive, capfd, monkeypatch):
        monkeypatch.setattr("tpu.cloud.gcloud.LONGEST", 0.02)
        job = job_on(cloud, ALIVE)
        cloud.faults(*[" describe "] * 30)
        assert bring_to_end(job, archive, ending(0)) == 0
        assert capfd.readouterr().out.count("asking again until it can") == 1

    def test_nor_does_one_that_is_gone_while_a_job_is_compared(self, cloud, monkeypatch):
        monkeypatch.setattr("tpu.cloud.gcloud.LONGEST", 0.02)
        job = job_on(cloud, ALIVE)
        job.start(ending(0, after=60))
        cloud.faults(*[""] * 15)  # whatever is asked
        job.check_same(ending(0, after=60))


@pytest.mark.long
class TestAJobThatRuns:
    def test_it_is_not_replaced_and_keeps_its_code(self, cloud, archive):
        job = job_on(cloud, ALIVE)
        job.setup(archive)
        job.start(ending(0, after=60))
        for attempt in (lambda: job.start(ending(1)), lambda: job.setup(archive)):
            with pytest.raises(UserError, match="failed with code"):
                attempt()
        assert job.survey() == ["running"]
        assert (cloud.folder / "workers" / "0" / "scaling" / "code" / "tpu" / "setup.sh").exists()

    def test_another_one_is_not_followed_and_what_differs_is_named(self, cloud, archive):
        job = job_on(cloud, ALIVE)
        old, new = (
            f"sleep 60; exit\n{script(commit, {'A': 'b c'}, ['-m', 'train', f'--workdir=gs://b/it is {name}'])}"
            for commit, name in (("1a2b3c4", "old"), ("5d6e7f8", "new"))
        )
        job.start(old)
        cloud.faults("job.sh: ")
        message = (
            r"vit runs another job, with commit=1a2b3c4 --workdir=gs://b/it is old, here with commit=5d6e7f8 --work"
        )
        with pytest.raises(UserError, match=message):
            bring_to_end(job, archive, new)
        job.check_same(old)
        assert job.survey() == ["running"]

    @pytest.mark.parametrize(
        ("codes", "code", "said"),
        [
            ("143 143 143 143", 143, "stopped by `stop` after saving; `run` goes on"),
            ("0 0 0 0", 0, ""),
            ("75 3 75 75", 3, "stopped by `stop`, but it ended with "),
            ("75 143 75 75", 75, "stopped by `stop`, but it ended with "),
        ],
    )
    def test_after_stop_it_ends_with_its_own_code(self, cloud, archive, monkeypatch, capfd, codes, code, said):
        job = job_on(cloud, ALIVE, target=FOUR_HOSTS)
        text = (
            f'cd ~/scaling; set -- {codes}; shift $(basename ~); trap "echo $1 > exit_code; exit" TERM\n'
            "echo > log; echo $$ > pid; while true; do sleep 0.05; done\n"
        )
        job.start(text)
        monkeypatch.setattr(job, "_show", lambda lines: job.stop() or 0)
        assert bring_to_end(job, archive, text) == code
        assert said in capfd.readouterr().out
        assert cloud.verbs() == ["create"]


@pytest.mark.long
class TestRestarts:
    def test_ends_in_a_row_end_the_job(self, cloud, archive):
        job = job_on(cloud, ALIVE)
        with pytest.raises(UserError, match="the job ended 4 times in a row on a slice that is there, last with 75"):
            bring_to_end(job, archive, ending(75, 75, 75, 75, 0, after=0))

    def test_one_that_ran_long_begins_the_row_anew(self, cloud, archive, monkeypatch):
        monkeypatch.setattr("tpu.cloud.job.LONG", 0.2)
        job = job_on(cloud, ALIVE)
        assert bring_to_end(job, archive, ending(75, 75, 75, 75, 75, 0)) == 0


@pytest.mark.long
class TestASliceThatIsTakenAway:
    def preempted(self, cloud, *lives, gcloud=Gcloud):
        job = job_on(cloud, ALIVE, *lives, gcloud=gcloud)
        cloud.becomes("SUSPENDED")
        return job

    @pytest.mark.parametrize("verb", [" create ", " delete "])
    @pytest.mark.parametrize("done", [True, False], ids=["done but reported as failed", "failed"])
    def test_it_is_created_again_once_whatever_gcloud_reports(self, cloud, archive, verb, done):
        job = self.preempted(cloud, ALIVE)
        cloud.faults(f"queued-resources{verb}", done=done)
        assert bring_to_end(job, archive, ending(0)) == 0
        delete, create = (1 if done or verb != each else 2 for each in (" delete ", " create "))
        assert cloud.verbs() == ["create", *["delete"] * delete, *["create"] * create, "scp"]

    def test_one_that_another_run_has_created_again_is_left_alone(self, cloud, archive):
        class Slower(Gcloud):
            def run(self, command):
                if "delete" in command:
                    super().run(SLICE.delete())
                    super().run(SLICE.create())
                    raise UserError("NOT_FOUND, says gcloud of the slice that was there")
                super().run(command)

        job = self.preempted(cloud, ALIVE, gcloud=Slower)
        assert bring_to_end(job, archive, ending(0)) == 0
        assert cloud.verbs() == ["create", "delete", "create", "scp"]

    def test_one_that_another_run_is_about_to_create_is_waited_for(self, cloud, archive, monkeypatch):
        job, sleep = self.preempted(cloud, ALIVE), time.sleep
        job.gcloud.run(SLICE.delete())

        def create(seconds):
            monkeypatch.setattr(time, "sleep", sleep)
            job.gcloud.run(SLICE.create())

        monkeypatch.setattr(time, "sleep", create)
        assert bring_to_end(job, archive, ending(0)) == 0

    def test_one_that_the_user_deleted_is_not_created_again(self, cloud, archive):
        job = job_on(cloud, ALIVE)
        job.gcloud.run(SLICE.delete())
        with pytest.raises(UserError, match="vit was deleted"):
            bring_to_end(job, archive, ending(0))
        assert cloud.verbs() == ["create", "delete"]

    def test_a_request_that_fails_is_the_end_with_its_reason(self, cloud, archive):
        job = self.preempted(cloud, {**ALIVE, "states": ["PROVISIONING", "FAILED"]})
        with pytest.raises(UserError, match=r"vit is FAILED: Quota 'TPUs' exceeded\. Limit: 16; mend that"):
            bring_to_end(job, archive, ending(0))
        assert cloud.verbs() == ["create", "delete", "create"]
