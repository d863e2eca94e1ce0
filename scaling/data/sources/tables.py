"""Tables of labels, `name,label[,split]`, and the encodings that such text comes in."""

import codecs
import csv
import io
import sys

from etils import epath

from scaling.core.errors import UserError
from scaling.data.sources.slices import no_split


def labels_of_table(table: epath.Path, split: str) -> tuple[list[str], list[int], tuple[str, ...]]:
    """Names and labels of one split from a `labels.csv`, and the class names over all splits."""
    if not table.is_file():
        raise UserError(f"{table}: there is no such table of labels; give one that exists")
    reader = csv.DictReader(io.StringIO(text_of_table(table.read_bytes()), newline=""))
    rows: dict[tuple[str, str], str] = {}  # (name, split) -> label
    try:
        columns = ", ".join(reader.fieldnames or ())
        if missing := {"name", "label"} - set(reader.fieldnames or ()):
            raise UserError(f"{table}: no column {', '.join(sorted(missing))}; it has {columns}")
        for row in reader:
            key = (row["name"], sys.intern(row.get("split") or "train"))
            if None in row or None in row.values():
                raise UserError(f"{table}: row {reader.line_num} does not fit the columns {columns}; mend it")
            if key in rows:
                raise UserError(
                    f"{table}: row {reader.line_num}: {key[0]!r} stands in split {key[1]} already; keep one"
                )
            rows[key] = sys.intern(row["label"])
    except csv.Error as error:
        raise UserError(f"{table}: row {reader.line_num}: {error}") from error
    class_names = tuple(sorted(set(rows.values()) - {""}))
    labels = {"": -1} | {name: i for i, name in enumerate(class_names)}
    names = [name for name, place in rows if place == split]
    if not names:
        raise no_split(str(table), split, sorted({place for _, place in rows}))
    return names, [labels[rows[name, split]] for name in names], class_names


def text_of_table(data: bytes) -> str:
    """The text of a table, with or without a byte-order mark, in UTF-8, UTF-16 or else Latin-1."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")
