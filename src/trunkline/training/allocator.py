"""Keeping freed memory in the process, because a training step asks for the same large blocks again and again."""

from __future__ import annotations

import ctypes
import platform
from functools import cache

# From malloc.h of glibc.
TRIM_THRESHOLD, MMAP_MAX = -1, -4


@cache
def keep_freed_memory() -> bool:
    """Tells the C library not to give freed memory back to the system while this process runs.

    By default glibc maps every block above 32 MB afresh and returns the top of its heap, so that each step of training
    pays for the same pages again: the system must clear them before the first use. The peak of memory stays what it is.

    Returns:
        Whether it could be told; only glibc can.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(MMAP_MAX, 0) and mallopt(TRIM_THRESHOLD, 2**31 - 1))
