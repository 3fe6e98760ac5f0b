"""Settings of the memory allocator for processes that tile many images."""

from __future__ import annotations

import ctypes
import gc
import sys
from functools import cache
from itertools import count

import pyarrow as pa

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc
_MAX_FROM_HEAP = 32 * 2**20  # bytes of one allocation; the highest value that glibc allows
_MAX_FREE = 256 * 2**20  # bytes
_TRIM_INTERVAL = 8  # calls
_calls = count(1)


@cache
def tune() -> None:
    """Let this process keep up to 256 MiB of freed memory for the next image.

    Returning the buffers of every image to the system and faulting them in again takes 20 % of the CPU time of lossless
    tiling. Only glibc is tuned. Existing objects are excluded from garbage collection, as full collections would
    otherwise be too rare to keep memory constant.
    """
    gc.freeze()
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(_MMAP_THRESHOLD, _MAX_FROM_HEAP)
        library.mallopt(_TRIM_THRESHOLD, _MAX_FREE)


def release() -> None:
    """Collect garbage and return all free memory to the system, that of Arrow too."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    _trim(0)


def trim() -> None:
    """Collect garbage; every eighth call, return free memory inside the heap to the system.

    Returning it at every call costs 5 % of the CPU time of lossless tiling; without it the memory of a worker grows.
    """
    gc.collect()
    if next(_calls) % _TRIM_INTERVAL == 0:
        _trim(_MAX_FREE)


def _trim(kept: int) -> None:
    """Return the free memory inside the heap of glibc to the system, except for some bytes."""
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(kept)
