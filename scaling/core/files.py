"""Files that are whole or not there, and JSON Lines that only grow; here and in a bucket."""

import contextlib
import csv
import errno
import io
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from etils import epath

T = TypeVar("T")

UNFINISHED = ".unfinished-"  # begins the names of files that are being written

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # disks


def in_bucket(path: epath.PathLike) -> bool:
    """Whether a path is in a bucket, which knows no append, no rename and no locks."""
    return "://" in str(path)


def disk_error(error: BaseException) -> OSError | None:
    """What a disk has refused, where an exception says so: libraries put its words into errors of their own."""
    if isinstance(error, OSError) and error.errno in (*_FULL, errno.EACCES, errno.EPERM):
        return error
    code = next((code for code in _FULL if os.strerror(code) in str(error)), None)
    return OSError(code, os.strerror(code)) if code else None


@contextlib.contextmanager
def naming(path: epath.PathLike) -> Iterator[None]:
    """Makes what a disk refuses an OSError that names the file: errors of writing to an open file do not say which."""
    try:
        yield
    except Exception as e:
        if refused := disk_error(e):
            raise OSError(refused.errno, refused.strerror, str(path)) from e
        raise


@contextlib.contextmanager
def whole_file(path: epath.PathLike) -> Iterator[Path]:
    """Where to write what will be the file `path` at the end, whole; where that fails, what was there before still is.

    The folder is made where there is none. What goes into a bucket, or into what is not a file (/dev/stdout, a pipe)
    is written beside and then copied there. A link stays a link.

    Raises:
      OSError: there is no room, or no permission; it names `path`.
    """
    remote = in_bucket(path)
    target = epath.Path(path) if remote else epath.Path(os.path.realpath(path))
    with naming(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        if remote or (os.path.exists(target) and not os.path.isfile(target)):  # epath takes a pipe for a file
            with tempfile.TemporaryDirectory() as folder:
                aside = Path(folder) / "file"
                yield aside
                with aside.open("rb") as there, target.open("wb") as here:
                    shutil.copyfileobj(there, here)
            return
        aside = Path(target.with_name(f"{UNFINISHED}{uuid.uuid4().hex}"))  # of no length that depends on the name
        try:
            yield aside
            with aside.open("rb") as file:
                os.fsync(file.fileno())
            aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)


def write_whole(path: epath.PathLike, content: str | bytes) -> None:
    """Writes a file whole or not at all, see `whole_file`."""
    with whole_file(path) as aside:
        aside.write_bytes(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)


def write_csv(path: epath.PathLike, rows: Iterable[Iterable[Any]]) -> None:
    """Writes a table of comma-separated values whole or not at all; its first row has the names of the columns."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_whole(path, text.getvalue())


def read_json_lines(
    path: epath.PathLike,
    parse: Callable[[Any], T],
    wrong: Callable[[int, Exception], None],
    ended: bool = False,
) -> list[T]:
    """The values of a file of JSON Lines that exists; see `parsed_json_lines`."""
    return parsed_json_lines(epath.Path(path).read_bytes(), parse, wrong, ended)


def parsed_json_lines(
    content: bytes,
    parse: Callable[[Any], T],
    wrong: Callable[[int, Exception], None],
    ended: bool = False,
) -> list[T]:
    """The values of JSON Lines, without a last line that a kill has torn.

    Args:
      content: of a file.
      parse: makes something of each value; raises ValueError or TypeError for one that does not belong there.
      wrong: is told the number of a line, from 1, that is not JSON or was refused; the line is left out.
      ended: whether a last line that only lacks its end counts as torn, too.
    """
    found = []
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        torn = not line.endswith(b"\n")
        if torn and ended:
            break
        try:
            found.append(parse(json.loads(line)))
        except (ValueError, TypeError, RecursionError) as e:  # not UTF-8 and not JSON are ValueErrors
            if torn:
                break
            wrong(number, e)
    return found


class GrowingFile:
    """A file of JSON Lines that one process adds to. Whatever kills it tears the last line at most.

    Args:
      path: of the file, which is replaced by `values`: what the last process has left, without a torn line.
      values: of its first lines.
    """

    def __init__(self, path: epath.PathLike, values: Iterable[Mapping[str, Any]] = ()):
        self._path = epath.Path(path)
        text = json_lines(values)
        self._all = text if in_bucket(path) else ""  # there is nothing to append to there
        write_whole(self._path, text)

    def add(self, values: Iterable[Mapping[str, Any]]) -> None:
        """Writes more lines, all of them before it returns."""
        text = json_lines(values)
        if in_bucket(self._path):
            self._all += text
            write_whole(self._path, self._all)
            return
        with naming(self._path), self._path.open("a") as file:
            file.write(text)


def json_lines(values: Iterable[Mapping[str, Any]]) -> str:
    """One JSON object a line."""
    return "".join(json.dumps(value) + "\n" for value in values)
