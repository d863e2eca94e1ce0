"""What a working directory is of: which fields of a configuration may change when its run is started again."""

import dataclasses
import logging
from collections.abc import Collection, Mapping
from typing import Any

from flax.traverse_util import flatten_dict

from scaling.core.errors import UserError
from scaling.training.checkpoints import Checkpoints, DamagedCheckpointError
from scaling.training.config import KEPT, FinetuneConfig, RunConfig, stored_config
from scaling.training.state import State
from scaling.training.step import TrainStep

log = logging.getLogger(__name__)

# Where, how fast and how long a run computes, and what it keeps and says of that; a group stands for all of its fields.
# A schedule that depends on `steps` has another learning rate from there on.
FREE = (
    "steps",
    "checkpoint_every",
    "checkpoint_minutes",
    "log_every",
    "eval_every",
    "early_stopping",
    "accumulate",
    "wandb",
    "mesh",
    "checkpoint",
    "model.attention",
    "model.remat",
    "model.unroll",
    "data.stage",
    "data.threads",
    "data.workers",
    "data.prefetch",
    "data.max_bad_share",
)


def check_same(c: RunConfig, stored: Mapping[str, Any], step: int, where: Any, change: Collection[str] = ()) -> None:
    """Compares a configuration with that of the checkpoint which its run is about to resume from.

    What changed of `FREE` is logged.

    Args:
      c: what was asked for, resolved: with mean and deviation of the data.
      stored: the configuration in the checkpoint.
      step: of the checkpoint.
      where: the working directory, for messages.
      change: fields that may differ all the same.

    Raises:
      UserError: the working directory is of something else; every field that differs is named.
    """
    if isinstance(c, FinetuneConfig) and "epochs" in stored and "encoder" not in stored:
        log.info("%s does not say which encoder it began with: taken to be this one", where)
        stored = {**stored, "encoder": c.encoder}
    before = None if KEPT in stored else stored_config(stored)
    if before is None or type(before) is not type(c):
        raise UserError(
            f"--workdir={where} holds the checkpoint of something else ({kind_of(before)}); choose an empty --workdir"
        )
    if refused := refusal(c, before, (*FREE, *change)):
        raise UserError(f"--workdir={where} was begun with {refused}")
    for field, (was, now) in _differences(c, before).items():
        log.info("%s: %r -> %r from step %s", field, was, now, f"{step:,}")


def refusal(c: RunConfig, before: RunConfig, change: Collection[str]) -> str:
    """What differs and may not, and what to do about it; nothing where all that differs is in `change`."""
    differ = {field: values for field, values in _differences(c, before).items() if not _within(field, change)}
    named = ", ".join(f"{field}={was!r} (now {now!r})" for field, (was, now) in differ.items())
    allowed = f"(in Python change={list(differ)}): --change={','.join(differ)}"
    advice = f"set that as it was, choose another --workdir, or name what may change {allowed}"
    return f"{named}; {advice}" if differ else ""


def _differences(c: RunConfig, before: RunConfig) -> dict[str, tuple[Any, Any]]:
    old, new = (flatten_dict(dataclasses.asdict(x), sep=".") for x in (before, c))
    return {field: (old.get(field), value) for field, value in new.items() if old.get(field) != value}


def restore_newest(checkpoints: Checkpoints, train_step: TrainStep, step: int) -> State:
    """The state of a checkpoint, or of the newest before it that can be read.

    Raises:
      UserError: no checkpoint can be read, or they are of something else.
    """
    while True:
        try:
            state = checkpoints.restore(step, train_step.abstract, train_step.shardings, train_step.names)
            return train_step.placed(state)
        except DamagedCheckpointError as e:
            log.warning("%s; it is passed over", e)
            checkpoints.damaged.add(step)
            step = checkpoints.newest() or 0


def _within(field: str, groups: Collection[str]) -> bool:
    return any(field == group or field.startswith(f"{group}.") for group in groups)


def kind_of(c: RunConfig | None) -> str:
    """What a stored configuration is of, in words; None of a cut encoder."""
    return "a cut encoder" if c is None else type(c).__name__.removesuffix("Config").lower()
