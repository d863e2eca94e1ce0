"""Results of drills: a row for each block of cases in a file that only grows, and the page made from the rows."""

import collections
import dataclasses
import itertools
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scaling.core.files import GrowingFile, read_json_lines, write_whole
from tests.drills.cases import DEFECT, FINE, REFUSED, Outcome, Part

ROWS, DEFECTS, PAGE = "rows.jsonl", "defects.jsonl", "README.md"

HEADER = """# Drills

What is promised, tried on random cases. A case is a number from which all its random choices follow:

    make drill          # everything: hours; interrupted, it resumes
    make drill-short    # a few cases of each in turn, recorded nowhere: under 15 minutes on 2 cores
    python -m tests.drills hostile:png --seed=1234 --count=1

Each row of `rows.jsonl` is a block of cases; a block with a defect is run again, and its newest row counts. *Fine*: the
result is that of an undisturbed run or file. *Refused*: the fault was detected and named in one line. *Missed*: what
was to happen did not, because the run had ended before or never asked for it. Everything else is a defect.

| drill | what | cases run | of | fine | refused | missed | defects | seeds | minutes |
|---|---|--:|--:|--:|--:|--:|--:|---|--:|
"""
BELOW = """
Files of rows are text that people edit and merge. They carry no checksum, by design: another digit in the place of one
is not detected, so `rot:rows` leaves flipped and overwritten bytes out. A file without rows is refused where one is
given, and a last line cut short is named in a warning; rows cut off at the end of a line are not missed. *Fine* there
means that the rows left are as written.

`disks` runs on a small tmpfs and without the capabilities by which permissions do not bind root; where nothing can be
mounted, what is full is the size that a file may have. `buckets` speaks to a server on this machine. What lasts is not
tried where a library retries for 15 minutes: records (ArrayRecord) and arrays of checkpoints (tensorstore).

"""
MEASURED = """
## Measured

Growth over the measured time with 95 % intervals (Theil-Sen slope of 20 blocks), after the command was warm.

"""
_KILLS = "kills:"
_FELL = re.compile(r"(SIGKILL|SIGTERM) (\w+) \(\w+\) at [\d.]+ s(?!, too late)")
_PLACES = ("imports", "checks", "compiling", "computing", "saving", "SIGKILL", "SIGTERM")
FELL = f"""
## Where the kills fell

Of the cases whose rows say so; kills that came after the end are left out. `checks` is from the imports to the first
compilation; `saving` is while a file was unfinished.

| drill | {" | ".join(_PLACES)} |
|---|{"--:|" * len(_PLACES)}
"""
OPEN = """
## Open defects

"""
MENDED = """
## Defects mended

| found by | what happened | mended in |
|---|---|---|
"""


@dataclasses.dataclass(frozen=True)
class Row:
    """A block of cases of one part.

    Attributes:
      part: name of the part.
      first, count: first case of the block, and number of cases.
      fine, refused: numbers of cases that ended so.
      defects: `CASE: what` of every other case.
      seconds: wall-clock time.
      commit: commit of the checkout.
      said: `CASE: what` of fine cases, of parts that measure.
    """

    part: str
    first: int
    count: int
    fine: int
    refused: int
    defects: tuple[str, ...]
    seconds: float
    commit: str
    said: tuple[str, ...] = ()


def read(folder: Path) -> list[Row]:
    """The newest row of every block."""

    def parse(fields: Mapping[str, Any]) -> Row:
        return Row(**{**fields, "defects": tuple(fields["defects"]), "said": tuple(fields.get("said", ()))})

    def wrong(number: int, error: Exception) -> None:
        raise ValueError(f"{folder / ROWS}, line {number}: {error}") from error

    rows = read_json_lines(folder / ROWS, parse, wrong) if (folder / ROWS).exists() else []
    return list({(row.part, row.first, row.count): row for row in rows}.values())


def run_missing(folder: Path, parts: Sequence[Part], deadline: float = float("inf")) -> list[Row]:
    """Runs the blocks that have no row without defects yet, until a time of `time.monotonic`; returns their rows."""
    kept = read(folder)
    done = {(row.part, row.first, row.count) for row in kept if not row.defects}
    file, new = GrowingFile(folder / ROWS, map(dataclasses.asdict, kept)), []
    for part, cases in blocks(parts):
        if (part.name, cases[0], len(cases)) not in done and time.monotonic() <= deadline:
            new.append(_told(run_block(part, cases)))
            file.add([dataclasses.asdict(new[-1])])
    return new


def run_short(parts: Sequence[Part], deadline: float = float("inf"), kept: Sequence[Row] = ()) -> list[Row]:
    """Runs a few cases of every part, recorded ones included, and names the parts left out for want of time, by what
    their newest of the rows `kept` took.
    """
    rows, left, took = [], [], {row.part: row.seconds / row.count for row in kept}
    for part, cases in blocks(parts, short=True):
        if time.monotonic() + took.get(part.name, 0.0) * len(cases) <= deadline:
            rows.append(_told(run_block(part, cases)))
        else:
            left.append(part.name)
    print(f"no time for {', '.join(left)}" if left else "all of them had their time")
    return rows


