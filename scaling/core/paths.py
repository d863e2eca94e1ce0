"""Paths that commands write to. Whether they are writable is checked before anything is computed."""

import contextlib
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping

from etils import epath

from scaling.core.buckets import bucket_error
from scaling.core.errors import TemporaryError, UserError
from scaling.core.files import in_bucket
from scaling.core.hub import fetch, in_hub

_WRITTEN = ("output", "workdir", "json", "figure", "pictures", "table")  # flags whose paths a command writes to
_MADE, _KEPT = (".html", ".json"), ("config.json", "run.json")  # may be rewritten in an input folder; must not be
_FOLDER = "folder:"
BEST = "best"  # folder of a working directory with its best checkpoint, see `scaling.training.best`
_made: list[str] = []  # local folders that `make_folder` has made, the outer ones first


def cache_folder() -> epath.Path:
    """Folder for compiled programs and band statistics, kept between runs: `$SCALING_CACHE`, local or in a bucket; by
    default ~/.cache/scaling.
    """
    return epath.Path(os.environ.get("SCALING_CACHE") or "~/.cache/scaling").expanduser()


def make_folder(folder: epath.PathLike) -> None:
    """Makes a folder and its parents; see `unmade_on_failure`."""
    path = epath.Path(folder)
    if not in_bucket(path):
        path = epath.Path(os.path.abspath(path))
        _made.extend(str(p) for p in (*reversed(path.parents), path) if not p.exists())
    path.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def unmade_on_failure() -> Iterator[None]:
    """Context in which newly made folders that are still empty are removed if an exception leaves it."""
    before = len(_made)
    try:
        yield
    except BaseException:
        _unmake(before)
        raise
    finally:
        del _made[before:]


@contextlib.contextmanager
def unmade() -> Iterator[None]:
    """Context that removes at its end the folders made in it that are still empty."""
    before = len(_made)
    try:
        yield
    finally:
        _unmake(before)
        del _made[before:]


def _unmake(before: int) -> None:
    for folder in reversed(_made[before:]):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def check_folder(flag: str, folder: epath.PathLike, checkpoints: bool = False) -> epath.Path:
    """Makes a folder that a command is about to fill, local or in a bucket.

    Args:
      flag: flag that named the folder.
      folder: path of the folder.
      checkpoints: whether checkpoints will be written to it.

    Raises:
      UserError: the folder cannot be written to, or cannot hold checkpoints.
    """
    if checkpoints:
        check_no_pattern(flag, folder if in_bucket(folder) else epath.Path(folder).absolute())
    return _check(flag, epath.Path(folder), epath.Path(folder))


def check_file(
    flag: str, file: epath.PathLike, reads: Mapping[str, Iterable[epath.PathLike | None]] | None = None
) -> epath.Path:
    """Makes the folder of a file that a command will write at its end.

    Args:
      flag: flag that named the file.
      file: path of the file.
      reads: files and folders that the command reads, by their name in messages; None for those not given.

    Raises:
      UserError: the file cannot be written, is a folder, or would replace something that the command reads.
    """
    path = epath.Path(file)
    if path.is_dir():
        raise UserError(f"--{flag}={path} is a folder; give a file")
    for name, given in (reads or {}).items():
        for read in filter(None, given):
            if _same(path, epath.Path(read)):
                raise UserError(f"--{flag}={path} is {name}, which would be lost; choose another file")
            if _is_read_in(path, epath.Path(read)):
                raise UserError(f"--{flag}={path} is a file in {name}, which would be lost; choose another file")
    return _check(flag, path, path.parent)


def _same(one: epath.Path, other: epath.Path) -> bool:
    """Whether two paths are the same file, links resolved."""
    if in_bucket(one) or in_bucket(other):
        return str(one) == str(other)
    there = os.path.exists(one) and os.path.exists(other)
    return os.path.realpath(one) == os.path.realpath(other) or (there and os.path.samefile(one, other))


def _is_read_in(file: epath.Path, folder: epath.Path) -> bool:
    """Whether a file is in a folder and was not written there by an earlier call."""
    if not file.exists() or (file.suffix in _MADE and file.name not in _KEPT):
        return False
    inner, outer = (str(p) if in_bucket(p) else os.path.realpath(p) for p in (file, folder))
    return inner.startswith(outer.rstrip("/") + "/")


def _check(flag: str, path: epath.Path, folder: epath.Path) -> epath.Path:
    probe = folder / f".writable-{uuid.uuid4().hex}"  # hosts of one run check the same folder
    try:
        make_folder(folder)
        probe.write_text("")
        probe.unlink()
    except ImportError:  # a package for buckets is missing: `scaling.cli` names it
        raise
    except Exception as e:  # the libraries behind buckets raise anything
        if isinstance(unanswered := bucket_error(e), TemporaryError):
            raise unanswered from e
        why = getattr(e, "strerror", None) or str(e) or type(e).__name__
        raise UserError(f"--{flag}={path} cannot be written to ({' '.join(why.split())}); choose another one") from e
    return path


def run_name(folder: epath.PathLike) -> str:
    """Name of the model of a working directory in rows: the folder's name, and `RUN best` for the best checkpoint."""
    path = epath.Path(folder)
    return f"{path.parent.name} {path.name}" if path.name == BEST else path.name


def user_path(flag: str, text: epath.PathLike) -> epath.Path:
    """The path that a user typed: `~` is expanded, gs:// is a bucket, a file in the hub (hf://) is fetched, and
    folder:DIR, the spelling of a source, is DIR. `flag` is empty for a positional argument.

    Raises:
      UserError: not a path, or a kind of address that is not supported.
    """
    if not isinstance(text, str | os.PathLike) or not os.fspath(text):
        raise UserError(f"{f'--{flag}=' if flag else ''}{text!r}: must be the path of a file or folder; give one")
    if str(text).startswith(_FOLDER) and not os.path.lexists(text):
        text = str(text).removeprefix(_FOLDER) or "."
    if in_hub(text):
        if flag in _WRITTEN:
            raise UserError(f"--{flag}={text}: nothing is uploaded to the hub; give a local path or gs://…")
        return epath.Path(fetch(str(text)))
    scheme = re.match(r"(\w[\w+.-]*)://", str(text))
    if scheme and scheme[1] != "gs":
        where = f"--{flag}={text}" if flag else text
        raise UserError(f"{where}: only local paths and gs://… are read and written, and hf://… is read; copy it there")
    return epath.Path(os.path.expanduser(text))


def check_no_pattern(flag: str, path: epath.PathLike) -> None:
    """Raises UserError for a path that Orbax would take for a pattern of several paths."""
    if found := re.search(r"[][*?]", str(path)):
        raise UserError(f"--{flag}={path}: checkpoints cannot be kept in a path with {found[0]!r}; choose another name")
