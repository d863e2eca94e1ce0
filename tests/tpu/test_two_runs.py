"""Two `run`s on one slice, one of which may have slept: neither deletes, nor counts, what the other has."""

import dataclasses
import datetime
import json
import os
import time

import pytest

from scaling.core.errors import UserError
from tests.tpu.cloud import ALIVE, LOCKED, ONE_HOST, ending, job_on
from tpu.cloud.capacity import Capacity, places
from tpu.cloud.gcloud import Gcloud
from tpu.cloud.job import Job
from tpu.cloud.life import Run
from tpu.cloud.policy import OverError, Policy
from tpu.cloud.spent import Spent

HOUR = 3600.0


def run_of(job, policy):
    return Run(job, Capacity(job, (job.target,), pause=0.0), policy)


@pytest.fixture
def job(cloud):
    job = job_on(cloud, ALIVE, ALIVE, ALIVE)
    job.workdir = "gs://bucket/run"
    return job


def made(cloud, at):
    """The slice that is there was created then."""
    file = cloud.folder / "resource.json"
    when = datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat()
    file.write_text(json.dumps({**json.loads(file.read_text()), "made": when}))


def start_of(cloud, at, sign, name="0.log"):
    """A job that started then has given a sign of life in the bucket."""
    log = cloud.folder / "bucket/bucket/run/logs" / time.strftime("%Y%m%d-%H%M%S", time.gmtime(at)) / name
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()
    os.utime(log, (sign, sign))


def kept(cloud):
    return json.loads((cloud.folder / "bucket/bucket/run/spent.json").read_text())


def limit(cloud):
    return cloud.folder / "workers" / "0" / "scaling" / "limit"


