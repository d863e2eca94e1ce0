"""Rows written to a bucket by a background thread, seldom, and without ever stopping the run."""

import logging
import threading

from etils import epath

from scaling.core.errors import first_line
from scaling.training.writers import Metrics, Writer

log = logging.getLogger(__name__)

EVERY = 30.0  # seconds between writes: an object of Cloud Storage can be replaced once a second at most
PATIENCE = 60.0  # seconds to wait for rows at a checkpoint and at the end


class InBackground(Writer):
    """Hands rows to another writer in a thread, those of `every` seconds together. Exceptions are logged, and
    writing is retried with the next rows.
    """

    def __init__(self, writer: Writer, every: float = EVERY, patience: float = PATIENCE):
        self._writer, self._every, self._patience = writer, every, patience
        self._rows: list[tuple[int, Metrics]] = []
        self._pictures: list[tuple[int, str, epath.Path]] = []
        self._lock, self._idle = threading.Lock(), threading.Event()
        self._wake, self._closing, self._failed = threading.Event(), False, False
        self._idle.set()
        self._thread = threading.Thread(target=self._run, daemon=True, name="rows")
        self._thread.start()

    def write(self, step: int, row: Metrics) -> None:
        with self._lock:
            self._rows.append((step, row))
            self._idle.clear()

    def picture(self, step: int, name: str, file: epath.Path) -> None:
        with self._lock:
            self._pictures.append((step, name, file))
            self._idle.clear()

    def settle(self) -> None:
        """Waits until all rows are written, or cannot be for now."""
        self._wake.set()
        if not self._idle.wait(self._patience):
            log.warning("rows are not written yet after %.0f s; the run does not wait for them", self._patience)

    def close(self) -> None:
        self._closing = True
        self._wake.set()
        self._thread.join(self._patience)

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(self._every)
            self._wake.clear()
            self._write()
        try:
            self._writer.close()
        except Exception as e:
            log.warning("rows could not be closed: %s", first_line(e))

    def _write(self) -> None:
        with self._lock:
            rows, self._rows = self._rows, []
            pictures, self._pictures = self._pictures, []
        try:
            for picture in pictures:
                self._writer.picture(*picture)
            if rows or self._failed:
                self._writer.write_all(rows)
            self._failed = False
        except Exception as e:  # the libraries behind buckets raise anything
            if not self._failed:
                log.warning("rows could not be written; the run continues and tries again: %s", first_line(e))
            self._failed = True
        with self._lock:
            if not (self._rows or self._pictures):
                self._idle.set()
