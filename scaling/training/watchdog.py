"""Ends a run that stands still: a collective that never returns, a read without an end, a driver that hangs.

Heartbeats tell of processes that are gone. One that is stuck beats on, and a pod that waits for it costs as much as one
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

LEAST = 600.0  # seconds without a step before a run counts as stuck; SCALING_WATCHDOG_SECONDS in its place
FACTOR = 20  # or so many times its median step, whichever is more
LINGER = 30  # seconds that the first process stays for the others to dump their stacks: it takes them along


class Watchdog:
    """Watches that steps are finished. It begins with the first `step`, which is compiled, and not before.

    Args:
      least: seconds without a finished step after which the run may be stuck; it is after FACTOR times the median
        step, where that is more. None for LEAST.
    """

    def __init__(self, least: float | None = None):
        self._least = float(os.environ.get("SCALING_WATCHDOG_SECONDS", LEAST)) if least is None else least
        self._steps: collections.deque[float] = collections.deque(maxlen=200)  # seconds
        self._latest, self._resting, self._closed = 0.0, 0, threading.Event()
        threading.Thread(target=self._watch, daemon=True, name="watchdog").start()

    @property
    def limit(self) -> float:
        """Seconds without a step that are too many."""
        return max(self._least, FACTOR * statistics.median(self._steps)) if self._steps else self._least

    def step(self) -> None:
        """A step is finished."""
        now = time.monotonic()
        if self._latest:
            self._steps.append(now - self._latest)
        self._latest = now

    @contextlib.contextmanager
    def rests(self) -> Iterator[None]:
        """What happens inside may take as long as it takes: compiling, evaluating, saving."""
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
