"""What is done to a running command: kills, signals, full disks, jumps of the clock, changes of the source."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.etl.conftest import Dataset

FAKETIME = os.environ.get("SPECK_FAKETIME") or next(
    map(str, Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None
)  # of the package libfaketime
JUMPS = (-86400, -3600, -90, 90, 3600, 86400)  # seconds

Process = subprocess.Popen[bytes]
Injection = Callable[[Process, random.Random], None]


def kill_build(process: Process, _: random.Random) -> None:
    """Kill the build and every process of it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def kill_worker(process: Process, rng: random.Random) -> None:
    """Kill one of the processes that the build started, its scheduler apart, which is in the build's own."""
    with contextlib.suppress(psutil.NoSuchProcess):
        if started := psutil.Process(process.pid).children(recursive=True):
            rng.choice(started).kill()


def terminate(process: Process, _: random.Random) -> None:
    """Send SIGTERM to the build."""
    process.terminate()


def interrupt(process: Process, _: random.Random) -> None:
    """Send SIGINT to the build and all its processes, as Ctrl-C does."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)


def suspend(process: Process, rng: random.Random) -> None:
    """Stop a process of the build for a moment."""
    with contextlib.suppress(psutil.NoSuchProcess):
        one = rng.choice([psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)])
        one.suspend()
        wait(process, rng.uniform(0.5, 3))
        one.resume()


def wait(process: Process, seconds: float) -> None:
    """Wait until a process has ended, at most so many seconds."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


SIGNALS: dict[str, Injection] = {
    "kill build": kill_build,
    "kill worker": kill_worker,
    "SIGTERM": terminate,
    "SIGINT": interrupt,
    "suspend": suspend,
}


def choose(kinds: Sequence[str], number: int, rng: random.Random) -> list[str]:
    """Return the faults of a run: each kind in turn, at times with another one."""
    chosen = [kinds[number % len(kinds)]]
    if rng.random() < 0.4:
        chosen.append(rng.choice(kinds))
    return chosen


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

    def jump(self, _: Process, rng: random.Random) -> None:
        """Set the clock forward or back."""
        self._file.write_text(f"{rng.choice(JUMPS):+d}")


class FullDisk:
    """A small file system that fills up; needs root."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], check=True)

    def fill(self, _: Process, rng: random.Random) -> None:
        """Leave from nothing to 300 kB."""
        free = shutil.disk_usage(self.folder).free - rng.choice([0, 4096, 60_000, 300_000])
        with contextlib.suppress(OSError), (self.folder / "filler").open("wb") as file:
            file.write(b"\0" * max(free, 0))

    def empty(self) -> None:
        """Remove what fills it."""
        (self.folder / "filler").unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it."""
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)  # a file on it may still be open


def injection(kind: str, disk: FullDisk | None, clock: Clock | None) -> Injection:
    """Return what a fault of this kind does; nothing, if it is one of the surroundings from the start."""
    if kind in SIGNALS:
        return SIGNALS[kind]
    if kind == "full disk" and disk is not None:
        return disk.fill
    if kind == "clock jump" and clock is not None:
        return clock.jump
    return lambda *_: None


class Disturbed(NamedTuple):
    """What came of a disturbed command."""

    code: int | None  # None: it did not end
    struck: int  # faults that struck before it had ended


def run_disturbed(
    line: Sequence[str],
    environ: Mapping[str, str],
    log: Path,
    strikes: Sequence[tuple[float, Injection]],
    rng: random.Random,
    most_seconds: float,
    sign: str = "",
) -> Disturbed:
    """Run a command and strike it, each time after so many seconds; return what came of it.

    The first seconds count from the moment at which the log has this sign.
    """
    struck = 0
    with log.open("ab") as output:
        start = output.tell()
        process = subprocess.Popen(line, env=os.environ | environ, stdout=output, stderr=output, start_new_session=True)
        try:
            deadline = time.monotonic() + most_seconds
            while sign.encode() not in log.read_bytes()[start:] and process.poll() is None:
                if time.monotonic() > deadline:
                    return Disturbed(None, struck)
                time.sleep(0.05)
            for moment, strike in strikes:
                try:
                    process.wait(moment)
                except subprocess.TimeoutExpired:
                    strike(process, rng)
                    struck += 1
            return Disturbed(process.wait(most_seconds), struck)
        except subprocess.TimeoutExpired:
            return Disturbed(None, struck)
        finally:
            kill_build(process, rng)
            process.wait()


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
