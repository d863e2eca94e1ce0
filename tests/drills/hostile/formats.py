"""A format under attack: valid content made by code, its changes, and the reader."""

import dataclasses
import functools
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.drills import workers
from tests.drills.cases import DEFECT, FINE, Outcome, Part, random_of
from tests.drills.mutation import mutated

COUNT = 20_000

Change = Callable[[bytes, random.Random, tuple[bytes, ...]], bytes]


def as_bytes(data: bytes, rng: random.Random, others: tuple[bytes, ...]) -> bytes:
    """Random changes of a binary file."""
    return mutated(data, rng, others)


def as_text(data: bytes, rng: random.Random, others: tuple[bytes, ...]) -> bytes:
    """Random changes of a text file."""
    return mutated(data, rng, others, text=True)


@dataclasses.dataclass(frozen=True)
class Format:
    """One line of the table.

    Attributes:
      name, about: name and content.
      valid: makes valid files; the first cases are these, unchanged.
      crafted: makes files built to do harm; the next cases.
      read: reads a file in a folder; returns a text if it did what it must not.
      change: makes the files of all other cases from a valid one.
      suffix: ending of the file's name.
    """

    name: str
    about: str
    valid: Callable[[], list[bytes]]
    read: Callable[[Path], Any]
    crafted: Callable[[], list[bytes]] = list
    change: Change = as_bytes
    suffix: str = ""

    @functools.cached_property
    def _valid(self) -> tuple[bytes, ...]:
        return tuple(self.valid())

    @functools.cached_property
    def _crafted(self) -> tuple[bytes, ...]:
        return tuple(self.crafted())

    def content(self, case: int) -> bytes:
        """The file of a case."""
        known = (*self._valid, *self._crafted)
        if case < len(known):
            return known[case]
        rng = random_of(f"hostile:{self.name}", case)
        return self.change(rng.choice(self._valid), rng, known)

    def run(self, cases: Iterable[int]) -> Iterator[Outcome]:
        """Reads the files of these cases."""
        there = len(self._valid) + len(self._crafted)  # made once, before the workers are forked
        assert there

        def read(folder: Path, case: int) -> Any:
            path = folder / f"input{self.suffix}"
            path.write_bytes(self.content(case))
            return self.read(path)

        def warm(folder: Path) -> None:
            read(folder, 0)

        for outcome in workers.judged(read, warm, cases):
            refused = outcome.case < len(self._valid) and outcome.verdict not in (FINE, DEFECT)
            yield dataclasses.replace(outcome, verdict=DEFECT, what=f"valid: {outcome.what}") if refused else outcome

    def part(self) -> Part:
        return Part(f"hostile:{self.name}", self.about, self.run, COUNT, 1000, 1000)
