"""A cloud in a folder, and the launcher on it. Tests that need the TPU compiler are skipped without libtpu."""

import importlib.util
import os
import shutil
import subprocess
import sys

import pytest

from tests.commands import ROOT
from tests.tpu.cloud import Cloud, archive_of


@pytest.fixture(scope="session")
def compiler() -> None:
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("needs libtpu, the TPU compiler: the extra [tpu]")


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """The code as a repository with one commit."""
    root = tmp_path_factory.mktemp("checkout")
    for name in ("scaling", "tpu", "configs"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / ".gitignore").write_text("__pycache__/\n")
    (root / "job.txt").write_text("first\n")
    git = ["git", "-C", str(root), "-c", "user.name=test", "-c", "user.email=test@localhost"]
    for arguments in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message=all"]):
        subprocess.run([*git, *arguments], check=True)
    return root


FORKS = """
import json, os, sys
from scaling import cli
from tpu import launch
for line in sys.stdin:
    call = json.loads(line)
    pid = os.fork()
    if not pid:
        for name, descriptor in (("out", 1), ("err", 2)):
            os.dup2(os.open(call[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        os.environ["PATH"] = call["path"]
        sys.argv = ["tpu/launch.py", *call["arguments"]]
        cli.run(launch.main)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.fixture(scope="session")
def forks(checkout):
    """A process that has imported the launcher, and forks for each command: importing takes most of its time."""
    process = subprocess.Popen(
        [sys.executable, "-c", FORKS],
        cwd=checkout,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.stdin.close()
    process.wait()


@pytest.fixture
def launcher(tmp_path, checkout, forks):
    """A cloud on which the launcher is called by its command line."""
    return Cloud(tmp_path, checkout, forks)


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    cloud = Cloud(tmp_path)
    monkeypatch.setenv("PATH", cloud.path)
    return cloud


@pytest.fixture
def archive(tmp_path):
    return archive_of(tmp_path, "true\n")
