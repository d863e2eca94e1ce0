"""Keeping one job running on a slice, whatever gcloud reports: the fake gcloud, and job.sh files that only count."""

import time

import pytest

from scaling.core.errors import UserError
from tests.tpu.cloud import ALIVE, FOUR_HOSTS, LOCKED, ending, job_on
from tests.tpu.cloud import ONE_HOST as SLICE
from tpu.cloud.capacity import Capacity
from tpu.cloud.gcloud import Gcloud
from tpu.cloud.job import Job
from tpu.cloud.life import Run
from tpu.cloud.policy import Policy
from tpu.cloud.worker import script


def bring_to_end(job, archive, text):
    return Run(job, Capacity(job, (job.target,), pause=0.0), Policy()).to_its_end(archive, lambda place: text)


def starts(cloud):
    return [len(file.read_text()) for file in sorted(cloud.folder.glob("workers/*/scaling/starts"))]


@pytest.mark.long
class TestConnections:
    def test_one_that_fails_is_not_taken_for_a_job_that_does_not_run(self, cloud, archive, capfd, monkeypatch):
        job = job_on(cloud, ALIVE, target=FOUR_HOSTS)
        job.start(ending(0, after=60))
        monkeypatch.setattr(job, "follow", lambda lines: dict.fromkeys("0123", "0"))
        cloud.faults("job: $worker")
        assert bring_to_end(job, archive, ending(0, after=60)) == 0
        assert "the job is running already: following it" in capfd.readouterr().out
        assert starts(cloud) == [1, 1, 1, 1]
        assert cloud.verbs() == ["create"]

    def test_workers_that_never_answer_end_the_wait_and_nothing_else(self, cloud, archive):
        job = job_on(cloud, ALIVE, target=FOUR_HOSTS)
        job.start(ending(0, after=60))
        cloud.faults(*["job: $worker"] * 20)
        with pytest.raises(
            UserError,
            match="only 0 of 4 workers answer: workers 0, 1, 2, 3 do not answer; `run` again follows the job",
        ):
            bring_to_end(job, archive, ending(0, after=60))
        cloud.faults()
        assert list(job.survey().values()) == ["running"] * 4

    def test_a_start_that_reached_only_some_workers_is_repeated_on_the_others_alone(self, cloud):
        job, text = job_on(cloud, ALIVE, target=FOUR_HOSTS), ending(0, after=60)
        cloud.plan(ALIVE, workers=3)
        job.start(text)
        time.sleep(1.1)  # its name has seconds
        cloud.plan(ALIVE, workers=4)
        assert sorted(job.survey().values()) == ["none", "running", "running", "running"]
        job.start(text)
        assert list(job.survey().values()) == ["running"] * 4
        assert starts(cloud) == [1, 1, 1, 1]
        names = {file.read_text() for file in cloud.folder.glob("workers/*/scaling/attempt")}
        assert names == {f"{job.attempt}\n"}  # its logs are in one folder

    def test_another_run_starts_it_where_the_first_was_cut_off_before_it_did(self, cloud, archive):
        job, text = job_on(cloud, ALIVE, target=FOUR_HOSTS), ending(0, after=9)
        cloud.plan(ALIVE, workers=3)
        job.start(text)
        cloud.plan(ALIVE, workers=4)
        assert bring_to_end(job, archive, text) == 0
        assert starts(cloud) == [1, 1, 1, 1]
        assert cloud.verbs() == ["create"]

    def test_another_run_starts_it_where_workers_have_only_the_end_of_an_earlier_one(self, cloud, archive):
        job, text = job_on(cloud, ALIVE, target=FOUR_HOSTS), ending(0, 0, after=9)
        job.start(ending(143, after=0))
        while "running" in job.survey().values():
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
        assert job.survey() == {"0": "running"}
        assert (cloud.folder / "workers" / "0" / "scaling" / "code" / "tpu" / "setup.sh").exists()

    def test_another_one_is_not_followed_and_what_differs_is_named(self, cloud, archive):
        job = job_on(cloud, ALIVE)
        old, new = (
            f"{LOCKED}; echo $$ > pid; sleep 60; exit\n"
            + script(commit, {"A": "b c"}, ["train", f"--workdir=gs://b/it is {name}"], [])
            for commit, name in (("1a2b3c4", "old"), ("5d6e7f8", "new"))
        )
        job.start(old)
        cloud.faults("job.sh: ")
        message = (
            r"vit: runs another job, with commit=1a2b3c4 --workdir=gs://b/it is old, here with commit=5d6e7f8 --work"
        )
        with pytest.raises(UserError, match=message):
            bring_to_end(job, archive, new)
        job.check_same(old)
        assert job.survey() == {"0": "running"}

    @pytest.mark.parametrize(
        ("codes", "code", "said"),
        [
            ("143 143 143 143", 143, "stopped by `stop` after saving; `run` resumes"),
            ("0 0 0 0", 0, ""),
            ("75 3 75 75", 3, "stopped by `stop`, but it ended with "),
            ("75 143 75 75", 75, "stopped by `stop`, but it ended with "),
        ],
    )
    def test_after_stop_it_ends_with_its_own_code(self, cloud, archive, monkeypatch, capfd, codes, code, said):
        job = job_on(cloud, ALIVE, target=FOUR_HOSTS)
        text = (
            f'{LOCKED}; set -- {codes}; shift $(basename ~); trap "echo $1 > exit_code; exit" TERM\n'
            "echo > log; echo $$ > pid; while true; do sleep 0.05; done\n"
        )
        job.start(text)
        monkeypatch.setattr(job, "_show", lambda lines: job.stop() or 0)
        assert bring_to_end(job, archive, text) == code
        assert said in capfd.readouterr().out
        assert cloud.verbs() == ["create"]


