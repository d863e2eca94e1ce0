"""Files that are written whole or not at all, and append-only JSON Lines; on disk and in a bucket."""

import contextlib
import csv
import errno
import io
import json
import os
import shutil
import struct
import tempfile
import uuid
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from etils import epath

from scaling.core.errors import TrainingError

T = TypeVar("T")

UNFINISHED = ".unfinished-"  # prefix of the names of files being written

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # errors that mean a disk takes no more


def in_bucket(path: epath.PathLike) -> bool:
    """Whether a path is in a bucket, which has no append, rename or locks."""
    return "://" in str(path)


def disk_error(error: BaseException) -> OSError | None:
    """The disk error behind an exception, or None: libraries repeat its text in exceptions of their own."""
    if isinstance(error, OSError) and error.errno in (*_FULL, errno.EACCES, errno.EPERM):
        return error
    code = next((code for code in _FULL if os.strerror(code) in str(error)), None)
    return OSError(code, os.strerror(code)) if code else None


@contextlib.contextmanager
def naming(path: epath.PathLike) -> Iterator[None]:
    """Turns a disk error into an OSError that names the file: an error of writing to an open file does not name it."""
    try:
        yield
    except Exception as e:
        if refused := disk_error(e):
            raise OSError(refused.errno, refused.strerror, str(path)) from e
        raise


@contextlib.contextmanager
def whole_file(path: epath.PathLike) -> Iterator[Path]:
    """Yields a temporary path whose file replaces `path` at the end; on failure the previous file is left unchanged.

    The folder is created if needed. Content for a bucket or a special file (/dev/stdout, a pipe) is written to a local
    temporary file and then copied. A symbolic link stays a link.

    Raises:
      OSError: no space or no permission; the error names `path`.
      TrainingError: the folder was removed in the meantime.
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
        aside = Path(target.with_name(f"{UNFINISHED}{uuid.uuid4().hex}"))  # its length does not depend on the name
        try:
            yield aside
            with aside.open("rb") as file:
                os.fsync(file.fileno())
            aside.replace(target)
        except FileNotFoundError as e:
            if target.parent.exists():
                raise
            raise _removed(path) from e
        finally:
            aside.unlink(missing_ok=True)


def write_whole(path: epath.PathLike, content: str | bytes) -> None:
    """Writes a file whole or not at all; see `whole_file`."""
    with whole_file(path) as aside:
        aside.write_bytes(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)


def write_csv(path: epath.PathLike, rows: Iterable[Iterable[Any]]) -> None:
    """Writes a CSV table whole or not at all; the first row holds the column names."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_whole(path, text.getvalue())


# What zipfile raises for an archive whose directory is damaged, beside OSError for places that are not in the file.
DAMAGED_ZIP = (zipfile.BadZipFile, NotImplementedError, OverflowError, ValueError, struct.error)


def parse_json(text: str | bytes) -> Any:
    """The value of JSON from elsewhere. Raises ValueError, for nesting deeper than Python can follow too."""
    try:
        return json.loads(text)
    except RecursionError as e:
        raise ValueError("it is nested too deeply") from e


def read_json_lines(
    path: epath.PathLike,
    parse: Callable[[Any], T],
    wrong: Callable[[int, Exception], None],
    ended: bool = False,
) -> list[T]:
    """The values of an existing JSON Lines file; see `parsed_json_lines`."""
    return parsed_json_lines(epath.Path(path).read_bytes(), parse, wrong, ended)


def parsed_json_lines(
    content: bytes,
    parse: Callable[[Any], T],
    wrong: Callable[[int, Exception], None],
    ended: bool = False,
) -> list[T]:
    """The values of JSON Lines, without a last line cut short by a kill.

    Args:
      content: bytes of the file.
      parse: converts each value; raises ValueError or TypeError for an invalid one.
      wrong: called with the number (from 1) and the error of each line that is not JSON or was refused by `parse`;
        the line is left out.
      ended: whether a complete last line without a newline is dropped too.
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


def _removed(path: epath.PathLike) -> TrainingError:
    return TrainingError(f"{path}: was removed while it was written (No such file); put it back, and start again")


def _existing(path: str, flags: int) -> int:
    """Opens a file for appending that is there: a new one in the place of one that was removed would lack its lines."""
    return os.open(path, flags & ~os.O_CREAT)


class GrowingFile:
    """A JSON Lines file that one process appends to. A kill cuts short the last line at most.

    Args:
      path: path of the file, which is first replaced by `values`.
      values: values of the first lines: those that the last process wrote, without a line cut short.
    """

    def __init__(self, path: epath.PathLike, values: Iterable[Mapping[str, Any]] = ()):
        self._path = epath.Path(path)
        text = json_lines(values)
        self._all = text if in_bucket(path) else ""  # buckets have no append
        write_whole(self._path, text)

    def add(self, values: Iterable[Mapping[str, Any]]) -> None:
        """Appends lines; returns once all are written.

        Raises:
          OSError: no space or no permission.
          TrainingError: the file was removed: a new one would have the later lines alone.
        """
        text = json_lines(values)
        if in_bucket(self._path):
            self._all += text
            write_whole(self._path, self._all)
            return
        try:
            with naming(self._path), open(self._path, "a", opener=_existing) as file:
                file.write(text)
        except FileNotFoundError as e:
            raise _removed(self._path) from e


def json_lines(values: Iterable[Mapping[str, Any]]) -> str:
    """Values as JSON Lines."""
    return "".join(json.dumps(value) + "\n" for value in values)
