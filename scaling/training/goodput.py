"""Goodput: the share of a run's time spent in useful steps, over all of its starts.

Defined as in ml-goodput-measurement: time in steps that were kept, over all time since the first start. It is computed
from `starts.jsonl`, one line per start, and `elapsed` in the rows of `metrics.jsonl`, seconds since that start.
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from etils import epath

from scaling.core.files import GrowingFile, parsed_json_lines

STARTS = "starts.jsonl"


@dataclasses.dataclass(frozen=True)
class Goodput:
    """Seconds since the first start, by use.

    Attributes:
      steps: seconds in steps that are part of the run.
      lost: seconds in steps that were computed again.
      between: seconds between two starts: waiting for machines, and setting them up.
      rest: seconds of compiling, evaluating, saving, and waiting for the first batch.
      starts: number of starts.
    """

    steps: float
    lost: float
    between: float
    rest: float
    starts: int

    @property
    def share(self) -> float:
        """Share of the time spent in steps that were kept."""
        return self.steps / max(self.steps + self.lost + self.between + self.rest, 1e-9)

    def __str__(self) -> str:
        whole = max(self.steps + self.lost + self.between + self.rest, 1e-9)
        parts = (
            ("lost", "steps that were lost"),
            ("between", "between starts"),
            ("rest", "compiling, evaluating, saving"),
        )
        said = [f"{getattr(self, name) / whole:.1%} {what}" for name, what in parts if getattr(self, name) > 0]
        of = f"{self.starts} start{'s' if self.starts > 1 else ''}"
        return f"goodput {self.share:.1%} over {of}" + (f" ({', '.join(said)})" if said else "")


def note_start(workdir: epath.Path, rows: Sequence[dict[str, Any]], step: int) -> None:
    """Records that a run starts after a step; `rows` are the earlier ones, including those that it will compute
    again.
    """
    file = workdir / STARTS
    before = read_starts(file.read_text()) if file.exists() else []
    note: dict[str, Any] = {"began": round(time.time(), 1), "step": step}
    timed = [row for row in rows if isinstance(row.get("elapsed"), float)]
    if before and timed:
        kept = [row["elapsed"] for row in timed if before[-1]["step"] < row["step"] <= step]
        note["ended"] = round(before[-1]["began"] + timed[-1]["elapsed"], 1)
        note["lost"] = round(timed[-1]["elapsed"] - max(kept, default=0.0), 1)
    GrowingFile(file, before).add([note])


def read_starts(text: str) -> list[dict[str, Any]]:
    """The lines of `starts.jsonl`, from its text."""
    return parsed_json_lines(text.encode(), dict, lambda number, error: None, ended=True)


def goodput(starts: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], batch_size: int) -> Goodput | None:
    """Use of the time up to the newest row; None if it was not recorded."""
    timed = [row for row in rows if isinstance(row.get("elapsed"), float)]
    if not starts or not timed:
        return None
    while len(starts) > 1 and starts[-1]["step"] >= timed[-1]["step"]:
        starts = starts[:-1]  # it has not logged a row yet
    steps = 0.0
    borders = [*(start["step"] for start in starts[1:]), timed[-1]["step"]]
    for start, end in zip(starts, borders, strict=True):
        at = start["step"] + 1  # the first step includes compilation
        for row in (row for row in timed if start["step"] < row["step"] <= end):
            steps += max(row["step"] - at, 0) * batch_size / row["images_per_second"] if row["images_per_second"] else 0
            at = row["step"]
    lost = sum(start.get("lost", 0.0) for start in starts)
    between = sum(max(start["began"] - start["ended"], 0.0) for start in starts if "ended" in start)
    whole = starts[-1]["began"] + timed[-1]["elapsed"] - starts[0]["began"]
    return Goodput(steps, lost, between, max(whole - steps - lost - between, 0.0), len(starts))
