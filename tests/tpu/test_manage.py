"""What the launcher says and does of slices that are there, called as people call it."""

import dataclasses
import datetime
import json
import signal

import pytest

from scaling.core.errors import UserError
from tests.commands import error_of
from tests.tpu.cloud import ALIVE, FOUR_HOSTS, NAME, RUN, SLICE
from tpu.cloud.found import Found
from tpu.flags import accelerator


def test_a_stop_that_stops_nothing_is_an_error(launcher):
    launcher.plan(ALIVE)
    launcher.created()
    message = error_of(launcher.launch("stop", *NAME), 2)
    assert message.startswith("--name=vit: no job is running there; a `run` that follows it may start one again")


def test_one_query_that_is_lost_does_not_keep_a_job_from_being_stopped(launcher):
    launcher.plan({**ALIVE, "steps": 500}, workers=4)
    process = launcher.start("run", *RUN)
    while process.stdout.readline() != "step 1\n":
        pass
    launcher.faults("job: $worker")
    assert launcher.launch("stop", *NAME, "--poll=0.05").returncode == 0
    assert process.wait(60) == 143
    process.stdout.close()
    process.stderr.close()


@pytest.mark.parametrize(
    ("state", "remedy"),
    [
        ("SUSPENDED", "`run` creates it again; or `delete` it"),
        ("FAILED", "`run` creates it again; or `delete` it"),
        ("DELETING", "wait until it is gone"),
        ("ACCEPTED", "`create` asks for it and waits"),
    ],
)
def test_what_to_do_about_a_slice_that_is_not_ready(launcher, state, remedy):
    launcher.created()
    launcher.becomes(state)
    assert error_of(launcher.launch("logs", *NAME), 2).endswith(f"in us-central1-a; {remedy}")


class TestHours:
    """Of a slice that is deleted by hand."""

    def file(self, launcher):
        return launcher.folder / "bucket" / "bucket" / "run" / "spent.json"

    def create(self, launcher, state):
        """One that was created 30 hours ago."""
        launcher.plan(ALIVE, age=30)
        assert launcher.launch("create", *SLICE, "--spot", "--poll=0.01").returncode == 0
        resource = launcher.folder / "resource.json"
        found = json.loads(resource.read_text())
        found["tpu"]["nodeSpec"][0]["node"]["metadata"]["scaling-workdir"] = "gs://bucket/run/"  # as of `run`
        resource.write_text(json.dumps({**found, "states": [state]}))
        return found

    def deleted(self, launcher, state="ACTIVE", noted=None, fault=()):
        """The hours that are noted of one."""
        found = self.create(launcher, state)
        if noted is not None:
            self.file(launcher).parent.mkdir(parents=True)
            created = datetime.datetime.fromisoformat(found["made"]).timestamp()
            self.file(launcher).write_text(json.dumps({round(created): noted}))
        launcher.faults(*fault)
        assert launcher.launch("delete", *NAME, "--yes", "--poll=0.01").returncode == 0
        (hours,) = json.loads(self.file(launcher).read_text()).values()
        return hours

    def test_they_are_noted(self, launcher):
        assert self.deleted(launcher, fault=["tpu-vm describe"]) == pytest.approx(30, abs=0.05)

    def test_after_a_preemption_those_noted_stay(self, launcher):
        assert self.deleted(launcher, "SUSPENDED", noted=3.0) == 3.0

    def test_a_request_that_waits_has_none_and_is_deleted_at_once(self, launcher):
        self.create(launcher, "WAITING_FOR_RESOURCES")
        assert launcher.launch("delete", *NAME, "--yes", "--poll=0.01").returncode == 0
        assert sum("tpu-vm" in call for call in launcher.rows("calls")) == 1
        assert not self.file(launcher).exists()


def test_an_interrupted_request_is_not_forgotten(launcher):
    launcher.plan({**ALIVE, "states": ["ACCEPTED"]})
    process = launcher.start("create", *SLICE, "--poll=0.1")
    assert process.stdout.readline() == "vit is ACCEPTED\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "vit may have been requested, and is paid for once it is granted; `python -m tpu.launch delete" in out


def test_a_slice_that_waits_for_a_run_that_cannot_begin_is_named(launcher):
    launcher.created()
    launcher.plan(ALIVE, refuses={"storage cp": "ERROR: (gcloud.storage.cp) HTTPError 403"})
    done = launcher.launch("run", *RUN)
    error_of(done, 2)
    assert "vit stays, and is paid for, until `python -m tpu.launch delete" in done.stdout


class TestAnotherRequest:
    def v5p(self, **fields):
        return dataclasses.replace(FOUR_HOSTS, accelerator=accelerator("v5p-256"), **fields)

    def found(self, request, **fields):
        runtime = request.accelerator.chip.runtime
        return Found("ACTIVE", accelerator="v5p-256", runtime=runtime, spot=True, about=request.noted, **fields)

    def test_another_torus_is_another_slice(self):
        plain, untwisted = self.v5p(), self.v5p(topology="4x4x8_untwisted")
        untwisted.check_like(self.found(untwisted, topology="4x4x8"))
        plain.check_like(self.found(plain, topology="4x4x8"))
        for given, there in ((untwisted, plain), (plain, untwisted)):
            with pytest.raises(UserError, match=r"--name=vit: was created with another --topology, or without"):
                given.check_like(self.found(there, topology="4x4x8"))
        with pytest.raises(UserError, match=r"was created with --topology=4x8x8, not 4x4x8"):
            untwisted.check_like(self.found(untwisted, topology="4x8x8"))

    def test_so_are_other_flags_of_its_creation(self):
        plain, labelled = self.v5p(), self.v5p(passed=("--labels=team=eo",))
        labelled.check_like(self.found(labelled))
        with pytest.raises(UserError, match=r"was created with another --create_flags, or without"):
            labelled.check_like(self.found(plain))

    def test_of_a_slice_without_notes_nothing_is_said(self):
        """Of an earlier version, or created by hand."""
        self.v5p(topology="4x4x8_untwisted").check_like(dataclasses.replace(self.found(self.v5p()), about={}))
