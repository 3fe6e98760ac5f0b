"""What is done to a running build: kills, signals, full disks, jumps of the clock, changes of the source."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.etl.conftest import Dataset

FAKETIME = os.environ.get("SPECK_FAKETIME") or next(
    map(str, Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None
)  # of the package libfaketime
JUMPS = (-86400, -3600, -90, 90, 3600, 86400)  # seconds

Injection = Callable[[subprocess.Popen[bytes], random.Random], None]


def kill_build(process: subprocess.Popen[bytes], _: random.Random) -> None:
    """Kill the build and every process of it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def kill_worker(process: subprocess.Popen[bytes], rng: random.Random) -> None:
    """Kill one of the processes that the build started, its scheduler apart, which is in the build's own."""
    with contextlib.suppress(psutil.NoSuchProcess):
        if started := psutil.Process(process.pid).children(recursive=True):
            rng.choice(started).kill()


def terminate(process: subprocess.Popen[bytes], _: random.Random) -> None:
    """Send SIGTERM to the build."""
    process.terminate()


def interrupt(process: subprocess.Popen[bytes], _: random.Random) -> None:
    """Send SIGINT to the build and all its processes, as Ctrl-C does."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)


def suspend(process: subprocess.Popen[bytes], rng: random.Random) -> None:
    """Stop a process of the build for a moment."""
    with contextlib.suppress(psutil.NoSuchProcess):
        one = rng.choice([psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)])
        one.suspend()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.5, 3))
        one.resume()


SIGNALS: dict[str, Injection] = {
    "kill build": kill_build,
    "kill worker": kill_worker,
    "SIGTERM": terminate,
    "SIGINT": interrupt,
    "suspend": suspend,
}


class Clock:
    """The time that a build sees, which jumps."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self._file.write_text("+0")

    def environ(self) -> dict[str, str]:
        """Return the variables that let a process see it."""
        return {
            "LD_PRELOAD": FAKETIME or "", "FAKETIME_TIMESTAMP_FILE": str(self._file), "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }  # fmt: skip

    def jump(self, _: subprocess.Popen[bytes], rng: random.Random) -> None:
        """Set the clock forward or back."""
        self._file.write_text(f"{rng.choice(JUMPS):+d}")


class FullDisk:
    """A small file system that fills up; needs root."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], check=True)

    def fill(self, _: subprocess.Popen[bytes], rng: random.Random) -> None:
        """Leave from nothing to 300 kB."""
        free = shutil.disk_usage(self.folder).free - rng.choice([0, 4096, 60_000, 300_000])
        with contextlib.suppress(OSError), (self.folder / "filler").open("wb") as file:
            file.write(b"\0" * max(free, 0))

    def empty(self) -> None:
        """Remove what fills it."""
        (self.folder / "filler").unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it."""
        subprocess.run(["umount", str(self.folder)], check=True)


def change_source(dataset: Dataset, rng: random.Random) -> None:
    """Add, remove, relabel or rewrite images while a build reads them."""
    names = sorted(path.stem for path in dataset.folder.glob("*.png"))
    for number in range(rng.randint(1, 4)):
        name, seed = rng.choice(names), rng.randrange(10_000)
        match rng.randrange(4):
            case 0:
                dataset.put(f"new{seed}_{number}", dataset.boxes(seed), seed)
            case 1 if len(names) > 6:
                dataset.remove(name)
                names.remove(name)
            case 2:
                dataset.label(name, dataset.boxes(seed))
            case _:
                dataset.put(name, dataset.boxes(seed), seed)
