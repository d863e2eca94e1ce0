"""Writes imported, cut and repaired encoders as checkpoints like those of training."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from scaling.core.errors import TrainingError, UserError
from scaling.training.checkpoints import CheckpointConfig, Checkpoints
from scaling.training.finite import first_not_finite
from scaling.training.reading import quiet_orbax
from scaling.training.state import State


def check_new(output: epath.Path) -> None:
    """Raises UserError for a folder that already has checkpoints; one that was left unfinished is written again."""
    folder = output / "checkpoints"
    if folder.exists() and ocp.path.step.checkpoint_steps(folder):
        raise UserError(f"--output={output} has checkpoints already; choose another folder")


def write_parameters(params: Any, step: int, config: Mapping[str, Any], output: epath.Path) -> None:
    """Writes a checkpoint that `scaling.features`, `scaling.slim` and `scaling.finetune` read.

    Args:
      params: numpy arrays by network: `encoder` and, if there is one, `decoder`.
      step: step of the checkpoint.
      config: configuration to store, see `scaling.training.stored_config`.
      output: the folder.

    Raises:
      UserError: the folder already has checkpoints.
      TrainingError: some of the parameters are not finite.
    """
    check_new(output)
    if where := first_not_finite(params):
        raise TrainingError(
            f"--output={output}: all numbers of a checkpoint must be finite, and {where} has NaN or infinity; nothing "
            "was written: look for images on which the fit is not defined"
        )
    state = State(step=np.array(step, np.int32), params=params, opt_state={}, extra={})
    with quiet_orbax(), _uncopied():
        checkpoints = Checkpoints(output, CheckpointConfig(asynchronous=False))
        checkpoints.save(step, state, dict(config))
        checkpoints.close()


@contextlib.contextmanager
def _uncopied() -> Iterator[None]:
    """Writes arrays of the host without a copy. Orbax would first copy all of them, in case they change while it
    writes, which takes as much memory again as the model.
    """
    handlers = ocp.type_handlers
    usual = handlers.get_type_handler(np.ndarray)
    handlers.register_type_handler(np.ndarray, handlers.NumpyHandler(deepcopy_host_arrays=False), override=True)
    try:
        yield
    finally:
        handlers.register_type_handler(np.ndarray, usual, override=True)
