"""Encoders as checkpoints: what was imported, and what was cut and repaired, is kept like what was trained.

The configuration of a kept cut is that of the run which the whole encoder comes from, so that data, normalisation and
counts of operations are what they were, and beside it what is left and how it came about
(`scaling.training.config.KeptConfig`).
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from scaling.core.config import config_dict
from scaling.core.errors import UserError
from scaling.encoders.bands import band_names
from scaling.encoders.encoder import Encoder, quiet_orbax
from scaling.training.checkpoints import CheckpointConfig, Checkpoints
from scaling.training.config import KEPT, ImportConfig, KeptConfig
from scaling.training.state import State


def keep(encoder: Encoder, output: epath.Path) -> None:
    """Writes an encoder as a checkpoint of the step it was trained to; features of it are equal to the last bit.

    Raises:
      UserError: there are checkpoints already.
    """
    kept = dataclasses.asdict(KeptConfig(encoder.config, encoder.cuts))
    params = {"encoder": jax.tree.map(np.asarray, encoder.params)}
    write_parameters(params, encoder.step, config_dict(encoder.train).to_dict() | {KEPT: kept}, output)


def origin(encoder: Encoder) -> dict[str, Any]:
    """What must be known to feed an encoder, and where it comes from; of plain types, for JSON."""
    c, train, data = encoder.config, encoder.train, encoder.train.data
    imported = train if isinstance(train, ImportConfig) else None
    return {
        "image_size": c.sides,
        "patch_size": c.patch_size,
        "bands": list(data.bands or range(c.bands)),
        "band_names": list(band_names(encoder)),
        "normalisation": "(pixels - mean) / std, of each band" if data.mean else "not known to the checkpoint",
        "mean": list(data.mean),
        "std": list(data.std),
        "objective": encoder.objective,
        "source": imported.file if imported else data.source,
        "family": imported.family if imported else "",
        "licence": imported.licence if imported else "",
        "step": encoder.step,
        "cuts": [dataclasses.asdict(cut) for cut in encoder.cuts],
    }


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
