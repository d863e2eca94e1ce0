"""`pip install DIR` into an empty environment: everything works from any folder."""

import json
import subprocess
import sys
import sysconfig

import numpy as np
import pytest

from scaling import __version__
from scaling.__main__ import commands, usage
from tests.commands import ROOT, environment
from tests.front_door import code_blocks, image_folder, tiny_run

WHERE = """
import importlib.metadata, importlib.util, json
print(json.dumps({
    "where": scaling.__file__, "version": importlib.metadata.version("scaling"), "features": found.features.shape,
    "again": float(np.abs(scaling.load("runs/quarter").features(images) - small.features(images)).max()),
    "tpu": importlib.util.find_spec("tpu") is not None,
}))
"""


@pytest.mark.long
def test_it_installs_into_an_empty_environment_and_works_in_another_folder(tmp_path):
    def run(*words):
        done = subprocess.run(
            words, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(sys.executable, "-m", "venv", "venv")
    binaries = tmp_path / "venv" / "bin"
    run(binaries / "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", str(ROOT))
    tiny_run(tmp_path, "quickstart", depth=6)
    image_folder(tmp_path)
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8))
    (tmp_path / "results").symlink_to(ROOT / "results")
    # what it depends on is borrowed from here
    (packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")

    assert run(binaries / "scaling", "--help").strip() == usage()
    assert run(binaries / "scaling", "--version").strip() == f"scaling {__version__}"
    assert "vit_b" in run(binaries / "scaling", "describe", "--model=vit_b")
    assert run(binaries / "python", "-m", "scaling", "--help").strip() == usage()
    assert (packages / "scaling" / "configs" / "quickstart.py").is_file()
    assert (packages / "scaling" / "py.typed").is_file()
    assert (packages / "scaling" / "published" / "slimming.rows.jsonl").is_file()  # for scaling reproduce
    assert {path.stem for path in (packages / "scaling").glob("*.py")} >= set(commands())
    (readme,) = code_blocks("README.md")
    said = json.loads(run(binaries / "python", "-c", readme + WHERE).splitlines()[-1])
    assert said["where"] == str(packages / "scaling" / "__init__.py")
    assert (said["version"], said["again"], said["features"], said["tpu"]) == (__version__, 0.0, [40, 32], False)
