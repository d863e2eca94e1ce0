"""Limits of a run, and what they mean for its slices."""

import dataclasses
import time

from scaling.core.errors import UserError

SAVED = 900.0  # seconds after its limit in which a job has saved and ended; worker 0 then kills it


class EndedError(UserError):
    """The run has ended without success, and nothing more will be billed for it."""


class OverError(EndedError):
    """The run has had the time that it was given."""


@dataclasses.dataclass
class Policy:
    """Limits of a run, and the deletion of its slice.

    Attributes:
      delete_when: `done`, `end` or `never`; see `tpu.cloud.keep.grace`.
      max_hours: largest total lifetime of the run's slices in hours; 0 for no limit.
      spent: hours of the run's earlier slices.
    """

    delete_when: str = "never"
    max_hours: float = 0.0
    spent: float = 0.0

    def until(self, created: float) -> float:
        """Time at which a slice created then reaches the limit, in seconds since 1970; 0 if there is none.

        Raises:
          OverError: it is past.
        """
        if not self.max_hours:
            return 0.0
        if (end := created + 3600 * (self.max_hours - self.spent)) <= time.time():
            raise OverError(
                f"the run has had its {self.max_hours:.1f} hours; raise --max_hours or --max_cost, which count all its "
                "slices, to continue"
            )
        return end

    def deletes(self, code: int, over: bool) -> bool:
        """Whether the slice is deleted after a job that ended with this code, or at its limit."""
        return over or not (self.delete_when == "never" or (self.delete_when == "done" and code))
