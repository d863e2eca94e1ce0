"""`pip install DIR` into an empty environment: everything works from any folder."""

import json
import subprocess
import sys
import sysconfig

import pytest

from scaling import __version__
from scaling.__main__ import commands, usage
from tests.commands import ROOT, environment
from tests.front_door import image_folder, tiny_run

IN_PYTHON = """
    import importlib.metadata, importlib.util, json
    import numpy as np
    import scaling

    encoder = scaling.load("runs/tiny")
    small = scaling.slim(encoder, 0.25, ordering="svd", recovery="ridge", images="folder:tiles")
    small.save("runs/quarter")
    images = np.full((2, 16, 16, 3), 90, np.uint8)
    again = np.abs(scaling.load("runs/quarter").features(images) - small.features(images)).max()
    found = scaling.features(encoder, "folder:tiles")
    print(json.dumps({
        "where": scaling.__file__, "version": importlib.metadata.version("scaling"), "again": float(again),
        "features": found.features.shape, "tpu": importlib.util.find_spec("tpu") is not None,
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
    tiny_run(tmp_path)
    image_folder(tmp_path)
    # what it depends on is borrowed from here
    (packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")

    assert run(binaries / "scaling", "--help").strip() == usage()
    assert run(binaries / "scaling", "--version").strip() == f"scaling {__version__}"
    assert "vit_b" in run(binaries / "scaling", "describe", "--model=vit_b")
    assert run(binaries / "python", "-m", "scaling", "--help").strip() == usage()
    assert (packages / "scaling" / "configs" / "quickstart.py").is_file()
    assert (packages / "scaling" / "py.typed").is_file()
    assert {path.stem for path in (packages / "scaling").glob("*.py")} >= set(commands())
    code = "\n".join(line.removeprefix("    ") for line in IN_PYTHON.splitlines())
    said = json.loads(run(binaries / "python", "-c", code).splitlines()[-1])
    assert said["where"] == str(packages / "scaling" / "__init__.py")
    assert (said["version"], said["again"], said["features"], said["tpu"]) == (__version__, 0.0, [40, 32], False)
