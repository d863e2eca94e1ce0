"""When to save, in steps and in minutes."""

import time
from collections.abc import Callable

from scaling.parallel import hosts

_MEASURED = 8  # first steps, from which the steps per minute are measured


class SaveSchedule:
    """Steps that are saved: multiples of `every`, and others so that saves are at most `minutes` apart.

    All processes must save the same step, but their clocks differ: process 0 converts minutes to steps, at steps that
    all of them know, namely the eighth after the start and every saved one.

    Args:
      every: interval in steps.
      minutes: longest time between saves; 0 for no limit.
      start: step the run was resumed from.
      clock: returns seconds.
    """

    def __init__(self, every: int, minutes: float, start: int, clock: Callable[[], float] = time.monotonic):
        self._every, self._seconds, self._clock = every, 60 * minutes, clock
        self._first, self._next = start + 1, 0
        self._step, self._time = start, clock()  # step and time of the newest save, from which the rate is measured

    def due(self, step: int) -> bool:
        """Whether to save after this step; every process must ask after each step."""
        if step == self._first:
            self._step, self._time = step, self._clock()  # the first step includes compilation
        if self._seconds and step == self._first + _MEASURED:
            self._plan(step, self._clock() - self._time)
        return step % self._every == 0 or step == self._next

    def saved(self, step: int) -> None:
        """Records that a step was saved."""
        if self._seconds and step > self._step:
            self._plan(step, 0.0)
        self._step, self._time = step, self._clock()

    def _plan(self, step: int, spent: float) -> None:
        per_step = (self._clock() - self._time) / (step - self._step)
        left = max((self._seconds - spent) / max(per_step, 1e-9), 0.0)
        self._next = step + int(hosts.of_first_process([max(left, 1.0 if not spent else 0.0)])[0])