class TestHours:
    @pytest.mark.parametrize("fraction", [0.3, 0.7])
    def test_of_a_slice_that_was_noted_end_with_its_last_sign_whatever_the_part_of_its_second(
        self, cloud, job, fraction
    ):
        at = float(round(time.time()) - 9 * HOUR) + fraction
        start_of(cloud, at + 60, at + 2 * HOUR)
        spent = Spent(job.gcloud, job.workdir)
        spent.lasts(at)
        assert spent.last_sign(at) == pytest.approx(at + 2 * HOUR, abs=1)
        spent.deleted(at, lived=False)
        assert spent.total() == pytest.approx(2, abs=0.01)

    @pytest.mark.parametrize("ended", [False, True])
    def test_of_slices_that_another_run_had_meanwhile_count(self, cloud, job, ended):
        at = time.time() - 9 * HOUR
        run = run_of(job, Policy("never", max_hours=20))
        made(cloud, at)
        run._recall()
        assert run._regain(create=False) is None
        assert job.until == pytest.approx(at + 20 * HOUR, abs=5)
        other = Spent(job.gcloud, job.workdir)  # while this machine sleeps
        other.lasted(at, at + 1 * HOUR)
        if ended:
            other.lasts(at + 2 * HOUR)  # which ended first
            start_of(cloud, at + 2 * HOUR + 60, at + 7 * HOUR)
        else:
            other.lasted(at + 2 * HOUR, at + 7 * HOUR)
        made(cloud, at + 8 * HOUR)
        job.seen = at
        assert run._regain(create=False) is None
        assert job.until == pytest.approx(at + 8 * HOUR + (20 - 6) * HOUR, abs=60)
        assert list(kept(cloud).values()) == [1.0, pytest.approx(5), None]

    @pytest.mark.long
    def test_a_job_that_is_followed_on_another_slice_counts_for_that(self, cloud, job, archive):
        waits = "for i in $(seq 150); do [ -f go ] && break; sleep 0.05; done"
        text = f"{LOCKED}; echo $$ > pid; echo > log; {waits}; echo 0 > exit_code\n"
        old, new = float(round(time.time()) - 9 * HOUR), float(round(time.time()) - HOUR)
        made(cloud, old)
        job.start(text)
        follow, calls = job.follow, []

        def following(lines):
            calls.append(lines)
            if len(calls) == 1:  # this machine sleeps, and the slice is replaced
                Spent(job.gcloud, job.workdir).lasted(old, old + 2 * HOUR)
                made(cloud, new)
                job.seen = old
            else:
                (limit(cloud).parent / "go").touch()
            return follow(lines)

        job.follow = following
        assert run_of(job, Policy("done")).to_its_end(archive, lambda _: text) == 0
        assert kept(cloud) == {str(round(old)): 2.0, str(round(new)): pytest.approx(1, abs=0.05)}

    def test_a_slice_that_is_there_has_not_ended_whatever_was_noted(self, cloud, job):
        at = time.time() - 9 * HOUR
        spent = Spent(job.gcloud, job.workdir)
        spent.lasted(at, at + 60)  # its deletion failed afterwards
        spent.lasts(at)
        start_of(cloud, at + 60, at + 2 * HOUR)
        spent.settle(living=0.0, lost=0.0, noted=0.0)
        assert spent.total() == pytest.approx(2, abs=0.01)

    def test_a_bucket_that_refuses_is_not_taken_for_one_without_hours_by_its_name(self, cloud, job):
        refused = "ERROR: (gcloud.storage.cat) does not have permission to access b instance [run404]"
        cloud.plan(ALIVE, workers=1, refuses={"spent.json": refused})
        with pytest.raises(UserError, match="does not tell the hours of the run"):
            Spent(job.gcloud, "gs://run404/vit").read()

    def test_those_that_are_mended_to_nonsense_while_a_run_continues_change_nothing(self, cloud, job):
        at = time.time() - 9 * HOUR
        spent = Spent(job.gcloud, job.workdir)
        spent.lasted(at, at + 2 * HOUR)
        file = cloud.folder / "bucket/bucket/run/spent.json"
        file.write_text(file.read_text().replace("2.0", "-50"))
        spent.lasted(at + 3 * HOUR, at + 4 * HOUR)
        assert spent.total() == 3

    def test_the_age_of_a_slice_that_is_told_late_is_not_another_slice(self, cloud, job):
        at = time.time() - 2 * HOUR
        made(cloud, at)
        run = run_of(job, Policy("never", max_hours=20))
        node, job.gcloud.node = job.gcloud.node, lambda *_, **__: type(node(job.target))()
        assert run._regain(create=False) is None
        job.gcloud.node = node
        time.sleep(0.01)
        assert run._regain(create=False) is None
        assert job.until == pytest.approx(at + 20 * HOUR, abs=1)
        assert list(kept(cloud).values()) == [None]


