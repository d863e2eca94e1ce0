"""What is paid for: slices after errors, at the limit, and over all slices of a run."""

import datetime
import json
import os
import re
import signal
import time

import pytest

from scaling.core.errors import UserError
from tests.tpu.cloud import ALIVE, FOUR_HOSTS, LOCKED, ONE_HOST, archive_of, ending, job_on
from tpu.cloud import keep, life
from tpu.cloud.capacity import Capacity, with_project
from tpu.cloud.gcloud import Gcloud
from tpu.cloud.job import Job
from tpu.cloud.life import Run, told_to_end
from tpu.cloud.policy import EndedError, OverError, Policy
from tpu.cloud.spent import Spent

DELETE = "`python -m tpu.launch delete --name=vit --zone=us-central1-a --yes`"


@pytest.fixture
def broken(tmp_path):
    """An archive whose setup fails."""
    return archive_of(tmp_path / "broken", "exit 1\n")


def bring_to_end(job, archive, text, policy, create=False):
    return Run(job, Capacity(job, (job.target,), pause=0.0), policy).to_its_end(archive, lambda place: text, create)


def setups(cloud):
    return sum("tpu/setup.sh" in call[-1] for call in cloud.rows("calls"))


class TestAnErrorBeforeTheJobStarts:
    @pytest.mark.parametrize(
        ("when", "said"),
        [("end", "deleting vit (--delete_when=end)"), ("done", f"vit stays, and is paid for, until {DELETE}")],
    )
    def test_a_setup_that_fails_by_itself(self, cloud, broken, capfd, when, said):
        job = job_on(cloud, ALIVE)
        with pytest.raises(UserError, match="failed with code 65"):
            bring_to_end(job, broken, ending(0), Policy(when))
        assert said in capfd.readouterr().out
        assert setups(cloud) == 3
        assert (cloud.folder / "resource.json").exists() == (when == "done")

    @pytest.mark.parametrize("ours", [True, False])
    def test_workers_that_never_answer_lose_their_slice_only_if_no_job_can_be_there(
        self, cloud, archive, capfd, monkeypatch, ours
    ):
        monkeypatch.setattr("tpu.cloud.job.PATIENCE", 1)
        job = job_on(cloud, ALIVE, ALIVE)
        if ours:
            job.gcloud.run(job.target.delete())
        cloud.faults(*["job: $worker"] * 9)
        with pytest.raises(UserError, match="only 0 of 1 workers answer"):
            bring_to_end(job, archive, ending(0), Policy("end"), create=True)
        assert (cloud.folder / "resource.json").exists() != ours
        stays = f"a job may be running on vit: vit stays, and is paid for, until {DELETE}"
        assert (stays in capfd.readouterr().out) != ours

    def test_a_job_that_runs_is_left_alone(self, cloud, archive, capfd):
        job = job_on(cloud, ALIVE)
        job.start(ending(0, after=60))
        with pytest.raises(UserError, match="runs another job"):
            bring_to_end(job, archive, ending(1, after=60), Policy("end"))
        assert "a job is still running on vit" in capfd.readouterr().out
        assert job.survey() == {"0": "running"}

    def test_the_limit_ends_the_tries(self, cloud, archive, monkeypatch):
        job = job_on(cloud, ALIVE)
        policy = Policy("never", max_hours=1)
        monkeypatch.setattr(job, "setup", lambda archive: setattr(job, "until", time.time() - 1))
        with pytest.raises(OverError, match="has had its time before its job could start"):
            bring_to_end(job, archive, ending(0), policy)
        assert cloud.verbs() == ["create", "delete"]

    def test_a_slice_that_cannot_be_deleted_is_named_beside_the_error(self, cloud, broken, capfd):
        job = job_on(cloud, ALIVE)
        cloud.faults(*["queued-resources delete"] * 3)
        with pytest.raises(UserError, match="failed with code 65"):
            bring_to_end(job, broken, ending(0), Policy("end"))
        assert f"it could not be deleted: vit stays, and is paid for, until {DELETE}" in capfd.readouterr().out


