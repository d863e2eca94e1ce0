"""Reading encoders from checkpoints, whole or already cut."""

import dataclasses
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import jax
from etils import epath

from scaling.core.errors import UserError, first_line
from scaling.encoders.encoder import Encoder
from scaling.models.vit import abstract_vit, cuttable
from scaling.parallel.mesh import MeshConfig, make_mesh, replicated
from scaling.slimming.cutting import axis_sizes, cut
from scaling.slimming.widths import mode_plan
from scaling.training.reading import step_to_read
from scaling.training.stored import DamagedCheckpointError, StoredCheckpoints
from scaling.training.stored_config import kept_config, stored_config

log = logging.getLogger(__name__)

Read = TypeVar("Read")


def load_encoder(
    checkpoint: epath.PathLike, step: int | None = None, width_ratio: float = 1.0, mode: str = "inner"
) -> Encoder:
    """Reads the encoder of a working directory's newest checkpoint, or of the step given.

    Args:
      checkpoint: the --workdir of a training run, or a folder that `scaling.convert` wrote.
      step: step of the checkpoint; the newest by default.
      width_ratio, mode: published slimming (`scaling.slimming.widths`), applied while reading: the full encoder is
        never in memory. For other orderings see `scaling.encoders.slimmed`.

    Raises:
      UserError: no checkpoint, or an invalid width or mode.
    """
    return read_checkpoint(checkpoint, step, lambda found, chosen: _loaded(found, chosen, width_ratio, mode))


def read_checkpoint(
    checkpoint: epath.PathLike, step: int | None, read: Callable[[StoredCheckpoints, int], Read]
) -> Read:
    """The result of `read` on a working directory's newest readable checkpoint, or on the step given.

    Raises:
      UserError: no such checkpoint.
    """
    with _opened(checkpoint, step) as (checkpoints, chosen):
        while True:
            try:
                return read(checkpoints, chosen)
            except DamagedCheckpointError as e:
                if step is not None:
                    raise
                checkpoints.damaged.add(chosen)
                chosen = checkpoints.newest() or 0
                log.warning("%s; step %s is read instead", e, f"{chosen:,}")


def _loaded(checkpoints: StoredCheckpoints, step: int, width_ratio: float, mode: str) -> Encoder:
    about = _described(checkpoints, step)
    c = about.config
    shapes, names, sizes = _built(about)
    plan = mode_plan(sizes, width_ratio, mode)
    everywhere = replicated(make_mesh(MeshConfig()))
    shardings = jax.tree.map(lambda _: everywhere, {"encoder": shapes})
    params = checkpoints.restore_params(step, {"encoder": shapes}, shardings, {"encoder": names}, plan)["encoder"]
    fixed, c = cuttable({}, c, plan)  # position embeddings that are not stored
    if fixed:
        params |= cut(fixed, {"position": abstract_vit(c)[1]["position"]}, {"embed": plan["embed"]})
    return dataclasses.replace(about, config=c.resized(plan), params=params)


def _built(about: Encoder) -> tuple[Any, Any, dict[str, int]]:
    """Shapes and axis names of an encoder's parameters, and the sizes of its axes. Raises UserError for sizes that pass
    every check by themselves, and of which no network can be built.
    """
    try:
        shapes, names = abstract_vit(about.config)
        sizes = axis_sizes(shapes, names)
        sizes["head_dim"]
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"the configuration of the checkpoint, step {about.step}, is of no network ({first_line(error)}); "
            "copy it again"
        ) from error
    return shapes, names, sizes


def describe_encoder(checkpoint: epath.PathLike, step: int | None = None) -> Encoder:
    """The encoder of a checkpoint without its parameters; see `load_encoder`."""
    with _opened(checkpoint, step) as (checkpoints, step):
        return _described(checkpoints, step)


def _described(checkpoints: StoredCheckpoints, step: int) -> Encoder:
    values = checkpoints.config(step)
    train, kept = stored_config(values), kept_config(values)
    config, cuts = (kept.model, kept.cuts) if kept else (train.model, ())
    config.check()
    return Encoder(config, None, train, step, cuts)


def _opened(checkpoint: epath.PathLike, step: int | None) -> AbstractContextManager[tuple[StoredCheckpoints, int]]:
    return step_to_read(f"--checkpoint={epath.Path(checkpoint)}", epath.Path(checkpoint), step)
