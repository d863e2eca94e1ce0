"""When to save, in steps and in minutes."""

import time
from collections.abc import Callable

from scaling.parallel import hosts

_MEASURED = 8  # steps whose time tells, at first, how many a minute has


class SaveSchedule:
    """Steps that are saved: multiples of `every`, and others so that at most `minutes` lie between two.

    All processes must save the same step, and no two clocks agree: process 0 turns minutes into a number of steps, at
    steps that all of them know, the eighth after the start and each that is saved.

    Args:
      every: steps.
      minutes: 0 for steps alone.
      start: step the run was resumed from.
      clock: seconds.
    """

    def __init__(self, every: int, minutes: float, start: int, clock: Callable[[], float] = time.monotonic):
        self._every, self._seconds, self._clock = every, 60 * minutes, clock
        self._first, self._next = start + 1, 0
        self._step, self._time = start, clock()  # of the newest save, and of what the rate is measured from

    def due(self, step: int) -> bool:
        """Whether to save after this step; to be asked after each, by every process."""
        if step == self._first:
            self._step, self._time = step, self._clock()  # the first was compiled
        if self._seconds and step == self._first + _MEASURED:
            self._plan(step, self._clock() - self._time)
        return step % self._every == 0 or step == self._next

    def saved(self, step: int) -> None:
        """A step was saved."""
        if self._seconds and step > self._step:
            self._plan(step, 0.0)
        self._step, self._time = step, self._clock()

    def _plan(self, step: int, spent: float) -> None:
        per_step = (self._clock() - self._time) / (step - self._step)
        left = max((self._seconds - spent) / max(per_step, 1e-9), 0.0)
        self._next = step + int(hosts.of_first_process([max(left, 1.0 if not spent else 0.0)])[0])
