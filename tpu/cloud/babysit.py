"""Commands to run the launcher itself on a small virtual machine that stays on."""

import os
import shlex
from collections.abc import Sequence

from tpu.cloud.slices import SliceRequest
from tpu.cloud.worker import MIRROR

MACHINE = "e2-small"  # 2 GB: the launcher waits for gcloud most of the time
IMAGE = ("--image-family=ubuntu-2404-lts-amd64", "--image-project=ubuntu-os-cloud")
_SETUP = (
    "set -e; sudo apt-get -qq update; sudo apt-get -qq install -y git python3-venv; "
    "git clone -q scaling.bundle scaling; cd scaling; git checkout -q {commit}; "
    "python3 -m venv .venv; .venv/bin/pip install -q -r requirements.txt"
)


def commands(target: SliceRequest, commit: str, arguments: Sequence[str]) -> list[str]:
    """Shell commands that make a machine, ship this checkout and start `run` there; and one that removes the machine.

    The machine acts as its service account, with the roles that tpu/README.md names. `run` ends with the job, and the
    machine then turns itself off.
    """
    name = f"{target.name[:50]}-babysitter"
    place = [f"--zone={target.zone}", *([f"--project={target.project}"] if target.project else [])]
    account = dict(target.extras).get("service-account")
    machine = [
        *["gcloud", "compute", "instances", "create", name, *place, f"--machine-type={MACHINE}", *IMAGE],
        *["--scopes=cloud-platform", *([f"--service-account={account}"] if account else [])],
    ]
    ssh = ["gcloud", "compute", "ssh", name, *place]
    mirror = ["env", f"{MIRROR}={os.environ[MIRROR]}"] if os.environ.get(MIRROR) else []
    run = shlex.join([*mirror, ".venv/bin/python", "-m", "tpu.launch", "run", *arguments])
    job = f"cd scaling && {run} > ../launch.log 2>&1; sudo poweroff"
    return [
        shlex.join(machine),
        "git bundle create scaling.bundle HEAD",
        shlex.join(["gcloud", "compute", "scp", "scaling.bundle", f"{name}:", *place]),
        shlex.join([*ssh, f"--command={_SETUP.format(commit=commit)}"]),
        shlex.join([*ssh, f"--command=setsid -f bash -c {shlex.quote(job)} > /dev/null 2>&1 < /dev/null"]),
        shlex.join([*ssh, "--command=tail -f launch.log"]),
        shlex.join(["gcloud", "compute", "instances", "delete", name, *place, "--quiet"]),
    ]
