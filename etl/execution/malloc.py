"""How a worker keeps memory before it cuts many images."""

from __future__ import annotations

import ctypes
import gc
import sys
from functools import cache
from itertools import count

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's names for its settings
_SINGLE = 32 * 2**20  # bytes; no higher value is allowed
_KEPT = 256 * 2**20  # bytes
_SELDOM = 8
_times = count(1)


@cache
def tune() -> None:
    """Let this process keep up to 256 MiB of freed memory for the next image.

    Handing every image's buffers back to the system and faulting them in again takes a fifth of the CPU time of
    lossless tiling. Nothing happens where the C library is not glibc. What the process holds by now is left out of the
    search for cycles, whose whole rounds would else come too seldom to keep memory flat.
    """
    gc.freeze()
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(_MMAP_THRESHOLD, _SINGLE)
        library.mallopt(_TRIM_THRESHOLD, _KEPT)


def trim() -> None:
    """End the objects that only cycles keep; every eighth time, hand back the free memory between what is used.

    Handing it back each time would cost lossless tiling 5 % of its CPU time, never doing so lets a worker grow.
    """
    gc.collect()
    if next(_times) % _SELDOM == 0 and sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(_KEPT)
