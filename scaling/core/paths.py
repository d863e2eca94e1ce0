"""Where commands write. Whether that is possible is found out before anything is computed."""

import contextlib
import errno
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from scaling.core.errors import UserError

UNFINISHED = ".unfinished-"  # begins the names of files that are being written

_made: list[str] = []  # local folders that `make_folder` has made, the outer ones first

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # disks


def cache_folder() -> epath.Path:
    """Where compiled programs and band statistics are kept between runs: `$SCALING_CACHE`, here or in a bucket, by
    default ~/.cache/scaling.
    """
    return epath.Path(os.environ.get("SCALING_CACHE") or "~/.cache/scaling").expanduser()


def make_folder(folder: epath.PathLike) -> None:
    """Makes a folder and those around it; see `unmade_on_failure`."""
    path = epath.Path(folder)
    if "://" not in str(path):
        path = epath.Path(os.path.abspath(path))
        _made.extend(str(p) for p in (*reversed(path.parents), path) if not p.exists())
    path.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def unmade_on_failure() -> Iterator[None]:
    """Where what is done within fails, the folders that were made for it and are still empty do not stay."""
    before = len(_made)
    try:
        yield
    except BaseException:
        for folder in reversed(_made[before:]):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        raise
    finally:
        del _made[before:]


def check_folder(flag: str, folder: epath.PathLike, checkpoints: bool = False) -> epath.Path:
    """Makes a folder that a command is about to fill, here or in a bucket.

    Args:
      flag: that it was given with.
      folder: its path.
      checkpoints: whether some will be kept in it.

    Raises:
      UserError: nothing, or no checkpoints, can be written to it.
    """
    if checkpoints:
        check_no_pattern(flag, folder if "://" in str(folder) else epath.Path(folder).absolute())
    return _check(flag, epath.Path(folder), epath.Path(folder))


def check_file(flag: str, file: epath.PathLike) -> epath.Path:
    """Makes the folder of a file that a command will write at its end. Otherwise as `check_folder`."""
    path = epath.Path(file)
    if path.is_dir():
        raise UserError(f"--{flag}={path} is a folder; give a file")
    return _check(flag, path, path.parent)


def _check(flag: str, path: epath.Path, folder: epath.Path) -> epath.Path:
    probe = folder / f".writable-{uuid.uuid4().hex}"  # hosts of one run check the same folder
    try:
        make_folder(folder)
        probe.write_text("")
        probe.unlink()
    except ImportError:  # of what buckets need: `scaling.cli` says so
        raise
    except Exception as e:  # the libraries behind buckets raise what they like
        why = getattr(e, "strerror", None) or str(e) or type(e).__name__
        raise UserError(f"--{flag}={path} cannot be written to ({' '.join(why.split())}); choose another one") from e
    return path


def user_path(flag: str, text: epath.PathLike) -> epath.Path:
    """A path as somebody typed it: `~` is the home, a bucket is gs://. An empty flag: a word beside the flags.

    Raises:
      UserError: it is somewhere that nothing here reads or writes.
    """
    scheme = re.match(r"(\w[\w+.-]*)://", str(text))
    if scheme and scheme[1] != "gs":
        where = f"--{flag}={text}" if flag else text
        raise UserError(f"{where}: only local paths and gs://… are read and written; copy it to one of them")
    return epath.Path(os.path.expanduser(text))


def check_no_pattern(flag: str, path: epath.PathLike) -> None:
    """Raises UserError for a path that the library which keeps checkpoints takes for a pattern of several paths."""
    if found := re.search(r"[][*?]", str(path)):
        raise UserError(f"--{flag}={path}: checkpoints cannot be kept in a path with {found[0]!r}; choose another name")


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

    The folder is made where there is none. What goes into a bucket, or into what is no file (/dev/stdout, a pipe), is
    written beside and then copied there. A link stays a link.

    Raises:
      OSError: there is no room, or no permission; it names `path`.
    """
    remote = "://" in str(path)
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
