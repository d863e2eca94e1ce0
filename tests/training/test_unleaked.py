"""Memory of a process that reads checkpoints again and again."""

import gc

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from scaling.training.checkpoints import CheckpointConfig, Checkpoints
from scaling.training.reading import quiet_orbax
from scaling.training.state import State
from scaling.training.stored import StoredCheckpoints

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


def test_reading_again_and_again_leaves_no_objects(tmp_path):
    folder, counts = epath.Path(tmp_path), []
    with quiet_orbax():  # pytest keeps what is logged
        write(folder, 1)
        for _ in range(4):  # the first of them may fill caches
            for _ in range(TIMES):
                read(folder, 1)
            gc.collect()
            counts.append(sum(isinstance(x, dict) for x in gc.get_objects()))
    assert min(np.diff(counts[1:])) < TIMES, counts
