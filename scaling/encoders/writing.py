"""Encoders as checkpoints: what was imported, and what was cut and repaired, is kept like what was trained."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from scaling.core.errors import UserError
from scaling.training.checkpoints import CheckpointConfig, Checkpoints
from scaling.training.reading import quiet_orbax
from scaling.training.state import State


def check_new(output: epath.Path) -> None:
    """Raises UserError for a folder that has checkpoints already."""
    if (output / "checkpoints").exists():
        raise UserError(f"--output={output} has checkpoints already; choose another folder")


def write_parameters(params: Any, step: int, config: Mapping[str, Any], output: epath.Path) -> None:
    """Writes a checkpoint that `scaling.features`, `scaling.slim` and `scaling.finetune` read.

    Args:
      params: numpy arrays by network, `encoder` and where there is one `decoder`.
      step: of the checkpoint.
      config: what it says of itself, see `scaling.training.config.stored_config`.
      output: the folder.

    Raises:
      UserError: there are checkpoints already.
    """
    check_new(output)
    state = State(step=np.array(step, np.int32), params=params, opt_state={}, extra={})
    with quiet_orbax(), _uncopied():
        checkpoints = Checkpoints(output, CheckpointConfig(asynchronous=False))
        checkpoints.save(step, state, dict(config))
        checkpoints.close()


@contextlib.contextmanager
def _uncopied() -> Iterator[None]:
    """Arrays of the host are written as they lie. Orbax copies all of them first, in case somebody changes them while
    it writes: as much memory again as the model.
    """
    handlers = ocp.type_handlers
    usual = handlers.get_type_handler(np.ndarray)
    handlers.register_type_handler(np.ndarray, handlers.NumpyHandler(deepcopy_host_arrays=False), override=True)
    try:
        yield
    finally:
        handlers.register_type_handler(np.ndarray, usual, override=True)
