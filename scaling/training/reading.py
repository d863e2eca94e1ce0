"""The checkpoints of a working directory, opened to be read."""

import contextlib
import logging
from collections.abc import Iterator

from etils import epath

from scaling.training.checkpoints import Checkpoints


@contextlib.contextmanager
def opened_to_read(folder: epath.PathLike) -> Iterator[Checkpoints]:
    """The checkpoints of a folder, in which everything stays as it is."""
    with quiet_orbax(), contextlib.closing(Checkpoints(folder, read_only=True)) as checkpoints:
        yield checkpoints


@contextlib.contextmanager
def quiet_orbax() -> Iterator[None]:
    """Without its warnings, such as that what is opened for reading is opened for reading."""
    logger = logging.getLogger("absl")

    def important(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR or "orbax" not in record.pathname

    logger.addFilter(important)
    try:
        yield
    finally:
        logger.removeFilter(important)
