"""The shell text of the workers, run by bash in a home directory."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.commands import ROOT
from tests.tpu.cloud import archive_of
from tpu.cloud import worker
from tpu.cloud.keep import alive

KEEPER = "import sys; from tpu.cloud import keep; keep.SAVED = keep.SOON = 0.3; keep.main()"
PYTHON = f"""#!/bin/sh
if [ "$3" = tpu.cloud.keep ]; then shift 3; exec {sys.executable} -c "{KEEPER}" "$@"; fi
exec {sys.executable} "$@"
"""


class Home:
    """The home directory of worker 0, where job.sh is run by this Python and waits for nothing longer than a second."""

    def __init__(self, folder):
        self.folder, self.here = folder, folder / "scaling"
        (self.here / "code").mkdir(parents=True)
        for path, text in (
            (self.here / "venv/bin/python", PYTHON),
            (folder / "bin/hostname", "#!/bin/sh\necho t1v-n-0-w-0\n"),
            (folder / "bin/sudo", "#!/bin/sh\nexit 1\n"),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755)
        self.environment = {**os.environ, "HOME": str(folder), "PATH": f"{folder}/bin:{os.environ['PATH']}"}
        self.environment["PYTHONPATH"] = str(ROOT)

    def bash(self, text):
        return subprocess.run(
            ["bash", "-c", text], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=60
        )

    def start(self, text):
        return subprocess.Popen(["bash", "-c", text], cwd=self.here, env=self.environment, start_new_session=True)

    def read(self, name):
        return (self.here / name).read_text()

    def wait_for(self, name, text=""):
        deadline = time.monotonic() + 20
        while not ((self.here / name).exists() and text in self.read(name)):
            assert time.monotonic() < deadline, f"no {text} in {name}"
            time.sleep(0.05)


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


HANGS = (
    "import signal, subprocess, time; signal.signal(15, lambda *_: time.sleep(60));"
    "print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
)


def test_a_job_that_is_killed_after_its_limit_has_an_exit_code_and_nothing_of_it_is_left(home):
    keeper = ["--delete=touch deleted", "--delete-when=never"]
    job = home.start(worker.script("1a2b3c4", {}, ["-c", HANGS], keeper))
    home.wait_for("log", "\n")
    (home.here / "limit").write_text("1\n")
    assert job.wait(20) == 0
    assert home.read("exit_code") == "137\n"
    started, said = home.read("log").splitlines()
    assert said == "the job had not ended 0 seconds after its limit, and was killed"
    assert not alive(int(started))
    assert (home.here / "code" / "deleted").exists()


# "systemd.service", "systemd.kill", "systemd.exec" and "systemd.unit" of the manual, with the version that has it
DOCUMENTED = {
    "After": 1, "KillMode": 187, "SendSIGHUP": 207, "TimeoutStopSec": 188, "LimitMEMLOCK": 1, "LimitNOFILE": 1,
    "OOMPolicy": 243,
}  # fmt: skip
UBUNTU_2004 = 245  # the oldest systemd of the TPU images


def test_systemd_keeps_the_keeper_of_a_training_that_is_killed_for_its_memory():
    given = dict(re.findall(r"--property=(\w+)=(\S+)", worker.start("", "", 0)))
    assert given["OOMPolicy"] == "continue"
    assert all(DOCUMENTED[name] <= UBUNTU_2004 for name in given)


class TestWhatAnEarlierJobLeft:
    @pytest.fixture
    def holder(self, home):
        """Something that holds `alive` after the end of a job, as its keeper does until it deletes the slice."""
        process = home.start("exec 8>alive; flock 8; echo > held; exec sleep 60")
        home.wait_for("held")
        for name, text in (("exit_code", "75"), ("job.sh", "exit 1"), ("attempt", "first")):
            (home.here / name).write_text(f"{text}\n")
        yield process
        process.kill()
        process.wait()

    def test_the_deletion_that_it_waits_for_does_not_hit_the_next_setup(self, home, holder):
        (home.here / "session").write_text(f"{holder.pid}\n")
        archive_of(home.folder, "exec flock -w 5 alive true\n")
        done = home.bash(worker.setup(worker.SENT))
        assert (done.returncode, done.stderr) == (0, "")
        assert holder.wait(5) == -signal.SIGKILL

    def test_what_cannot_be_ended_is_not_taken_for_the_next_job(self, home, holder):
        done = home.bash(worker.start("exit 1", "second", 0).replace(f"seq {worker.GRACE}", "seq 1"))
        held = f"an earlier job holds the chips or {home.here}/alive, and cannot be ended; delete the slice\n"
        assert (done.returncode, done.stderr) == (worker.FAILED, held)
        assert home.bash(worker.STATE).stdout == "job: 0 75 first\n"


def test_a_start_after_which_nothing_runs_has_failed(home):
    done = home.bash(worker.start("exit 1", "first", 0).replace(f"seq {10 * worker.STARTING}", "seq 1"))
    assert (done.returncode, done.stderr) == (worker.FAILED, "the job has not started within 30 seconds\n")
    assert home.bash(worker.STATE).stdout == "job: 0 137 first\n"


def test_a_limit_is_not_told_where_there_is_no_job(home):
    (home.folder / "scaling").rename(home.folder / "other")
    assert home.bash(worker.limit(1.0)).returncode == 1
    assert not (home.folder / "limit").exists()


class TestAnotherUser:
    """Whoever connects from the machine of a colleague has another home directory, and the same chips."""

    def of(self, folder):
        home = Home(folder / "alice")
        bash = home.bash
        home.bash = lambda text: bash(text.replace(worker.HOMES, f"{folder}/*"))
        return home

    @pytest.fixture
    def other(self, tmp_path):
        home = Home(tmp_path / "bob")
        process = home.start("exec 8>alive; flock 8; echo > held; exec sleep 60")
        home.wait_for("held")
        yield process
        process.kill()
        process.wait()

    @pytest.mark.parametrize("text", [worker.setup(worker.SENT), worker.start("", "", 0), worker.STOP])
    def test_its_job_is_neither_killed_nor_joined_by_another(self, tmp_path, other, text):
        home = self.of(tmp_path)
        done = home.bash(text)
        why = "has a job here, or one that ended and will delete this slice"
        said = f"another user, bob, {why}; continue as that user\n"
        assert (done.returncode, done.stderr) == (worker.FAILED, said)
        assert (home.here / "code").exists()
        assert home.bash(worker.STATE).stdout == "job: 0 running\n"  # whoever asks must not delete the slice
        assert other.poll() is None

    def test_one_that_has_gone_is_in_nobodys_way(self, tmp_path, other):
        other.kill()
        other.wait()
        home = self.of(tmp_path)
        archive_of(home.folder, "true\n")
        assert home.bash(worker.setup(worker.SENT)).returncode == 0
        assert home.bash(worker.STATE).stdout == "job: 0 none\n"
