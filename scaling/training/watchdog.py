"""Ends a run that makes no progress: a collective that never returns, an endless read, a hung driver.

Heartbeats detect lost processes. A stuck process keeps its heartbeat, and a pod that waits for it costs as much as one
that trains.
"""

import collections
import contextlib
import faulthandler
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator

import jax

from scaling.core.errors import TemporaryError
from scaling.parallel import hosts

LEAST = 600.0  # seconds without a step before a run counts as stuck; overridden by SCALING_WATCHDOG_SECONDS
FACTOR = 20  # or this many times its median step, whichever is longer
LINGER = 30  # seconds that the first process, whose end ends the others, leaves them to dump their stacks


class Watchdog:
    """Checks that steps are finished, from the first call of `step` on, which excludes compilation.

    Args:
      least: smallest number of seconds without a finished step after which the run counts as stuck; the limit is FACTOR
        times the median step if that is longer. None for LEAST.
    """

    def __init__(self, least: float | None = None):
        self._least = float(os.environ.get("SCALING_WATCHDOG_SECONDS", LEAST)) if least is None else least
        self._steps: collections.deque[float] = collections.deque(maxlen=200)  # seconds
        self._latest, self._resting, self._closed = 0.0, 0, threading.Event()
        threading.Thread(target=self._watch, daemon=True, name="watchdog").start()

    @property
    def limit(self) -> float:
        """Seconds without a step after which the run counts as stuck."""
        return max(self._least, FACTOR * statistics.median(self._steps)) if self._steps else self._least

    def step(self) -> None:
        """Records a finished step."""
        now = time.monotonic()
        if self._latest:
            self._steps.append(now - self._latest)
        self._latest = now

    @contextlib.contextmanager
    def rests(self) -> Iterator[None]:
        """Context for work without a time limit: compiling, evaluating, saving."""
        self._resting += 1
        try:
            yield
        finally:
            self._resting -= 1
            self._latest = self._latest and time.monotonic()

    def close(self) -> None:
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(min(self._least / 10, 10)):
            still = time.monotonic() - self._latest
            if self._latest and not self._resting and still > self.limit:
                self._end(still)

    def _end(self, still: float) -> None:
        print(
            f"error: no step was finished for {still:.0f} s, more than {self.limit:.0f} s: this run is stuck. The "
            "stacks of all threads follow; the same command resumes from the newest checkpoint",
            file=sys.stderr,
            flush=True,
        )
        faulthandler.dump_traceback(sys.stderr, all_threads=True)
        sys.stderr.flush()
        if hosts.is_first() and jax.process_count() > 1:
            time.sleep(min(LINGER, self._least))
        hosts.end("", TemporaryError.exit_code)