@pytest.mark.long
class TestRestarts:
    """Counted since the newest checkpoint moved: a failure that repeats before the next one would be paid for ever."""

    def job(self, cloud, archive, *codes):
        job = job_on(cloud, ALIVE)
        job.workdir = "gs://bucket/run"
        return bring_to_end(job, archive, ending(*codes, after=0))

    def test_ends_without_a_newer_checkpoint_end_the_job(self, cloud, archive):
        (cloud.folder / "bucket" / "bucket" / "run" / "checkpoints" / "500").mkdir(parents=True)
        message = "the job ended 4 times on a slice that is there without a newer checkpoint than step 500, last with "
        with pytest.raises(UserError, match=message + "worker 0: 75"):
            self.job(cloud, archive, 75, 75, 75, 75, 0)

    def test_a_newer_checkpoint_begins_the_count_anew(self, cloud, archive, monkeypatch):
        steps = iter([1, 1, 1, 2, 2, 2, 3])
        monkeypatch.setattr(Job, "newest_checkpoint", lambda job: next(steps))
        assert self.job(cloud, archive, *[75] * 7, 0) == 0


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
            def run(self, command, *limit):
                if "delete" in command:
                    super().run(SLICE.delete())
                    super().run(SLICE.create())
                    raise UserError("NOT_FOUND, says gcloud of the slice that was there")
                super().run(command, *limit)

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
        with pytest.raises(UserError, match="vit: was deleted"):
            bring_to_end(job, archive, ending(0))
        assert cloud.verbs() == ["create", "delete"]

    def test_a_request_that_fails_is_the_end_with_its_reason(self, cloud, archive):
        job = self.preempted(cloud, {**ALIVE, "states": ["PROVISIONING", "FAILED"]})
        with pytest.raises(UserError, match=r"vit: is FAILED: Quota 'TPUs' exceeded\. Limit: 16; mend that"):
            bring_to_end(job, archive, ending(0))
        assert cloud.verbs() == ["create", "delete", "create"]