def blocks(parts: Sequence[Part], short: bool = False) -> Iterator[tuple[Part, range]]:
    """The blocks of all parts, of drill after drill and part after part in turn, so that all are tried early."""

    def of(part: Part) -> list[tuple[Part, range]]:
        total = part.short if short else part.count
        return [(part, range(first, min(first + part.block, total))) for first in range(0, total, part.block)]

    def in_turn(lists: Iterable[Iterable[tuple[Part, range]]]) -> Iterator[tuple[Part, range]]:
        return (x for turn in itertools.zip_longest(*lists) for x in turn if x is not None)

    drills = dict.fromkeys(part.drill for part in parts)
    return in_turn(in_turn(of(part) for part in parts if part.drill == drill) for drill in drills)


def _told(row: Row) -> Row:
    last = row.first + row.count - 1
    print(f"{row.part} {row.first}-{last}: {row.fine} fine, {row.refused} refused, {row.seconds:.1f} s")
    print("".join(f"  DEFECT {row.part} --seed={line}\n" for line in row.defects), end="", flush=True)
    return row


def run_block(part: Part, cases: range) -> Row:
    """Runs cases of a part."""
    began = time.monotonic()
    outcomes: list[Outcome] = list(part.run(cases))
    assert [outcome.case for outcome in outcomes] == list(cases)
    counts = collections.Counter(outcome.verdict for outcome in outcomes)
    defects = tuple(f"{x.case}: {x.what}" for x in outcomes if x.verdict == DEFECT)
    said = tuple(f"{x.case}: {x.what}" for x in outcomes if part.kept and x.verdict == FINE)
    seconds = round(time.monotonic() - began, 1)
    return Row(part.name, cases[0], len(cases), counts[FINE], counts[REFUSED], defects, seconds, _commit(), said)


def write_page(folder: Path, parts: Iterable[Part]) -> None:
    """Writes the page of a folder of results."""
    write_whole(folder / PAGE, page(folder, parts))


def page(folder: Path, parts: Iterable[Part]) -> str:
    """The page that says what the rows say."""
    rows, lines, unrun, unmended = read(folder), [], [], []
    for part in parts:
        mine = [row for row in rows if row.part == part.name]
        if not mine:
            unrun.append(part.name)
            continue
        ran = sum(row.count for row in mine)
        seeds = _ranges({case for row in mine for case in range(row.first, row.first + row.count)})
        fine, refused, defects = (
            sum(x) for x in zip(*((r.fine, r.refused, len(r.defects)) for r in mine), strict=True)
        )
        numbers = [fine, refused, ran - fine - refused - defects, defects]
        minutes = sum(row.seconds for row in mine) / 60
        cells = [part.name, part.about, f"{ran:,}", f"{part.count:,}", *(f"{n:,}" for n in numbers), seeds]
        lines.append(f"| {' | '.join([*cells, f'{minutes:.1f}'])} |")
        unmended += [f"- {part.name} --seed={defect}" for row in mine for defect in row.defects]
    found = read_json_lines(folder / DEFECTS, dict, _wrong) if (folder / DEFECTS).exists() else []
    mended = [f"| {x['found_by']} | {x['what']} | {x['mended']} |" for x in found]
    text = HEADER + "".join(f"{line}\n" for line in lines) + BELOW + f"Not yet run: {', '.join(unrun) or 'none'}.\n"
    told = [f"- {row.part} --seed={line}" for row in rows for line in row.said if not row.part.startswith(_KILLS)]
    text += MEASURED + "\n".join(told) + "\n" if told else ""
    fell = _fell(rows)
    text += FELL + "".join(fell) if fell else ""
    text += OPEN + "\n".join(unmended or ["None in the cases run."]) + "\n"
    return text + (MENDED + "\n".join(mended) + "\n" if mended else "")


def _fell(rows: Sequence[Row]) -> list[str]:
    """The lines of the table of where kills fell."""
    counts: dict[str, collections.Counter[str]] = {}
    for row in rows:
        if row.part.startswith(_KILLS) and (found := _FELL.findall(" ".join(row.said))):
            counts.setdefault(row.part, collections.Counter()).update(itertools.chain(*found))
    if counts:
        counts["all"] = sum(counts.values(), collections.Counter())
    return [f"| {part} | {' | '.join(str(of[place]) for place in _PLACES)} |\n" for part, of in counts.items()]


def _wrong(number: int, error: Exception) -> None:
    raise ValueError(f"line {number}: {error}") from error


def _ranges(cases: set[int]) -> str:
    """Numbers as ranges: 0-99, 200."""
    starts = [case for case in sorted(cases) if case - 1 not in cases]
    ends = [case for case in sorted(cases) if case + 1 not in cases]
    return ", ".join(f"{a}-{b}" if b > a else str(a) for a, b in zip(starts, ends, strict=True)) or "-"


def _commit() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip()
