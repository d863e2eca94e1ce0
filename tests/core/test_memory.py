"""The C library's heaps, counted in a process of its own."""

import os
import platform
import subprocess
import sys

import pytest

# As many threads as there may be heaps on 2 processors, each of which takes a block while the others are there.
HEAPS = """
import ctypes, sys, threading
from scaling.core.memory import few_heaps
few_heaps()
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
libc.malloc_info.argtypes, libc.fclose.argtypes = [ctypes.c_int, ctypes.c_void_p], [ctypes.c_void_p]
together = threading.Barrier(16)
def take():
    libc.malloc(5_000)
    together.wait()
threads = [threading.Thread(target=take) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
file = libc.fopen(b"/dev/stdout", b"w")
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has other heaps")
@pytest.mark.parametrize(
    ("variables", "least", "most"),
    [
        ({}, 2, 4),
        ({"MALLOC_ARENA_MAX": "7"}, 5, 7),
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0:glibc.malloc.arena_max=7"}, 5, 7),
    ],
)
def test_a_process_has_few_heaps_unless_the_environment_says_how_many(variables, least, most):
    without = {k: v for k, v in os.environ.items() if k not in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES")}
    done = subprocess.run(
        [sys.executable, "-c", HEAPS], env=without | variables, capture_output=True, text=True, check=True
    )
    assert least <= done.stdout.count("<heap nr=") <= most
