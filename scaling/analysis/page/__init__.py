"""Rows of measurements as one self-contained HTML page: a plot and a table of plotly, which the page contains.

plotly was chosen over bokeh: it toggles logarithmic axes and legend entries and saves SVG without custom JavaScript.
Its licence is MIT, and it adds one small package. `page.js` selects the rows and the axes, and keeps the view in the
address.
"""

import dataclasses
import html
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etils import epath

from scaling.analysis.frames.reading import Frame
from scaling.core.errors import UserError
from scaling.core.rows import LABELS, Row, read_rows

_PARTS = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Study:
    """One file of rows, and the commands beside it.

    Attributes:
      name: path of the file below the given folder, with the folder if several were given.
      rows: rows of the file.
      how: commands in the README beside it.
      table: table from another source, instead of rows.
    """

    name: str
    rows: list[Row]
    how: str
    table: Frame | None = None

    def __len__(self) -> int:
        return len(self.rows) if self.table is None else len(self.table.data)


def find_studies(paths: Sequence[Path]) -> tuple[list[Study], list[str]]:
    """All files of rows among files and below folders, and a line for each skipped file below folders.

    Raises:
      UserError: a path does not exist, a file given cannot be read, or there are no rows at all.
    """
    studies: dict[Path, Study] = {}  # a file found twice is one study
    passed_over = []
    for path in paths:
        for file in _files(path):
            name = file if len(paths) > 1 else file.relative_to(path) if path.is_dir() else Path(file.name)
            try:
                study = Study(name.as_posix(), _rows(file), _commands(file.parent / "README.md"))
            except UserError as e:
                if file == path:
                    raise
                passed_over.append(str(e))
            else:
                studies.setdefault(file.resolve(), study)
    if not studies:
        why = passed_over or ["there is no file rows.jsonl or NAME.rows.jsonl"]
        raise UserError(f"no rows in {', '.join(map(str, paths))}: {why[0]}")
    return list(studies.values()), passed_over


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path}: there is no such file or folder; give one that exists")
    return sorted([*path.glob("**/rows.jsonl"), *path.glob("**/*.rows.jsonl")])


def _rows(file: Path) -> list[Row]:
    """The rows of a file, at least one; the error for a file without rows is one line."""
    try:
        rows = read_rows(file)
    except UserError as e:
        other = isinstance(e.__cause__, TypeError) and f"{file}, line 1," in str(e)  # whole, but of another kind
        raise UserError(f"{file}, its lines are not rows of measurements" if other else str(e)) from e
    if all(row.probe == LABELS for row in rows):
        raise UserError(f"{file}, it has no rows")
    return rows


def _commands(readme: Path) -> str:
    """The fenced blocks of a README that run something."""
    if not readme.exists():
        return ""
    blocks = re.findall(r"^```(?:bash|sh)\n(.*?)^```", readme.read_text(errors="replace"), re.DOTALL | re.MULTILINE)
    return "\n".join(block.strip() for block in blocks if "python -m" in block or "make " in block)


def render(studies: Sequence[Study], title: str) -> str:
    """The page, with its data, style and program inside."""
    data = [_columns(study) for study in studies]
    # No `<` of a name may end the program (`</script>`) or hide its end (`<!--<script>`) from a browser.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e")
    parts = {"STYLE": "page.css", "PROGRAM": "page.js"}
    from plotly.offline import get_plotlyjs  # slow to import

    fill = {f"/*{mark}*/": (_PARTS / name).read_text() for mark, name in parts.items()}
    fill |= {"<!--TITLE-->": html.escape(title.encode(errors="replace").decode()), "/*DATA*/": text}  # of any path
    fill["/*LIBRARY*/"] = get_plotlyjs()
    return re.sub("|".join(map(re.escape, fill)), lambda mark: fill[mark[0]], (_PARTS / "page.html").read_text())


def of_table(file: epath.Path, table: Frame) -> Study:
    """A table from another source as a study."""
    return Study(file.name, [], _commands(Path(file.parent) / "README.md"), table)


def _cell(value: Any) -> Any:
    """A cell for JSON: null for a number that is not finite, and text for other types."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _records(study: Study) -> list[dict[str, Any]]:
    if study.table is not None:
        data = study.table.data.select(study.table.columns)
        return [{name: _cell(value) for name, value in row.items()} for row in data.iter_rows(named=True)]
    rows = [dataclasses.asdict(row) for row in study.rows if row.probe != LABELS]
    for row in rows:
        del row["outcomes"]  # for programs, not for the eye
    return rows


def _columns(study: Study) -> dict[str, Any]:
    """A study by columns; a column with a single value is stored once, except for the value itself if there is only
    one row.
    """
    rows = _records(study)
    alone = list(rows[0]) if study.table is not None else ["metric", "value"]
    varying = [name for name in rows[0] if len({row[name] for row in rows}) > 1] or alone
    return {
        "name": study.name,
        "how": study.how,
        "columns": varying,
        "values": [[row[name] for name in varying] for row in rows],
        "constant": {name: value for name, value in rows[0].items() if name not in varying},
    }