class TestMachinesThatAreGone:
    def test_a_slice_whose_machines_refuse_every_connection_is_replaced(self, cloud, archive, monkeypatch):
        """Preempted machines under a request that still says ACTIVE."""
        monkeypatch.setattr("tpu.cloud.job.PATIENCE", 1)
        job = job_on(cloud, ALIVE, ALIVE)
        cloud.faults(*["job: $worker"] * 9)
        (cloud.folder / "health.json").write_text(json.dumps({"state": "PREEMPTED", "health": ""}))
        job.replace_minutes = 0.02
        assert job.survey() == {}
        assert job.broken == "broken: its machines are PREEMPTED, of unknown health"

    def test_machines_that_recover_are_given_time_to_answer(self, cloud, monkeypatch):
        monkeypatch.setattr("tpu.cloud.job.PATIENCE", 3)
        job = job_on(cloud, ALIVE)
        job.start(ending(0, after=60))
        job.replace_minutes = 60
        health, looks = cloud.folder / "health.json", []
        health.write_text(json.dumps({"state": "REPAIRING", "health": ""}))
        cloud.faults(*["job: $worker"] * 7)
        there = Job.there

        def look(job):
            looks.append(1)
            if len(looks) == 7:
                health.unlink()  # well again, and its ssh not yet
            return there(job)

        monkeypatch.setattr(Job, "there", look)
        assert job.survey() == {"0": "running"}

    def test_a_limit_is_not_promised_where_no_keeper_waits_for_it(self, cloud, broken, capfd):
        job = job_on(cloud, ALIVE)
        job.ended = True  # an earlier start
        with pytest.raises(UserError, match="failed with code 65"):
            bring_to_end(job, broken, ending(0), Policy("never", max_hours=2))
        assert f"vit stays, and is paid for, until {DELETE}" in capfd.readouterr().out

    def test_a_start_without_a_newer_checkpoint_is_none_though_the_bucket_failed_once(
        self, cloud, archive, monkeypatch
    ):
        job = job_on(cloud, ALIVE)
        monkeypatch.setattr(life, "RESTARTS", 1)
        steps = iter([5, None, 5, 5])
        monkeypatch.setattr(job, "newest_checkpoint", lambda: next(steps))
        with pytest.raises(EndedError, match=r"ended 2 times .* without a newer checkpoint than step 5"):
            bring_to_end(job, archive, ending(*[1] * 9), Policy("never"))

    def test_how_an_earlier_job_ended_says_nothing_of_one_that_is_being_set_up(self, cloud, archive):
        job = job_on(cloud, ALIVE)
        job.start(ending(2))
        assert job.follow("+1") == {"0": "2"}
        assert job.attempt
        job.setup(archive)
        assert not job.attempt


class TestAnotherNumberOfWorkers:
    def test_more_are_an_end(self, cloud, archive):
        job = job_on(cloud, ALIVE)
        cloud.plan(ALIVE, workers=2)
        (cloud.folder / "workers" / "1").mkdir()
        job.replace_minutes = 0.001
        with pytest.raises(UserError, match=r"--accelerator=v5litepod-8: has 1 workers, but 2 answer; give the acc"):
            bring_to_end(job, archive, ending(0), Policy("end"))
        assert cloud.verbs() == ["create", "delete"]

    def test_slices_that_are_replaced_for_nothing_are_an_end(self, cloud, archive, monkeypatch):
        monkeypatch.setattr(life, "REPLACED", 1)
        job = job_on(cloud, ALIVE, ALIVE, ALIVE, target=FOUR_HOSTS)
        job.gcloud.run(job.target.delete())
        cloud.plan(ALIVE, ALIVE, ALIVE, workers=1)
        job.replace_minutes = 0.00001
        with pytest.raises(UserError, match=r"vit: is broken: workers 1, 2, 3 do not answer, as were the 1 slices"):
            bring_to_end(job, archive, ending(0), Policy("end"), create=True)
        assert cloud.verbs() == ["create", "delete"] * 3


