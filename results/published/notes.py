"""Tables and numbers of notes in Markdown."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Table(NamedTuple):
    """One table of the notes: the last heading and the last line before it, its first line, and its cells."""

    section: str
    caption: str
    head: list[str]
    rows: list[list[str]]

    def stated(self) -> Iterator[tuple[str, str, str]]:
        """Name of the row, name of the column, and the cell, of every cell with a number."""
        for name, *cells in self.rows:
            for head, cell in zip(self.head[1:], cells, strict=True):
                if stated(cell):
                    yield name, head, cell


def tables(path: Path) -> list[Table]:
    found: list[Table] = []
    section, caption, inside = "", "", False
    for line in path.read_text().splitlines():
        if line.startswith("|"):
            cells = [cell.strip().replace("**", "") for cell in line.strip("|").split("|")]
            if not inside:
                found.append(Table(section, caption, cells, []))
            elif not set(line) <= set("|-: "):
                found[-1].rows.append(cells)
            inside = True
            continue
        inside = False
        section = line.lstrip("# ") if line.startswith("#") else section
        caption = line if line.strip() else caption
    return found


def table(path: Path, section: str, head: str) -> Table:
    """The one table of a section whose caption and first line hold a text."""
    (found,) = [t for t in tables(path) if t.section.startswith(section) and head in " | ".join((t.caption, *t.head))]
    return found


def stated(cell: str) -> bool:
    return re.search(r"\d", cell) is not None


def number(cell: str) -> float:
    """The first number of a cell: `83.57 ± 0.08`, `**605.26M exactly**`, `.784`."""
    found = re.search(r"-?\d*\.?\d+", cell.replace(",", ""))
    if found is None:
        raise ValueError(f"no number in {cell!r}")
    return float(found[0])


def percent(cell: str) -> float:
    return round(number(cell) / 100, 6)
