"""Memory of a process that reads and writes checkpoints again and again."""

import gc
import importlib.metadata
import platform
import sys

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest
from etils import epath

from scaling.training.checkpoints import CheckpointConfig, Checkpoints
from scaling.training.reading import quiet_orbax
from scaling.training.state import State
from scaling.training.stored import StoredCheckpoints
from scaling.training.unleaked import ORBAX

ARRAYS = 24
PARAMETERS = {"encoder": {f"kernel_{i}": jnp.ones((4, 4)) for i in range(ARRAYS)}}
TIMES = 3
NAMES = {"encoder": dict.fromkeys(PARAMETERS["encoder"], ("embed", "mlp"))}


def write(folder, step):
    checkpoints = Checkpoints(folder, CheckpointConfig(keep_last=1, asynchronous=False))
    checkpoints.save(step, State(jnp.array(step), PARAMETERS, opt_state={}, extra={}), {"seed": 1})
    checkpoints.close()


def read(folder, step):
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), PARAMETERS)
    checkpoints = StoredCheckpoints(folder)
    found = checkpoints.restore_params(step, shapes, jax.tree.map(lambda _: here, shapes), NAMES)
    checkpoints.close()
    np.testing.assert_array_equal(found["encoder"]["kernel_7"], PARAMETERS["encoder"]["kernel_7"])


@pytest.mark.skipif(importlib.metadata.version("orbax-checkpoint") != ORBAX, reason="another Orbax is left as it is")
def test_writing_and_reading_again_and_again_leaves_no_objects(tmp_path):
    folder, counts = epath.Path(tmp_path), []
    with quiet_orbax():  # pytest keeps what is logged
        for first in range(1, 1 + 4 * TIMES, TIMES):  # the first of them may fill caches
            for step in range(first, first + TIMES):
                write(folder, step)
                read(folder, step)
            gc.collect()
            counts.append(np.array([sum(isinstance(x, dict) for x in gc.get_objects()), sys.getallocatedblocks()]))
    dicts, blocks = np.min(np.diff(counts[1:], axis=0), axis=0) / TIMES
    assert dicts < 1, counts
    assert blocks < 6 * ARRAYS, counts  # of a time; threads and paths leave some


def freed_between_blocks_in_use():
    """Frees about 100 MiB, none of it in a piece that the C library returns to the system by itself."""
    blocks = [np.ones(10_000) for _ in range(2_600)]
    return blocks[::2]


@pytest.fixture
def own_threshold(monkeypatch):
    for variable in ("MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.usefixtures("own_threshold")
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library may return what is freed, or cannot")
@pytest.mark.parametrize("use", [write, read])
def test_memory_that_is_no_longer_used_goes_back_to_the_system(tmp_path, use):
    folder, process = epath.Path(tmp_path), psutil.Process()
    with quiet_orbax():
        write(folder, 1)
        kept = freed_between_blocks_in_use()
        before = process.memory_info().rss
        use(folder, {write: 2, read: 1}[use])
    assert process.memory_info().rss < before - 50 * 2**20
    assert len(kept) == 1_300


@pytest.mark.usefixtures("own_threshold")
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MALLOC_TRIM_THRESHOLD_", "{}"),
        ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1:glibc.malloc.trim_threshold={}"),
    ],
)
def test_memory_that_the_environment_keeps_stays(tmp_path, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value.format(2**30))
    folder, process = epath.Path(tmp_path), psutil.Process()
    with quiet_orbax():
        kept = freed_between_blocks_in_use()
        before = process.memory_info().rss
        write(folder, 1)
    assert process.memory_info().rss > before - 50 * 2**20
    assert len(kept) == 1_300