class TestTheLimit:
    def aged(self, cloud, hours, spent=""):
        """The slice was created so long ago."""
        file = cloud.folder / "resource.json"
        resource = json.loads(file.read_text())
        made = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=hours)
        resource["made"] = made.isoformat()
        resource["tpu"]["nodeSpec"][0]["node"]["metadata"] = {"scaling-spent": spent} if spent else {}
        file.write_text(json.dumps(resource))
        return made.timestamp()

    def file(self, cloud):
        return cloud.folder / "workers" / "0" / "scaling" / "limit"

    def test_one_answer_that_is_missing_does_not_count_a_slice_twice(self, cloud, archive, monkeypatch):
        job = self.job(cloud)
        text = f"{LOCKED}; echo $$ > pid; echo > log; while [ ! -f go ]; do sleep 0.05; done; echo 0 > exit_code\n"
        job.start(text)
        made = self.aged(cloud, 1.2)
        Spent(job.gcloud, job.workdir).lasts(made)  # by an earlier `run`
        cloud.faults("tpu-vm describe")
        limits = []

        def keep_limit(job):
            job.told = True
            limits.append(job.until)
            self.file(cloud).with_name("go").touch()

        monkeypatch.setattr(Job, "keep_limit", keep_limit)
        assert bring_to_end(job, archive, text, Policy("never", max_hours=2)) == 0
        assert limits == [pytest.approx(made + 7200, abs=1)]
        assert job.target.about == (("spent", "0.000"),)

    def running(self, cloud, archive, monkeypatch, limit):
        """A run whose limit was reached long ago, with a job that has this one on worker 0."""
        monkeypatch.setattr("tpu.cloud.limit.SAVED", 1.0)
        monkeypatch.setattr("tpu.cloud.limit.LATE", 0.0)
        job = self.job(cloud)
        waits = "while [ ! -f go ]; do sleep 0.05; done"
        text = f"{LOCKED}; echo $$ > pid; echo > log; {waits}; echo 0 > exit_code\n"
        job.start(text)
        self.aged(cloud, 20)

        def keep_limit(job):  # later, another `run` gives this one
            job.told = True
            self.file(cloud).write_text(f"{limit}\n")

        there = Job.there

        def look(job):
            if job.changed:
                self.file(cloud).with_name("go").touch()
            return there(job)

        monkeypatch.setattr(Job, "keep_limit", keep_limit)
        monkeypatch.setattr(Job, "there", look)
        return job, text

    def test_another_run_may_have_given_a_running_job_more(self, cloud, archive, monkeypatch):
        job, text = self.running(cloud, archive, monkeypatch, limit=round(time.time()) + 9000)
        assert bring_to_end(job, archive, text, Policy("never", max_hours=6)) == 0
        assert job.until > time.time() + 8000

    def long_over(self, cloud, told):
        job = self.job(cloud)
        job.start(ending(0, after=60))
        job.until, job.told = time.time() - 9000, told
        return job

    def test_a_job_whose_limit_is_not_told_is_left_alone(self, cloud):
        job = self.long_over(cloud, told=True)
        cloud.faults(*["echo limit:"] * 3)
        assert job.survey() == {"0": "running"}
        self.file(cloud).write_text(f"{round(job.until)}\n")
        with pytest.raises(OverError, match="its job has not ended"):
            job.survey()

    def test_one_that_could_not_be_told_is_told_later_with_time_to_save(self, cloud):
        job = self.long_over(cloud, told=False)
        assert job.survey() == {"0": "running"}
        assert float(self.file(cloud).read_text()) == pytest.approx(time.time(), abs=30)

    def test_a_machine_that_slept_in_the_setup_does_not_end_the_job_of_another_run(self, cloud):
        job = self.long_over(cloud, told=True)
        job.started = False
        later = round(time.time()) + 9000
        self.file(cloud).write_text(f"{later}\n")
        job.in_time()
        assert job.until == later

    def test_a_success_whose_slice_is_gone_needs_no_more_hours(self, cloud, archive):
        job = self.job(cloud)
        run = Run(job, Capacity(job, (job.target,)), Policy("never", max_hours=1, spent=2))
        job.attempt = "20261130-000000"
        result = cloud.folder / "bucket/bucket/run/logs" / job.attempt / "0.result"
        result.parent.mkdir(parents=True)
        result.write_text("0\n")
        cloud.becomes("SUSPENDED")
        assert run._regain(create=False) == 0

    def test_a_slice_that_was_taken_away_is_not_said_to_be_paid_for(self, cloud, archive, capfd):
        job = self.job(cloud)
        job.attempt = "20261130-000000"
        result = cloud.folder / "bucket/bucket/run/logs" / job.attempt / "0.result"
        result.parent.mkdir(parents=True)
        result.write_text("0\n")
        cloud.becomes("SUSPENDED")
        assert bring_to_end(job, archive, ending(0), Policy("never")) == 0
        out = capfd.readouterr().out
        assert f"vit is SUSPENDED: nothing runs there, and {DELETE} removes it" in out
        assert "paid for" not in out

    def test_another_slice_of_this_name_has_another_limit(self, cloud):
        job = job_on(cloud, ALIVE)
        job.created, job.until, job.started = time.time() - 90000, time.time() - 9000, True
        job.start(ending(0, after=60))
        assert job.survey() == {}  # the slice of the job is lost

    def test_a_success_that_is_seen_late_is_one(self, cloud):
        job = self.job(cloud)
        job.start(ending(0))
        job.until = time.time() - 9000
        assert job.follow("+1") == {"0": "0"}

    def test_a_start_that_finds_the_job_running_gives_it_its_limit(self, cloud):
        job = self.job(cloud)
        text = ending(0, after=60)
        for hours in (10, 2):
            job.until = time.time() + 3600 * hours
            job.start(text)
            assert self.file(cloud).read_text() == f"{round(job.until)}\n"

    def test_hours_that_were_mended_in_the_file_stay_mended(self, cloud):
        job = self.job(cloud)
        made = self.aged(cloud, 1)
        spent = Spent(job.gcloud, job.workdir)
        spent.lasted(made - 9000, made - 9000 + 7200)
        spent.lasts(made)
        spent.settle(living=made, lost=0.0, noted=101.0)
        assert spent.total(but=made) == 2
        file = cloud.folder / "bucket" / "bucket" / "run" / "spent.json"
        file.write_text(file.read_text().replace("2.0", "1.0"))  # while that `run` continues
        spent.lasted(made, made + 3600)
        assert sorted(json.loads(file.read_text()).values()) == [1.0, 1.0]

    def test_a_job_that_does_not_end_at_it_loses_its_slice(self, cloud, archive, monkeypatch):
        monkeypatch.setattr("tpu.cloud.limit.SAVED", 1.0)
        monkeypatch.setattr("tpu.cloud.limit.LATE", 1.0)
        job = self.job(cloud)
        text = f"{LOCKED}; echo $$ > pid; echo > log; trap '' TERM; sleep 60\n"
        job.start(text)
        self.aged(cloud, 20)
        with pytest.raises(OverError, match="has had its time, and its job has not ended"):
            bring_to_end(job, archive, text, Policy("never", max_hours=6))
        assert cloud.verbs() == ["create", "delete"]

    def test_a_running_job_gets_the_one_that_is_given_now_or_none(self, cloud, capfd):
        job = self.job(cloud)
        job.start(ending(0, after=60))
        job.until = time.time() + 3600
        cloud.faults("> new && mv new limit")
        job.keep_limit()
        assert self.file(cloud).read_text() == f"{round(job.until)}\n"
        job.until = 0.0
        job.keep_limit()
        assert self.file(cloud).read_text() == "0\n"
        cloud.faults(*["> new && mv new limit"] * 3)
        job.keep_limit()
        assert "worker 0 could not be told the limit, and keeps the one that it has: " in capfd.readouterr().out

    def test_it_is_said_of_a_slice_that_stays_until_then(self, cloud, archive, capfd):
        job = self.job(cloud)
        assert bring_to_end(job, archive, ending(3), Policy("never", max_hours=2)) == 3
        at = time.strftime("%Y-%m-%d %H:%M", time.gmtime(job.until))
        assert f"stays, and is paid for, until its limit, {at} UTC, when worker 0" in capfd.readouterr().out

    def test_a_machine_that_slept_does_not_count_its_sleep(self, cloud, archive):
        job = self.job(cloud)
        made = self.aged(cloud, 9)
        run = Run(job, Capacity(job, (job.target,)), Policy("never", max_hours=20))
        run._created, job.seen = made, made + 3600
        log = cloud.folder / "bucket/bucket/run/logs" / time.strftime("%Y%m%d-%H%M%S", time.gmtime(made + 60)) / "0.log"
        log.parent.mkdir(parents=True)
        log.touch()
        os.utime(log, (made + 7200, made + 7200))
        run._gone()
        assert run.policy.spent == pytest.approx(2, abs=0.01)

    def test_a_slice_of_which_nothing_is_known_counts_until_now_and_that_is_said(self, cloud, capfd):
        job = self.job(cloud)
        spent = Spent(job.gcloud, job.workdir)
        spent.lasts(time.time() - 7200)
        spent.settle(living=0.0, lost=0.0, noted=0.0)
        assert spent.total() == pytest.approx(2, abs=0.01)
        assert re.search(r"nothing tells when .* UTC was deleted: 2\.0 hours are counted", capfd.readouterr().out)

    def test_a_bucket_that_does_not_tell_is_asked_again(self, cloud):
        job = self.job(cloud)
        cloud.plan(ALIVE, workers=1, refuses={"storage ls": "ERROR: (gcloud.storage.ls) HTTPError 503"})
        spent = Spent(job.gcloud, job.workdir)
        spent.lasts(time.time() - 7200)
        with pytest.raises(UserError, match=r"does not tell the hours of the run: .* 503"):
            spent.settle(living=0.0, lost=0.0, noted=0.0)

    @pytest.mark.parametrize(
        ("names", "waits"), [(("log",), 0), (("log", "result"), keep.LATE), (("result", "kept"), keep.SOON)]
    )
    def test_the_wait_of_worker_0_after_the_end_counts(self, cloud, names, waits):
        job = self.job(cloud)
        made = self.aged(cloud, 30)
        logs = cloud.folder / "bucket/bucket/run/logs" / time.strftime("%Y%m%d-%H%M%S", time.gmtime(made + 60))
        logs.mkdir(parents=True)
        for name in names:
            (logs / f"0.{name}").touch()
            os.utime(logs / f"0.{name}", (made + 7200, made + 7200))
        assert Spent(job.gcloud, job.workdir).last_sign(made) == pytest.approx(made + 7200 + waits, abs=1)

    @pytest.mark.parametrize("text", ['{"1700000000": "x"}', '{"1700000000": -1}', '{"a": 1}', "[]", '{"1": [2]}'])
    def test_a_file_of_hours_that_was_not_mended_well_is_one_line(self, cloud, text):
        job = self.job(cloud)
        file = cloud.folder / "bucket" / "bucket" / "run" / "spent.json"
        file.parent.mkdir(parents=True)
        file.write_text(text)
        with pytest.raises(UserError, match=r"^gs://bucket/run/spent.json: must have the hours of each slice"):
            Spent(job.gcloud, job.workdir).read()

    def kept(self, cloud):
        return json.loads((cloud.folder / "bucket" / "bucket" / "run" / "spent.json").read_text())

    def job(self, cloud):
        job = job_on(cloud, ALIVE, ALIVE)
        job.workdir = "gs://bucket/run"
        return job

    def test_a_slice_that_was_preempted_while_nobody_looked_counts(self, cloud, archive):
        job = self.job(cloud)
        made = self.aged(cloud, 30, spent="5.000")
        cloud.becomes("SUSPENDED")
        with pytest.raises(OverError, match=r"the run has had its 35\.5 hours; raise --max_hours"):
            bring_to_end(job, archive, ending(0), Policy("never", max_hours=35.5, spent=0.6))
        assert self.kept(cloud) == {"1": 5.0, str(round(made)): pytest.approx(30, abs=0.01)}

    def test_up_to_the_last_growth_of_its_log(self, cloud):
        job = self.job(cloud)
        made = self.aged(cloud, 30)
        for hours, start in ((20, made + 60), (2, made - 9000)):
            log = cloud.folder / "bucket/bucket/run/logs" / time.strftime("%Y%m%d-%H%M%S", time.gmtime(start)) / "0.log"
            log.parent.mkdir(parents=True)
            log.touch()
            os.utime(log, (time.time(), made + 3600 * hours))
        spent = Spent(job.gcloud, job.workdir)
        spent.lasts(made)
        spent.settle(living=0.0, lost=0.0, noted=0.0)
        assert spent.total() == pytest.approx(20, abs=0.01)

    def test_the_same_command_after_the_limit_creates_nothing(self, cloud, archive):
        job = self.job(cloud)
        self.aged(cloud, 20)
        for _ in range(2):
            with pytest.raises(OverError, match=r"has had its 6\.0 hours"):
                bring_to_end(job, archive, ending(0), Policy("never", max_hours=6), create=True)
            assert cloud.verbs() == ["create", "delete"]  # at the limit, whatever was wished
        assert list(self.kept(cloud).values()) == [pytest.approx(20, abs=0.01)]

    @pytest.mark.parametrize(("hours", "spent"), [(20, ""), (1, "8.000")])
    def test_a_job_that_is_still_running_saves_and_ends(self, cloud, archive, hours, spent):
        job = self.job(cloud)
        waits = "while [ $(cat limit) = 0 ]; do sleep 0.05; done"
        text = f"{LOCKED}; echo $$ > pid; echo > log; {waits}; echo 0 > exit_code\n"
        job.start(text)
        self.aged(cloud, hours, spent)
        assert bring_to_end(job, archive, text, Policy("end", max_hours=6)) == 0

    def test_hours_that_cannot_be_read_are_not_taken_for_none(self, cloud, archive):
        job = self.job(cloud)
        cloud.plan(ALIVE, workers=1, refuses={"spent.json": "ERROR: (gcloud.storage.cat) HTTPError 403: no access"})
        with pytest.raises(UserError, match=r"does not tell the hours of the run: ERROR: .* 403"):
            bring_to_end(job, archive, ending(0), Policy("never"))

    def test_the_time_of_the_setup_counts(self, cloud, archive, monkeypatch):
        job = self.job(cloud)
        made = self.aged(cloud, 0.5)
        limits = []
        monkeypatch.setattr(Job, "start", lambda job, script: limits.append(job.until))
        monkeypatch.setattr(Job, "follow", lambda job, lines: {"0": "0"})
        assert bring_to_end(job, archive, ending(0), Policy("never", max_hours=2)) == 0
        assert limits == [pytest.approx(made + 7200, abs=1)]

    def test_at_it_the_slice_is_deleted_whatever_was_wished(self, cloud, archive, monkeypatch, capfd):
        job = self.job(cloud)
        monkeypatch.setattr(Job, "start", lambda job, script: None)
        monkeypatch.setattr(Job, "follow", lambda job, lines: {"0": "143_over"})
        assert bring_to_end(job, archive, ending(0), Policy("never", max_hours=2)) == 143
        assert "deleting vit (its time is over)" in capfd.readouterr().out
        assert cloud.verbs() == ["create", "scp", "delete"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_an_interrupt_unless_it_is_ignored(number):
    before = signal.signal(number, signal.SIG_DFL)  # under nohup, the tests themselves ignore SIGHUP
    try:
        with pytest.raises(KeyboardInterrupt) as caught, told_to_end():
            signal.raise_signal(number)
        assert caught.value.args == (number,)
        signal.signal(number, signal.SIG_IGN)
        with told_to_end():
            signal.raise_signal(number)
    finally:
        signal.signal(number, before)


def test_worker_0_deletes_in_the_project_that_gcloud_uses_here(cloud):
    cloud.plan(ALIVE, project="my-project")
    (place,) = with_project(Gcloud(False, 1), (ONE_HOST,))
    assert "--project=my-project" in place.delete(wait=False)
