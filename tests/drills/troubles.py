"""What happens to the disk of a command: it is full, read-only, not the command's, or loses files."""

import contextlib
import dataclasses
import os
import random
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Self


class Place:
    """A folder on a file system of its own where one can be mounted; `here` is the folder that a command writes.

    Attributes:
      mounted: whether it is a tmpfs.
    """

    def __init__(self, folder: Path):
        folder.mkdir()
        self._disk, self.here = folder, folder / "here" / "out"
        done = os.getuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "drill", folder], capture_output=True)
        self.mounted = bool(done) and done.returncode == 0
        self.here.parent.mkdir()

    def sized(self, **limits: int) -> None:
        """Limits the file system: `size` in bytes, `nr_inodes` in files; 0 for no limit."""
        options = ",".join(f"{name}={value}" for name, value in limits.items())
        subprocess.run(["mount", "-o", f"remount,{options}", self._disk], check=True)

    def full(self) -> Path:
        """Fills the file system. Returns the file that does."""
        free, filler = os.statvfs(self._disk), self._disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(free.f_bavail, 1) * free.f_frsize)
        return filler

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", self._disk], check=True)
        shutil.rmtree(self._disk)


@dataclasses.dataclass
class Trouble:
    """What happens to the disk of a command.

    Attributes:
      before: done before it starts.
      during: done at a random time while it runs.
      mend: undoes both.
      largest: bytes of the largest file it may write; 0 for no limit.
      loses: whether files that were whole are lost, so that what was in them alone is not asked for.
    """

    place: Place
    rng: random.Random
    bytes: int
    largest: int = 0
    loses: bool = False

    def before(self) -> None:
        return

    def during(self) -> None:
        return

    def mend(self) -> None:
        return


class Small(Trouble):
    """A disk that is full at a random byte."""

    def before(self) -> None:
        self.place.sized(size=self.rng.randrange(1, max(2, int(self.bytes * 1.1) // 4096)) * 4096)

    def mend(self) -> None:
        self.place.sized(size=1 << 30)


class FewFiles(Trouble):
    """A disk that takes no more files."""

    def before(self) -> None:
        self.place.sized(nr_inodes=self.rng.randrange(4, 120))

    def mend(self) -> None:
        self.place.sized(nr_inodes=0)


class Filled(Trouble):
    """A disk that another program fills while the command runs."""

    def before(self) -> None:
        self.place.sized(size=1 << 26)

    def during(self) -> None:
        self._filler = self.place.full()

    def mend(self) -> None:
        self._filler.unlink(missing_ok=True)
        self.place.sized(size=1 << 30)


class SmallFiles(Trouble):
    """A limit on the size of every file, as of a quota."""

    def before(self) -> None:
        self.largest = int(2 ** self.rng.uniform(4, 18))

    def mend(self) -> None:
        self.largest = 0


class ReadOnly(Trouble):
    """A folder without permission to write, from the start."""

    def before(self) -> None:
        self.place.here.parent.chmod(0o555)

    def mend(self) -> None:
        self.place.here.parent.chmod(0o755)


class Withdrawn(Trouble):
    """Permission to write lost while the command runs: in all folders, or in one."""

    def during(self) -> None:
        there = [path for path in (self.place.here, *self.place.here.rglob("*")) if _is_folder(path)]
        self._lost = there if self.rng.random() < 0.5 or not there else [self.rng.choice(there)]
        for path in self._lost:
            with contextlib.suppress(FileNotFoundError):
                path.chmod(0o555)

    def mend(self) -> None:
        for path in self._lost:
            with contextlib.suppress(FileNotFoundError):
                path.chmod(0o755)


class Deleted(Trouble):
    """A file, a folder or everything deleted while the command runs."""

    def during(self) -> None:
        self.loses = True
        there = sorted(self.place.here.rglob("*")) if self.place.here.exists() else []
        chosen = self.place.here if not there or self.rng.random() < 0.2 else self.rng.choice(there)
        shutil.rmtree(chosen, ignore_errors=True)
        with contextlib.suppress(OSError):
            chosen.unlink(missing_ok=True)


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


_MOUNTED = (Small, Small, Small, FewFiles, Filled)
_ANYWHERE = (SmallFiles, ReadOnly, Withdrawn, Deleted)


def drawn(place: Place, rng: random.Random, size: int) -> Trouble:
    """A random trouble for a place on which an undisturbed command writes `size` bytes."""
    return rng.choice((*_MOUNTED, *_ANYWHERE) if place.mounted else _ANYWHERE)(place, rng, size)
