"""The commands that start `run` on a machine that stays on."""

import shlex
import subprocess

from tests.commands import ROOT, error_of
from tests.tpu.cloud import DATA, RUN
from tpu.cloud import babysit
from tpu.cloud.slices import SliceRequest
from tpu.flags import accelerator


def test_the_same_run_is_started_there_wherever_its_verb_stands(launcher):
    done = launcher.launch(RUN[0], "run", *RUN[1:], "--dry-run", "--babysit", "--zones=us-central1-b,us-central1-c")
    (line,) = [line for line in done.stdout.splitlines() if "tpu.launch" in line]
    (inner,) = [word for word in shlex.split(shlex.split(line)[-1]) if "tpu.launch" in word]
    words = shlex.split(inner)
    assert words.count("run") == 1
    zones = "--zones=us-central1-b,us-central1-c"
    assert {"--name=vit", zones, "--spot", "--delete_when=never", DATA, "--config=configs/vit_ti.py"} <= set(words)
    assert "--dry-run" not in words
    assert "--dry_run" not in words


def test_changes_that_no_clone_has_are_refused(launcher):
    message = error_of(launcher.launch("run", *RUN, "--babysit", "--allow-dirty"), 2)
    assert message.startswith("--allow_dirty: is not for --babysit")


def test_the_place_of_python_goes_along(monkeypatch):
    monkeypatch.setenv("UV_PYTHON_INSTALL_MIRROR", "https://mirror")
    target = SliceRequest("vit", "us-central1-a", "", accelerator("v5litepod-8"))
    (line,) = [line for line in babysit.commands(target, "1a2b3c4", []) if "tpu.launch" in line]
    assert "env UV_PYTHON_INSTALL_MIRROR=https://mirror .venv/bin/python" in line


def test_the_shipped_file_does_not_make_the_checkout_dirty():
    assert subprocess.run(["git", "-C", ROOT, "check-ignore", "--quiet", "scaling.bundle"]).returncode == 0
