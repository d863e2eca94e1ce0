"""Every test runs on eight fake CPU devices; the setting must precede the import of jax.

Programs are compiled fast rather than well, and once: the tests compile for minutes and compute for seconds. Optimised
programs are tested by `tests/test_train.py`, through the command line.
"""

import fcntl
import functools
import gc
import os
import shutil
import signal

from tests import QUICK

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8 {QUICK}".strip()

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell; child processes inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import jax
import pytest
from hypothesis import settings

from scaling.training.step import TrainStep
from tests.commands import cache_folder, optimised_programs, train

if TYPE_CHECKING:
    from tests.bucket import Bucket

settings.register_profile("suite", deadline=None, max_examples=50)
settings.load_profile("suite")

jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_compilation_cache_dir", f"{cache_folder()}/xla")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


gc.disable()  # until the imports are made


def pytest_collection_finish() -> None:
    """What the imports and the collection made stays to the end: it is not searched for garbage again and again, and
    the rest, which tracing makes by the million, not as often as a small program needs it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Ends a worker, whose results have arrived, without giving back ten thousand programs one after the other."""
    if hasattr(config, "workerinput"):
        shutil.rmtree(cache_folder(), ignore_errors=True)
        os._exit(0)


@pytest.fixture(scope="module", autouse=True)
def _few_mappings() -> Iterator[None]:
    """Forgets compiled programs before the process has as many memory mappings as Linux allows.

    A program takes about four of the 65,530 (`vm.max_map_count`); behind them the compiler ends the process.
    Forgetting 5,000 programs takes the processor most of a minute, so it is put off as long as is safe.
    """
    yield
    mappings = Path("/proc/self/maps")
    if mappings.exists() and mappings.read_bytes().count(b"\n") > 45_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="module", autouse=True)
def _steps_are_traced_once() -> Iterator[None]:
    """Runs of a module that have the same step share its functions: to trace them takes longer than a short run."""
    with mock.patch("scaling.training.open_run.TrainStep", functools.lru_cache(8)(TrainStep)):
        yield


@pytest.fixture(autouse=True)
def _signals_are_as_before() -> Iterator[None]:
    """Fails a test that leaves another handler behind: that of a command ends the process of the tests at Ctrl-C."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    left = {number: how for number in before if (how := signal.getsignal(number)) is not before[number]}
    for number in left:
        signal.signal(number, before[number])
    assert not left


@pytest.fixture(scope="session")
def uninterrupted_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Working directory and output of forty steps of the tiny model on one device, without interruption."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all workers: the first that needs the run trains it, with programs for all
    workdir, output = folder / "uninterrupted" / "run", folder / "uninterrupted.txt"
    with (folder / "uninterrupted.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if output.exists():
            shutil.copytree(folder / "compiled", cache_folder(), dirs_exist_ok=True)
        else:
            with optimised_programs():
                output.write_text(train(workdir).stdout)
            shutil.copytree(cache_folder(), folder / "compiled")
    return workdir, output.read_text()


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
def full_compilation() -> Iterator[None]:
    """Compiles as a command does: where that takes less time than the programs would take longer."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
