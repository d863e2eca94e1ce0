"""A folder that the fake gcloud plays Cloud TPU in, the launcher's command line on it, and jobs that only count."""

import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile

from tests.commands import ROOT
from tpu.cloud.found import READY
from tpu.cloud.gcloud import Gcloud
from tpu.cloud.job import Job
from tpu.cloud.slices import SliceRequest
from tpu.flags import accelerator

NAME = ("--name=vit", "--zone=us-central1-a", "--project=my-project")
SLICE = (*NAME, "--accelerator=v5litepod-16")
DATA = "--config.data.source=arrayrecord:gs://bucket/data"
RUN = (
    *SLICE,
    "--config=vit_ti.py",
    "--workdir=gs://bucket/runs/it's a run",
    DATA,
    "--spot",
    "--delete-when=never",
    "--poll=0.05",
)
WAYS_TO_ACTIVE = ["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]


class Cloud:
    """A folder that the fake gcloud plays in."""

    def __init__(self, folder, checkout=ROOT, forks=None):
        self.folder, self.checkout, self.forks = folder, checkout, forks
        self.plan({"states": WAYS_TO_ACTIVE, "steps": 3, "end": 0})
        for name in ("gcloud", "python3", "hostname", "sudo"):
            path = folder / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/tests/tpu/fake_gcloud {folder} {name} "$@"\n')
            path.chmod(0o755)
        (folder / "path").mkdir()
        self.path = f"{folder / 'path'}:{os.environ['PATH']}"
        (folder / "path" / "gcloud").symlink_to(folder / "bin" / "gcloud")

    def plan(self, *lives, workers=4, **more):
        (self.folder / "plan.json").write_text(json.dumps({"workers": workers, "lives": lives, **more}))

    def faults(self, *calls, done=False):
        """Makes gcloud fail once for each of these parts of a call; with `done` after carrying out the request."""
        (self.folder / "faults.json").write_text(json.dumps([{"match": call, "done": done} for call in calls]))

    def start(self, *arguments, path=None):
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PATH": path or self.path}
        return subprocess.Popen(
            [sys.executable, "-m", "tpu.launch", *arguments],
            cwd=self.checkout,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # under nohup, the tests ignore it
        )

    def launch(self, *arguments, path=None):
        if self.forks is None:
            process = self.start(*arguments, path=path)
            out, err = process.communicate(timeout=120)
            return subprocess.CompletedProcess(arguments, process.returncode, out, err)
        files = {name: self.folder / name for name in ("out", "err")}
        call = {name: str(file) for name, file in files.items()}
        self.forks.stdin.write(json.dumps({**call, "path": path or self.path, "arguments": arguments}) + "\n")
        self.forks.stdin.flush()
        code = int(self.forks.stdout.readline())
        return subprocess.CompletedProcess(arguments, code, *(file.read_text() for file in files.values()))

    def play(self, what):
        """What no call of gcloud does: `preempt`, which returns when the machines are gone, or `end` everything."""
        subprocess.run([sys.executable, f"{ROOT}/tests/tpu/fake_gcloud", self.folder, what], check=True)

    def becomes(self, state):
        resource = self.folder / "resource.json"
        resource.write_text(json.dumps({**json.loads(resource.read_text()), "states": [state]}))

    def rows(self, name):
        path = self.folder / f"{name}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def verbs(self):
        """The calls that change something, in order."""
        calls = [call for call in self.rows("calls") if call[0] == "alpha" or call[1] == "tpus"]
        verbs = [next(a for a in call[3:] if not a.startswith("--")) for call in calls]
        return [verb for verb in verbs if verb in ("create", "delete", "scp")]

    def copies(self):
        """Copies of the code between here, the bucket and the workers: their sources and targets, in order."""
        calls = [call for call in self.rows("calls") if call[:2] == ["storage", "cp"]]
        copies = [[a for a in call[2:] if not a.startswith("--")] for call in calls]
        return [copy for copy in copies if not copy[-1].endswith("/spent.json")]

    def created(self):
        done = self.launch("create", *SLICE, "--spot", "--poll=0.01")
        assert done.returncode == 0, done.stderr
        return done


ALIVE = {"states": [READY], "steps": 0, "end": 0}
ONE_HOST = SliceRequest("vit", "us-central1-a", "", accelerator("v5litepod-8"), spot=True)
LOCKED = "cd ~/scaling; exec 8>alive; flock 8"
FOUR_HOSTS = dataclasses.replace(ONE_HOST, accelerator=accelerator("v5litepod-16"))


def ending(*codes, after=0.3):
    """A job.sh that ends with one code after the other, each time that it is started."""
    return (
        f"{LOCKED}; echo >> starts; set -- {shlex.join(map(str, codes))}; shift $(($(wc -l < starts) - 1))\n"
        f"echo $$ > pid; echo 'this is a job' > log; sleep {after}; echo $1 > exit_code\n"
    )


def job_on(cloud, *lives, target=ONE_HOST, gcloud=Gcloud):
    cloud.plan(*lives, workers=target.accelerator.hosts)
    job = Job(target, gcloud(False, 0.02))
    job.gcloud.run(target.create())
    return job


def archive_of(folder, setup):
    """An archive of code that has nothing but this text of a setup.sh."""
    folder.mkdir(exist_ok=True)
    (folder / "setup.sh").write_text(setup)
    with tarfile.open(folder / "scaling.tgz", "w:gz") as file:
        file.add(folder / "setup.sh", "tpu/setup.sh")
    return folder / "scaling.tgz"
