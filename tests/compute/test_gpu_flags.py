"""XLA's flags for GPUs exist in the installed jaxlib, which ends the process on others."""

import os
import subprocess
import sys
from pathlib import Path

from scaling.compute.gpu_flags import BUNDLES

README = Path(__file__).resolve().parents[2] / "README.md"


def started(flags):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(flags)}
    command = [sys.executable, "-c", "import jax; print(len(jax.devices()))"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_xla_knows_all_of_them():
    done = started(flag for bundle in BUNDLES.values() for flag in bundle)
    assert done.stdout == "1\n", done.stderr


def test_xla_would_say_so_if_it_did_not():
    done = started(["--xla_gpu_no_such_flag=true"])
    assert done.returncode != 0
    assert "xla_gpu_no_such_flag" in done.stderr


def test_the_readme_shows_what_several_gpus_want():
    assert f'XLA_FLAGS="{BUNDLES["overlap"][0]}"' in README.read_text()
