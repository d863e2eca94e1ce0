"""The code on its way to the workers: into the bucket once, and from there to every worker of every slice."""

import subprocess
import tarfile
import types

import pytest

from scaling.core.errors import UserError
from tests.commands import error_of
from tests.tpu.cloud import ALIVE, FOUR_HOSTS, RUN, job_on
from tpu.cloud import options, shipment, worker
from tpu.cloud.worker import SENT

WORKDIR = "gs://bucket/it's a run"


@pytest.fixture
def job(cloud, archive):
    job = job_on(cloud, ALIVE, target=FOUR_HOSTS)
    job.source = shipment.stored(job.gcloud, archive, "1a2b3c4", WORKDIR)
    return job


def objects(cloud):
    return sorted(path for path in (cloud.folder / "bucket").rglob("*") if path.is_file())


class TestCode:
    def test_it_is_sent_once_and_every_worker_takes_it_from_the_bucket(self, cloud, archive, job):
        (stored,) = objects(cloud)
        assert stored.parent == cloud.folder / "bucket" / "bucket" / "it's a run" / "code"
        before = stored.stat()
        assert shipment.stored(job.gcloud, archive, "1a2b3c4", f"{WORKDIR}/") == job.source
        assert objects(cloud) == [stored]
        assert stored.stat().st_ino == before.st_ino
        job.setup(archive)
        assert cloud.verbs() == ["create"]  # no scp
        for k in range(4):
            assert (cloud.folder / "workers" / str(k) / "scaling" / "code" / "tpu" / "setup.sh").exists()

    @pytest.mark.parametrize("harm", ["damaged", "deleted"])
    def test_one_that_is_not_what_was_sent_replaces_nothing(self, cloud, archive, job, harm, capfd):
        job.setup(archive)
        (stored,) = objects(cloud)
        stored.write_bytes(stored.read_bytes()[:-9]) if harm == "damaged" else stored.unlink()
        with pytest.raises(UserError, match="failed with code 65"):
            job.setup(archive)
        assert ("scaling.tgz: FAILED" if harm == "damaged" else "matched no objects") in "".join(capfd.readouterr())
        assert (cloud.folder / "workers" / "3" / "scaling" / "code" / "tpu" / "setup.sh").exists()

    def test_one_that_does_not_come_in_time_is_named(self, tmp_path, job, monkeypatch):
        monkeypatch.setattr(worker, "FETCHING", 1)
        (tmp_path / "gcloud").write_text("#!/bin/sh\nexec sleep 60\n")
        (tmp_path / "gcloud").chmod(0o755)
        environment = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin"}
        command = ["bash", "-c", worker.setup(job.source)]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (65, f"{job.source.code}: did not come within 1 seconds\n")

    def test_a_working_directory_on_a_disk_leaves_it_to_scp(self, cloud, archive, job):
        assert shipment.stored(job.gcloud, archive, "1a2b3c4", "/runs/vit") == SENT
        job.source = SENT
        job.setup(archive)
        assert cloud.verbs() == ["create", "scp"]

    def test_the_place_of_python_reaches_the_workers(self, cloud, archive, job, monkeypatch):
        monkeypatch.setenv("UV_PYTHON_INSTALL_MIRROR", "https://mirror/a b")
        flags = types.SimpleNamespace(bundle="", workdir=WORKDIR, internal_ips=False)
        with tarfile.open(archive, "w:gz") as file:
            (archive.parent / "setup.sh").write_text('echo "$UV_PYTHON_INSTALL_MIRROR" > mirror\n')
            file.add(archive.parent / "setup.sh", "tpu/setup.sh")
        job.source = options.source_of(flags, job.gcloud, archive, "1a2b3c4")
        monkeypatch.delenv("UV_PYTHON_INSTALL_MIRROR")
        job.setup(archive)
        assert (cloud.folder / "workers" / "3" / "scaling" / "mirror").read_text() == "https://mirror/a b\n"

    def test_a_bucket_that_refuses_it_costs_nothing(self, launcher):
        refusal = "ERROR: (gcloud.storage.cp) [me] does not have permission to access b instance [bucket]"
        launcher.plan(ALIVE, refuses={"storage cp": f"Copying file...\n{refusal}"})
        message = error_of(launcher.launch("run", *RUN), 2)
        assert message.startswith(f"--workdir=gs://bucket/runs/it's a run: does not take the code: {refusal}; give a")
        assert launcher.verbs() == []
