"""Where commands write. Whether that is possible is found out before anything is computed."""

import contextlib
import os
import re
import uuid
from collections.abc import Iterator

from etils import epath

from scaling.errors import UserError


def cache_folder() -> epath.Path:
    """Where compiled programs and band statistics are kept between runs: `$SCALING_CACHE`, here or in a bucket, by
    default ~/.cache/scaling.
    """
    return epath.Path(os.environ.get("SCALING_CACHE") or "~/.cache/scaling").expanduser()


def check_folder(flag: str, folder: epath.PathLike) -> epath.Path:
    """Makes a folder that a command is about to fill, here or in a bucket.

    Args:
      flag: that it was given with.
      folder: its path.

    Raises:
      UserError: nothing can be written to it.
    """
    return _check(flag, epath.Path(folder), epath.Path(folder))


def check_file(flag: str, file: epath.PathLike) -> epath.Path:
    """Makes the folder of a file that a command will write at its end. Otherwise as `check_folder`."""
    path = epath.Path(file)
    if path.is_dir():
        raise UserError(f"--{flag}={path} is a folder; give a file")
    return _check(flag, path, path.parent)


def _check(flag: str, path: epath.Path, folder: epath.Path) -> epath.Path:
    check_no_pattern(flag, folder)
    probe = folder / f".writable-{uuid.uuid4().hex}"  # hosts of one run check the same folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except ImportError:  # of what buckets need: `scaling.cli` says so
        raise
    except Exception as e:  # the libraries behind buckets raise what they like
        why = getattr(e, "strerror", None) or str(e) or type(e).__name__
        raise UserError(f"--{flag}={path} cannot be written to ({' '.join(why.split())}); choose another one") from e
    return path


def user_path(flag: str, text: epath.PathLike) -> epath.Path:
    """A path as somebody typed it: `~` is the home, a bucket is gs://.

    Raises:
      UserError: it is somewhere that nothing here reads or writes.
    """
    scheme = re.match(r"(\w[\w+.-]*)://", str(text))
    if scheme and scheme[1] != "gs":
        raise UserError(f"--{flag}={text}: only local paths and gs://… are read and written; copy it to one of them")
    return epath.Path(os.path.expanduser(text))


def check_no_pattern(flag: str, path: epath.PathLike) -> None:
    """Raises UserError for a path that the library which keeps checkpoints takes for a pattern of several paths."""
    if found := re.search(r"[][*?]", str(path)):
        raise UserError(f"--{flag}={path}: checkpoints cannot be kept in a path with {found[0]!r}; choose another name")


@contextlib.contextmanager
def whole_file(path: epath.PathLike, suffix: str = "") -> Iterator[epath.Path]:
    """A file to write in the place of another: afterwards it is there whole, or what was there before still is.

    Args:
      path: where the file is to be; the folder is made. In a bucket an upload is whole by itself.
      suffix: that the library which writes it insists on.
    """
    target = epath.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if "://" in str(target):
        yield target
        return
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}{suffix}")
    try:
        yield aside
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        aside.replace(target)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_whole(path: epath.PathLike, content: str | bytes) -> None:
    """Writes a file whole or not at all, see `whole_file`."""
    with whole_file(path) as aside:
        aside.write_bytes(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)
