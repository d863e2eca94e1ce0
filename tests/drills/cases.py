"""What all drills share: parts, their cases, and how a case ended."""

import dataclasses
import functools
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

FINE = "fine"  # as if nothing had happened
REFUSED = "refused"  # detected, and named in one line
DEFECT = "defect"
MISSED = "missed"  # what was to be done to it did not happen: a file that was not asked for, an end before the kill

Run = Callable[[Iterable[int]], Iterator["Outcome"]]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The end of one case.

    Attributes:
      case: number of the case.
      verdict: FINE, REFUSED, MISSED or DEFECT.
      what: the message of a refusal, or what was wrong.
    """

    case: int
    verdict: str
    what: str = ""


@dataclasses.dataclass(frozen=True)
class Part:
    """One line of the table of drills.

    Attributes:
      name: `drill:part`.
      about: what is done to what, for the table.
      run: runs cases by their numbers, in order.
      count: cases of `make drill`.
      short: cases of `make drill-short`.
      block: cases of one row of results, which is written when all of them have ended.
      kept: whether the rows keep what is said of fine cases: measurements.
    """

    name: str
    about: str
    run: Run
    count: int
    short: int
    block: int = 1
    kept: bool = False

    @property
    def drill(self) -> str:
        return self.name.partition(":")[0]


def random_of(part: str, case: int) -> random.Random:
    """The random numbers of a case: the same on every machine."""
    return random.Random(f"{part}/{case}")


def differing(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Names under which two sets of results do not hold the same, sorted."""
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def inputs_folder(drill: str) -> Path:
    """A folder for what the commands of a drill read, the same at every call, which lasts as long as this process."""
    return Path(_lasting(drill).name)


@functools.cache
def _lasting(drill: str) -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix=f"drills-{drill}-inputs-")
