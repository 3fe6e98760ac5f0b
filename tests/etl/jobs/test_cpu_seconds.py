"""The CPU seconds of a build: what `speck build --json` reports, compared with the account of the operating system."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from etl.execution import cluster

START = """
from etl.execution import cluster
from etl.jobs import build, publish
with cluster.serial() if {workers} == 0 else cluster.connect(workers={workers}) as connected:
    connected.map(abs, range(8), label="start")
"""


def spend(*arguments: str) -> tuple[str, float]:
    """Run Python; return its output and the CPU seconds of its process and of all that it started."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    output = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return output, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.fixture(scope="module")
def dataset_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of noise that takes seconds to augment; its file is returned."""
    folder = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(3)
    for number in range(6):
        cv2.imwrite(str(folder / f"{number}.jpg"), rng.integers(0, 255, (1000, 1400, 3), dtype=np.uint8))
        centres = rng.uniform(0.1, 0.9, (30, 2)).tolist()
        (folder / f"{number}.txt").write_text("".join(f"0 {x} {y} 0.01 0.01\n" for x, y in centres))
    settings = {
        "name": "noise",
        "store": str(folder / "store"),
        "source": {"format": "yolo", "images": str(folder), "categories": ["speck"], "group": "(.*)"},
        "augment": {"copies": 4},
    }
    (folder / "noise.yaml").write_text(json.dumps(settings))
    return folder / "noise.yaml"


@pytest.mark.parametrize("workers", ["0", pytest.param("2", marks=pytest.mark.slow)])
def test_a_build_reports_the_cpu_time_of_its_processes_but_for_their_start(dataset_file: Path, workers: str) -> None:
    build = ("-m", "train.cli", "build", str(dataset_file), "--full", "--json", "--workers", workers)
    (output, used), (_, start) = spend(*build), spend("-c", START.format(workers=workers))
    reported = json.loads(output.splitlines()[-1])["cpu_seconds"]
    assert used > 2 * start  # else the comparison proves little
    assert 0.85 * (used - start) <= reported <= used


def test_workers_report_the_cpu_time_of_their_parts() -> None:
    def work(seconds: float) -> None:
        import time

        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    with cluster.connect(workers=2) as connected:
        connected.map(work, [0.2] * 4, label="work")
        assert 0.8 <= connected.take_cpu_seconds() < 3
        assert connected.take_cpu_seconds() == 0
        connected.fold(work, [0.2], lambda a, b: None, label="work")
        assert 0.2 <= connected.take_cpu_seconds() < 2
    with cluster.serial() as here:
        here.map(work, [0.01], label="work")
        assert here.take_cpu_seconds() == 0  # it is part of the time of this process
