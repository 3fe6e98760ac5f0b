"""`make load`: build a dataset of many images and boxes, and compare memory and time with a small one.

Each build runs in a process of its own, with worker processes beside it; its memory is the peak of that process.

    python -m tests.load.run --images 100000 --boxes 100 --out build/load
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from tests.load.images import CLASSES, write_images

_SMALL = 1_000  # images of the build to compare with
_STATUS = Path("/proc/self/status")


class Load(NamedTuple):
    """What a build took."""

    images: int
    boxes: int
    start_mib: float  # of the process before the build, with its workers connected
    peak_mib: float
    seconds: float
    cpu_seconds: float  # of all processes

    @property
    def bytes_per_box(self) -> float:
        """The memory that the process needed for each box, beyond that before the build."""
        return (self.peak_mib - self.start_mib) * 2**20 / self.boxes

    def __str__(self) -> str:
        wall, cpu = (1000 * seconds / self.images for seconds in (self.seconds, self.cpu_seconds))
        return (
            f"{self.images:,} images, {self.boxes:,} boxes: peak {self.peak_mib:.0f} MiB, {self.start_mib:.0f} before "
            f"the build: {self.bytes_per_box:.0f} bytes per box; {wall:.1f} ms and {cpu:.1f} ms of CPU per image"
        )


def measure(folder: Path, images: int, boxes: int, *, workers: int = 2) -> Load:
    """Return what a build of new images takes in a process of its own."""
    data, store = folder / "data", folder / "store"
    write_images(data, images, boxes)
    shutil.rmtree(store, ignore_errors=True)
    command = [sys.executable, "-m", "tests.load.run", "--build", str(data), "--store", str(store)]
    done = subprocess.run([*command, "--workers", str(workers)], stdout=subprocess.PIPE, text=True, check=True)
    return Load(**json.loads(done.stdout.splitlines()[-1]))


def build(data: Path, store: Path, workers: int) -> Load:
    """Build the images of a folder in this process and return what it took."""
    from etl.config import Config
    from etl.execution import cluster
    from etl.jobs.build import build as build_dataset

    source = {"format": "yolo", "images": str(data), "categories": list(CLASSES)}
    config = Config.model_validate({"name": "load", "store": str(store), "source": source, "augment": {"copies": 0}})
    with cluster.connect(workers=workers) as connected:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts here
        start, before = _memory("VmRSS"), time.perf_counter()
        answer = build_dataset(config, connected)
        seconds, peak = time.perf_counter() - before, _memory("VmHWM")
    return Load(answer.images, answer.annotations, start, peak, round(seconds, 1), answer.cpu_seconds)


def _memory(name: str) -> float:
    """Return a memory figure of this process in MiB."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return round(int(line.split()[1]) / 1024, 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make load", description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--boxes", type=int, default=100, help="of each image")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("build/load"))
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Build a small and a large dataset and print what both took."""
    options = _arguments()
    if options.build is not None:
        print(json.dumps(build(options.build, options.store, options.workers)._asdict()))
        return
    small, large = (
        measure(options.out / str(count), count, options.boxes, workers=options.workers)
        for count in (min(_SMALL, options.images), options.images)
    )
    growth = (large.cpu_seconds / large.images) / (small.cpu_seconds / small.images) - 1
    print(f"{small}\n{large}\nCPU time per image: {growth:+.1%}")


if __name__ == "__main__":
    main()
