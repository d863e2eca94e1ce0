"""Checks on resuming: the fields of a configuration that may differ from the run in the working directory."""

import dataclasses
import logging
from collections.abc import Collection, Mapping
from typing import Any

from flax.traverse_util import flatten_dict

from scaling.core.errors import UserError
from scaling.training.config import FinetuneConfig, RunConfig
from scaling.training.state import State
from scaling.training.step import TrainStep
from scaling.training.stored import DamagedCheckpointError, StoredCheckpoints
from scaling.training.stored_config import KEPT, stored_config

log = logging.getLogger(__name__)

# Fields for where, how fast and how long a run computes, and what it keeps and logs; a group stands for all of its
# fields. A schedule that depends on `steps` has another learning rate from there on.
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
    "data.rgb",
    "data.stage",
    "data.threads",
    "data.workers",
    "data.prefetch",
    "data.max_bad_share",
)


def check_same(c: RunConfig, stored: Mapping[str, Any], step: int, where: Any, change: Collection[str] = ()) -> None:
    """Compares a configuration with that of the checkpoint from which its run is about to resume.

    Changes of `FREE` fields are logged.

    Args:
      c: the resolved configuration, with mean and deviation of the data.
      stored: the configuration in the checkpoint.
      step: step of the checkpoint.
      where: the working directory, for messages.
      change: further fields that may differ.

    Raises:
      UserError: the working directory belongs to another run; the message names every field that differs.
    """
    if isinstance(c, FinetuneConfig) and "epochs" in stored and "encoder" not in stored:
        log.info("%s does not state with which encoder it started: assuming this one", where)
        stored = {**stored, "encoder": c.encoder}
    before = None if KEPT in stored else stored_config(stored)
    if before is None or type(before) is not type(c):
        raise UserError(
            f"--workdir={where} has a checkpoint of another kind ({kind_of(before)}); choose an empty --workdir"
        )
    if refused := refusal(c, before, (*FREE, *change)):
        raise UserError(f"--workdir={where} was started with {refused}")
    for field, (was, now) in _differences(c, before).items():
        log.info("%s: %r -> %r from step %s", field, was, now, f"{step:,}")


def refusal(c: RunConfig, before: RunConfig, change: Collection[str]) -> str:
    """Message with the fields that differ and must not, and the remedy; empty if all fields that differ are in
    `change`.
    """
    differ = {field: values for field, values in _differences(c, before).items() if not _within(field, change)}
    named = ", ".join(f"{field}={was!r} (now {now!r})" for field, (was, now) in differ.items())
    allowed = f"--change={','.join(differ)}"
    advice = f"set that as it was, choose another --workdir, or name what may change: {allowed}"
    return f"{named}; {advice}" if differ else ""


def _differences(c: RunConfig, before: RunConfig) -> dict[str, tuple[Any, Any]]:
    old, new = (flatten_dict(dataclasses.asdict(x), sep=".") for x in (before, c))
    return {field: (old.get(field), value) for field, value in new.items() if old.get(field) != value}


def restore_newest(checkpoints: StoredCheckpoints, train_step: TrainStep, step: int) -> State:
    """The state of a checkpoint, or of the newest readable one before it.

    Raises:
      UserError: no checkpoint can be read, or they belong to another model.
    """
    while True:
        try:
            state = checkpoints.restore(step, train_step.abstract, train_step.shardings, train_step.names)
            return train_step.placed(state)
        except DamagedCheckpointError as e:
            log.warning("%s; it is skipped", e)
            checkpoints.damaged.add(step)
            step = checkpoints.newest() or 0


def _within(field: str, groups: Collection[str]) -> bool:
    return any(field == group or field.startswith(f"{group}.") for group in groups)


def kind_of(c: RunConfig | None) -> str:
    """The kind of a stored configuration, in words; None for a cut encoder."""
    return "a cut encoder" if c is None else type(c).__name__.removesuffix("Config").lower()
