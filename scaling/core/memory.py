"""Memory that a process no longer uses."""

import contextlib
import ctypes
import os
from typing import Any

_HEAPS = 4
_M_ARENA_MAX = -8  # of malloc.h


def few_heaps() -> None:
    """Limits the heaps of the C library to four, for a process that has only begun.

    glibc has eight for every processor, and each keeps pages in which a few blocks are still in use. Of a training that
    saved 280 times in four minutes on 2 processors, memory grew by 5 MiB with sixteen heaps and by 2 MiB with four.
    """
    if not _set("MALLOC_ARENA_MAX", "arena_max"):
        _of_libc("mallopt", _M_ARENA_MAX, _HEAPS)


def give_back_freed_memory() -> None:
    """Returns the free pages of the C library's heaps to the system, in about 10 ms.

    glibc keeps what is freed between blocks in use: hundreds of MiB after compiling, and a little more with every
    checkpoint, whose many threads leave their blocks in different heaps.
    """
    if not _set("MALLOC_TRIM_THRESHOLD_", "trim_threshold"):
        _of_libc("malloc_trim", 0)


def _set(variable: str, tunable: str) -> bool:
    """Whether the environment says how the C library is to do it, by the older or the newer name."""
    return variable in os.environ or f"glibc.malloc.{tunable}=" in os.environ.get("GLIBC_TUNABLES", "")


def _of_libc(function: str, *arguments: Any) -> None:
    """Calls a function of glibc; nothing happens where the C library is another."""
    with contextlib.suppress(OSError, AttributeError):
        getattr(ctypes.CDLL("libc.so.6"), function)(*arguments)