class TestDeletions:
    def test_a_broken_slice_that_another_run_has_replaced_is_not_replaced_again(self, cloud, job, archive):
        class Slower(Gcloud):
            def run(self, command, *limit):
                if "delete" in command and job.broken:
                    super().run(job.target.delete())
                    super().run(job.target.create())
                    raise UserError("NOT_FOUND, says gcloud of the slice that was there")
                super().run(command, *limit)

        run = run_of(job, Policy())
        job.gcloud = Slower(False, 0.02)
        run._regain(create=False)
        job.broken = "broken: its machines are UNHEALTHY"
        run._regain(create=False)
        assert cloud.verbs() == ["create", "delete", "create"]
        assert not job.broken

    def test_what_runs_on_another_slice_of_this_name_is_not_deleted_after_it(self, cloud, job, archive):
        text = ending(0, after=60)
        job.start(text)
        follow = job.follow

        def following(lines):
            made(cloud, time.time() - 60)
            (limit(cloud).parent / "job.sh").write_text("another\n")
            return follow(lines)

        job.follow = following
        with pytest.raises(UserError, match="runs another job"):
            run_of(job, Policy("end")).to_its_end(archive, lambda _: text)
        assert cloud.verbs() == ["create"]

    def test_a_slice_that_another_run_has_requested_in_another_zone_is_not_requested_twice(self, cloud):
        cloud.plan(ALIVE, ALIVE, workers=1)
        here, there = places(ONE_HOST, ["us-south1-ai1b"], on_demand=False)
        job = Job(dataclasses.replace(here, about=(("spent", "1.000"),)), Gcloud(False, 0.02))
        job.gcloud.run(there.create())
        found = Capacity(job, (here, there)).granted(create=True)
        assert (found.state, job.target.zone, job.target.about) == ("ACTIVE", "us-south1-ai1b", (("spent", "1.000"),))
        assert cloud.verbs() == ["create"]

    @pytest.mark.parametrize("error", [UserError, OverError])
    def test_an_end_here_leaves_the_slice_that_another_run_has_created_again(self, cloud, job, archive, error):
        old = float(round(time.time()) - 2 * HOUR)
        made(cloud, old)

        def setup(archive):
            made(cloud, time.time())
            raise error("something else")

        job.setup = setup
        with pytest.raises(error, match="something else"):
            run_of(job, Policy("end", max_hours=9)).to_its_end(archive, lambda _: ending(0))
        assert cloud.verbs() == ["create"]
        assert kept(cloud) == {str(round(old)): pytest.approx(2, abs=0.01)}

    def sleeping(self, cloud, job, text, *faults):
        """In the setup of the job this machine sleeps beyond its limit, and another `run` starts the job."""

        def setup(archive):
            job.start(text)
            limit(cloud).write_text(f"{round(time.time() + HOUR)}\n")
            job.started, job.told, job.until = False, False, time.time() - 60
            cloud.faults(*faults)
            job.gcloud.run(job.target.ssh("exit 65"))

        job.setup = setup
        return run_of(job, Policy("end", max_hours=2))

    def test_a_job_that_another_run_started_stays_where_its_limit_is_not_told(self, cloud, job, archive):
        text = ending(0, after=60)
        with pytest.raises(UserError, match="runs a job that another `run` has started") as raised:
            self.sleeping(cloud, job, text, *["echo limit:"] * 3).to_its_end(archive, lambda _: text)
        assert not isinstance(raised.value, OverError)
        assert cloud.verbs() == ["create"]
        assert float(limit(cloud).read_text()) > time.time()

    @pytest.mark.long
    def test_one_whose_workers_do_not_answer_at_once_is_followed_up_to_its_limit(self, cloud, job, archive):
        text = ending(0, after=4)
        run, limits = self.sleeping(cloud, job, text, *["job: $worker"] * 2), []
        follow, job.follow = job.follow, lambda lines: limits.append(limit(cloud).read_text()) or follow(lines)
        assert run.to_its_end(archive, lambda _: text) == 0
        assert float(limits[0]) == job.until > time.time()

    def test_a_job_that_may_have_another_limit_stays_if_no_worker_answers(self, cloud, job, archive, monkeypatch):
        monkeypatch.setattr("tpu.cloud.job.PATIENCE", 1)
        monkeypatch.setattr("tpu.cloud.limit.LATE", 0.0)
        text = ending(0, after=60)

        def follow(lines):
            job.until = time.time() - 9000
            cloud.faults(*["job: $worker"] * 9, *["echo limit:"] * 9)
            return job.survey()

        job.start(text)
        job.follow = follow
        with pytest.raises(UserError, match="only 0 of 1 workers answer"):
            run_of(job, Policy("never", max_hours=2)).to_its_end(archive, lambda _: text)
        assert cloud.verbs() == ["create"]


@pytest.mark.long
def test_a_limit_that_could_not_be_told_is_told_while_the_job_is_followed(cloud, job):
    job.start(ending(0, after=3))
    limit(cloud).write_text("1\n")  # of an earlier command, which gave less
    job.until, job.told = float(round(time.time() + HOUR)), False
    cloud.faults(*["> new && mv new limit"] * 3)
    job.keep_limit()
    assert job.follow("+1") == {"0": "0"}
    assert float(limit(cloud).read_text()) == job.until
