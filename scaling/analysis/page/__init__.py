"""Rows of measurements as one page that needs nothing but a browser: tables that sort and filter, plots that answer."""

import dataclasses
import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scaling.errors import UserError
from scaling.results import Row, read_rows

_PARTS = Path(__file__).parent
_HIDDEN = ("device", "versions", "config_hash")  # shown with a row, not as columns


@dataclasses.dataclass(frozen=True)
class Study:
    """One file of rows and what stands beside it.

    Attributes:
      name: the path of the file below the folder that was asked for.
      rows: of it.
      how: the commands of the README beside it.
    """

    name: str
    rows: list[Row]
    how: str


def find_studies(folder: Path) -> list[Study]:
    """All files of rows below a folder.

    Raises:
      UserError: there is no such folder, or no rows in it; a file named as rows that has others, like
        `results/preflight/rows.jsonl`, is passed over only where another one is found.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder")
    studies, refused = [], []
    for file in sorted([*folder.glob("**/rows.jsonl"), *folder.glob("**/*.rows.jsonl")]):
        try:
            rows = read_rows(file)
        except UserError as e:
            refused.append(str(e))
            continue
        studies += (
            [Study(file.relative_to(folder).as_posix(), rows, _commands(file.parent / "README.md"))] if rows else []
        )
    if not studies:
        raise UserError(refused[0] if refused else f"{folder} has no files rows.jsonl or NAME.rows.jsonl with rows")
    return studies


def _commands(readme: Path) -> str:
    """The fenced blocks of a README that run something."""
    if not readme.exists():
        return ""
    blocks = re.findall(r"^```(?:bash|sh)\n(.*?)^```", readme.read_text(), re.DOTALL | re.MULTILINE)
    return "\n".join(block.strip() for block in blocks if "python -m" in block or "make " in block)


def render(studies: Sequence[Study], title: str) -> str:
    """The page, with its data, style and program inside."""
    data = [_columns(study) for study in studies]
    text = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")
    parts = {"STYLE": "page.css", "PROGRAM": "page.js"}
    page = (_PARTS / "page.html").read_text()
    for mark, name in parts.items():
        page = page.replace(f"/*{mark}*/", (_PARTS / name).read_text())
    return page.replace("<!--TITLE-->", html.escape(title)).replace("/*DATA*/", text)


def _columns(study: Study) -> dict[str, Any]:
    """A study by columns; a column that has one value only is said once."""
    rows = [dataclasses.asdict(row) for row in study.rows]
    names = list(rows[0])
    varying = [name for name in names if name not in _HIDDEN and len({row[name] for row in rows}) > 1]
    constant = {name: rows[0][name] for name in names if name not in varying and name not in _HIDDEN}
    return {
        "name": study.name,
        "how": study.how,
        "columns": varying,
        "values": [[row[name] for name in varying] for row in rows],
        "constant": {name: value for name, value in constant.items() if value not in (None, "", 0, 0.0)},
        "provenance": [[row[name] for name in _HIDDEN] for row in rows],
    }
