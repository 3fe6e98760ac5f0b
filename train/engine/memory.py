"""How much memory is free for loading samples."""

from __future__ import annotations

import shutil
from pathlib import Path

SHARED = Path("/dev/shm")  # noqa: S108 - where Torch's workers put their batches
_GROUP = "sys/fs/cgroup"


def free_bytes(root: Path = Path("/")) -> int:
    """Return the free memory of this machine, or of this container if it is less; 0 if the system does not tell."""
    available = _read_counter(root / "proc/meminfo", "MemAvailable:") * 1024
    limit = _read_text(root / _GROUP / "memory.max").strip()
    if not limit.isdecimal():  # no limit
        return available
    used = int(_read_text(root / _GROUP / "memory.current") or 0)
    files = _read_counter(root / _GROUP / "memory.stat", "inactive_file")  # the kernel drops these pages when needed
    return max(0, min(available, int(limit) - used + files))


def free_shared_bytes() -> int:
    """Return the free space for batches that worker processes pass to the trainer."""
    return shutil.disk_usage(SHARED).free if SHARED.is_dir() else free_bytes()


def _read_counter(path: Path, name: str) -> int:
    """Return the number after a name at the start of a line, 0 without such a line."""
    rows = (line.split() for line in _read_text(path).splitlines())
    return next((int(row[1]) for row in rows if len(row) > 1 and row[0] == name), 0)


def _read_text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""
