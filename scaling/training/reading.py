"""The checkpoints of a working directory, opened to be read."""

import contextlib
import logging
from collections.abc import Iterator

from etils import epath

from scaling.core.errors import UserError
from scaling.training.stored import StoredCheckpoints


@contextlib.contextmanager
def opened_to_read(folder: epath.PathLike) -> Iterator[StoredCheckpoints]:
    """The checkpoints of a folder, opened without changing anything in it."""
    with quiet_orbax(), contextlib.closing(StoredCheckpoints(folder)) as checkpoints:
        yield checkpoints


@contextlib.contextmanager
def step_to_read(
    where: str, folder: epath.Path, step: int | None = None, give: str = "the --workdir of a training run"
) -> Iterator[tuple[StoredCheckpoints, int]]:
    """The checkpoints of a folder and the step to read: the one given, or the newest readable one.

    Args:
      where: the flag with the folder, for messages.
      folder: a working directory.
      step: step to read; None for the newest.
      give: kind of folder expected, for messages.

    Raises:
      UserError: no such checkpoint.
    """
    for within in (folder, folder.parent):
        if within.name == "checkpoints" and within.is_dir():
            of_step = f", and --step={folder.name}" if within != folder and folder.name.isdecimal() else ""
            raise UserError(f"{where} is inside of a run; give the run, {within.parent}{of_step}")
    if not (folder / "checkpoints").is_dir():
        raise UserError(f"{where} has no folder `checkpoints`; give {give}")
    with opened_to_read(folder) as checkpoints:
        there = checkpoints.steps()
        if not there:
            raise UserError(f"{where} has no complete checkpoint yet")
        if step is not None and step not in there:
            steps = ", ".join(map(str, there))
            raise UserError(f"{where} has no checkpoint of step {step}; there are {steps}")
        chosen = checkpoints.newest() if step is None else step
        assert chosen is not None  # there is at least one
        yield checkpoints, chosen


@contextlib.contextmanager
def quiet_orbax() -> Iterator[None]:
    """Silences Orbax's warnings, for example that a read-only folder is read-only."""
    logger = logging.getLogger("absl")

    def important(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR or "orbax" not in record.pathname

    logger.addFilter(important)
    try:
        yield
    finally:
        logger.removeFilter(important)
