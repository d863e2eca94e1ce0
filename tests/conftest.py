"""Every test runs on eight fake CPU devices; the setting must precede the import of jax."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8").strip()

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.bucket import Bucket

settings.register_profile("suite", deadline=None, max_examples=50)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Working directory and output of forty steps of the tiny model on one device, without interruption."""
    from tests.commands import train

    workdir = tmp_path_factory.mktemp("straight") / "run"
    return workdir, train(workdir).stdout


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images beside the checkout; tests that need them skip where they are absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the data sets beside the checkout (../shared/data)")
    return folder


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator["Bucket"]:
    """Cloud Storage on this machine, where gs://... of any bucket is read and written, in child processes too."""
    pytest.importorskip("gcsfs", reason="needs the extra [gcs]")
    from tests.bucket import serve

    with serve() as server:
        for name, value in server.variables.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture(scope="module")
def quick_compilation() -> Iterator[None]:
    """Compiles fast rather than well. The optimised programs are tested through the command line."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
