"""Shared by the benchmarks: each side in its own process, interleaved rounds, and printed ratios."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from etl.config import Config
from etl.jobs import sample_cache, tile_worker
from etl.plan import Plan
from etl.stages.augment import donor_reader, donors

ROUNDS = 7
DATASETS = Path(__file__).resolve().parents[2] / "dags" / "datasets"

PART_PIXELS = 12_000_000  # as in etl.jobs.tile

Work = Callable[[Path], object]  # does one round in a folder


@dataclass(frozen=True)
class Spent:
    """The time of one round."""

    cpu: float  # seconds of the process, all its threads
    wall: float


def spent(run: Callable[[], object]) -> Spent:
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return Spent(time.process_time() - cpu, time.perf_counter() - wall)


class Side:
    """One side of a comparison in its own process, so that its allocator does not affect the other side.

    `prepare` runs once in that process and returns the function that each round calls with a folder; it is not timed.
    """

    def __init__(self, prepare: Callable[[], Work]) -> None:
        self._pipe, remote = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("fork").Process(target=_serve, args=(prepare, remote), daemon=True)
        self._process.start()
        remote.close()
        self._answer()

    def __call__(self, folder: Path) -> Spent:
        self._pipe.send(folder)
        return self._answer()

    def _answer(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError:
            raise RuntimeError("a side has ended: its traceback is on standard error") from None

    def close(self) -> None:
        with suppress(OSError):  # the process has ended
            self._pipe.send(None)
        self._process.join(timeout=30)


def _serve(prepare: Callable[[], Work], pipe: Connection) -> None:
    cv2.setNumThreads(1)  # CPU time is compared
    work = prepare()
    pipe.send(None)
    while (folder := pipe.recv()) is not None:
        pipe.send(spent(lambda folder=folder: work(folder)))
    os._exit(0)  # skip the cleanup that the forked process inherited


FRAME = (1280, 720)


class Frames:
    """Crops of the aerial_cars images, every second one mirrored, with the boxes that lie entirely inside."""

    def __init__(self, data: Path, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._pictures = [path for path in sorted(data.glob("*.jpg")) if path.with_suffix(".txt").exists()]

    def write(self, name: str, number: int) -> None:
        """Write frame `number`; its pixels and boxes depend on the number only."""
        rng = np.random.default_rng(number)
        path = self._pictures[number % len(self._pictures)]
        pixels = cv2.imread(str(path))
        high, wide = pixels.shape[:2]
        width, height = FRAME
        x0, y0 = int(rng.integers(0, wide - width + 1)), int(rng.integers(0, high - height + 1))
        lines = [line.split() for line in path.with_suffix(".txt").read_text().splitlines() if line.strip()]
        rows = np.array([[float(value) for value in line] for line in lines]).reshape(-1, 5)
        centre, size = rows[:, 1:3] * (wide, high) - (x0, y0), rows[:, 3:] * (wide, high)
        here = ((centre - size / 2 >= 0) & (centre + size / 2 <= (width, height))).all(axis=1)
        part = pixels[y0 : y0 + height, x0 : x0 + width]
        if number % 2:
            part, centre = part[:, ::-1], np.column_stack([width - centre[:, 0], centre[:, 1]])
        cv2.imwrite(str(self._folder / f"{name}.jpg"), part, [cv2.IMWRITE_JPEG_QUALITY, 92])
        boxes = np.column_stack([rows[here, 0], centre[here] / FRAME, size[here] / FRAME])
        text = "".join(f"{int(row[0])} " + " ".join(f"{value:.6f}" for value in row[1:]) + "\n" for row in boxes)
        (self._folder / f"{name}.txt").write_text(text)


def parts_of(
    config: Config, plan: Plan, images: pa.Table, annotations: pa.Table, out: Path
) -> list[tile_worker.TilePart]:
    """Return the images in parts of the size that a build uses."""
    pixels = np.multiply(images["width"].to_numpy(), images["height"].to_numpy(), dtype=np.int64)
    starts, filled = [0], 0
    for row, size in enumerate(pixels):
        if filled and filled + size > PART_PIXELS:
            starts.append(row)
            filled = 0
        filled += int(size)
    slices = [images.slice(start, end - start) for start, end in zip(starts, [*starts[1:], len(pixels)], strict=True)]
    return [
        tile_worker.TilePart(
            config, plan, str(out / str(number)), piece,
            annotations.filter(pc.is_in(annotations["image_id"], piece["image_id"].combine_chunks())),
            donor_reader.DonorTables({}, images.slice(0, 0), annotations.slice(0, 0)),
            frozenset(
                sample_cache.unit_of(name, number)
                for name in piece["image_id"].to_pylist()
                for number in (None, *range(donors.SETS))
            ),
        )
        for number, piece in enumerate(slices)
    ]  # fmt: skip


@dataclass(frozen=True)
class Ratio:
    """Ratios of paired measurements."""

    median: float
    low: float
    high: float
    pairs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Ratio:
        return cls(statistics.median(values), min(values), max(values), len(values))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f}, {self.pairs} pairs)"

    def against(self, target: float, *, at_most: bool = False) -> str:
        """Return the ratio, its target and whether it is met, as text."""
        met = self.median <= target if at_most else self.median >= target
        return f"{self}; target {'<=' if at_most else '>='} {target:g}: {'met' if met else 'missed'}"


def interleaved(sides: Mapping[str, Callable[[], Spent]], rounds: int = ROUNDS) -> dict[str, list[Spent]]:
    """Return the costs of each side by round; the sides take turns, and a warm-up round is left out."""
    costs: dict[str, list[Spent]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, run in sides.items():
            cost = run()
            if number:
                costs[name].append(cost)
    return costs


class Bench:
    """Helpers of a benchmark, as the fixture `bench`."""

    Ratio = Ratio
    Frames = Frames
    parts_of = staticmethod(parts_of)
    spent = staticmethod(spent)
    interleaved = staticmethod(interleaved)
    datasets = DATASETS

    def __init__(self, capsys: pytest.CaptureFixture[str], stack: ExitStack) -> None:
        self._capsys, self._stack = capsys, stack

    def side(self, prepare: Callable[[], Work]) -> Side:
        """Start one side of a comparison; it is stopped after the test."""
        side = Side(prepare)
        self._stack.callback(side.close)
        return side

    def ratio(self, above: Sequence[Spent], below: Sequence[Spent], clock: str = "cpu") -> Ratio:
        """Return the ratios of two sides' rounds, in `cpu` or `wall` seconds."""
        return Ratio.of([getattr(a, clock) / getattr(b, clock) for a, b in zip(above, below, strict=True)])

    def cpu(self, costs: Sequence[Spent]) -> float:
        """Return the median CPU seconds."""
        return statistics.median(cost.cpu for cost in costs)

    def wall(self, costs: Sequence[Spent]) -> float:
        """Return the median elapsed seconds."""
        return statistics.median(cost.wall for cost in costs)

    def report(self, *lines: str) -> None:
        """Print lines past pytest's capture."""
        with self._capsys.disabled():
            print("", *lines, sep="\n")


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str]) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(capsys, stack)


@pytest.fixture(scope="session")
def sahi() -> str:
    """The folder that SAHI is installed in, added to the import path; tests that need it are skipped without.

    SAHI is not a dependency: `pip install --no-deps --target FOLDER sahi==0.12.8 shapely` makes the folder.
    """
    if not (folder := os.environ.get("SPECK_SAHI")):
        pytest.skip("set SPECK_SAHI to a folder with SAHI: see tests/bench/conftest.py")
    if folder not in sys.path:
        sys.path.append(folder)
    return folder
