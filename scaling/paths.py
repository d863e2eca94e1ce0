"""Where commands write. Whether that is possible is found out before anything is computed."""

import os
import uuid

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
