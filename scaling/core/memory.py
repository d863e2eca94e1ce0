"""Memory that a process no longer uses."""

import contextlib
import ctypes
import os

_TUNABLE = "glibc.malloc.trim_threshold="  # the same setting under its newer name


def give_back_freed_memory() -> None:
    """Returns the free pages of the C library's heaps to the system, in about 10 ms; nothing happens where the C
    library cannot, or where the environment says how much it is to keep.

    glibc has a heap for every few threads and keeps what is freed between blocks in use: hundreds of MiB after
    compiling, and a little more with every checkpoint, whose many threads leave their blocks in different heaps.
    """
    if "MALLOC_TRIM_THRESHOLD_" in os.environ or _TUNABLE in os.environ.get("GLIBC_TUNABLES", ""):
        return
    with contextlib.suppress(OSError, AttributeError):  # not Linux, or another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)
