"""The claim on a working directory: one writer at a time."""

import contextlib
import fcntl
import json
import os
import socket
import time
import uuid
from typing import Any, Self

import jax
from etils import epath

from scaling.core.errors import BusyError, TrainingError
from scaling.core.files import in_bucket, naming
from scaling.core.paths import make_folder
from scaling.parallel.hosts import is_first

CLAIM = ".claim"  # name of the file


class Claim:
    """A folder that one process writes to: another is refused until this one has ended, however it ends.

    If files can be locked, the kernel holds the lock until the process ends. Buckets have no locks: the newest process
    takes the folder over, and the previous one ends when it is about to write next.

    Args:
      folder: the folder.
      job: name of a job in the folder, to claim that job alone; its file is removed at the end.

    Raises:
      BusyError: another process is writing to it.
    """

    def __init__(self, folder: epath.PathLike, job: str = ""):
        self._file, self._token = epath.Path(folder) / (job or CLAIM), uuid.uuid4().hex
        self._passing = bool(job)
        self._lock: Any = None
        self._begun = False  # whether no claim file existed before

    def __enter__(self) -> Self:
        if _is_first():
            make_folder(self._file.parent)
            about = {"host": socket.gethostname(), "process": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
            with naming(self._file):
                if in_bucket(self._file) or not self._locked():
                    self._file.write_text(json.dumps(about | {"token": self._token}))
                else:
                    self._note(json.dumps(about))
        return self

    def _note(self, about: str) -> None:
        try:
            os.ftruncate(self._lock.fileno(), 0)
            os.pwrite(self._lock.fileno(), about.encode(), 0)
        except OSError:
            self._lock.close()  # this process may continue with other work
            raise

    def _locked(self) -> bool:
        """Locks the file; False on a file system without locks."""
        self._begun = not self._file.exists()
        try:
            self._lock = open(self._file, "a+")  # noqa: SIM115
        except FileNotFoundError:  # another process finished and removed the folder
            make_folder(self._file.parent)
            return self._locked()
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            try:
                who = self._file.read_text()
            except FileNotFoundError:  # another process finished and removed it
                return self._locked()
            raise BusyError(
                f"{self._file.parent} is being written to by another process ({who or 'which has just begun'}); wait "
                "for it, stop it, or choose another folder"
            ) from None
        except OSError:
            self._lock.close()
            self._lock = None
            return False
        if not self._is_there():
            self._lock.close()  # another process failed and removed it
            return self._locked()
        return True

    def _is_there(self) -> bool:
        """Whether the locked file is still the one in the folder."""
        try:
            return os.path.samestat(os.fstat(self._lock.fileno()), os.stat(self._file))
        except FileNotFoundError:
            return False

    def _owner(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self._file.read_text()))
        except (OSError, ValueError, TypeError):
            return {}

    def check(self) -> None:
        """Raises TrainingError if another process has taken the folder over."""
        if self._lock is None and _is_first():
            owner = self._owner()
            if owner.get("token", self._token) != self._token:
                raise TrainingError(f"{self._file.parent} is now used by another process ({json.dumps(owner)})")

    def __exit__(self, *error: object) -> None:
        """Removes the claim of a job, and that of a failed process that left nothing in the folder."""
        if self._lock is not None:
            with contextlib.suppress(FileNotFoundError):  # the folder was removed
                nothing = any(error) and self._begun and not any(map(_holds_something, self._file.parent.iterdir()))
                if self._passing or nothing:
                    self._file.unlink(missing_ok=True)
            self._lock.close()
        elif _is_first() and self._owner().get("token") == self._token:
            with contextlib.suppress(Exception):
                self._file.unlink(missing_ok=True)


def _holds_something(path: epath.Path) -> bool:
    return path.name != CLAIM and (not path.is_dir() or any(path.iterdir()))


def _is_first() -> bool:
    """Like `hosts.is_first`, but without initialising devices if there is a single process: another one may hold
    them.
    """
    return not jax.distributed.is_initialized() or is_first()
