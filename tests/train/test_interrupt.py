"""Ctrl-C and SIGTERM end every command within two seconds, in one line, with all its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

MOST_SECONDS = 4.0  # a promise of two on a busy machine
SETTINGS = (
    "name: things\nstore: store\nsource: {format: yolo, images: images}\ntile: {size: 64}\n"
    "train: {model: speck-micro, epochs: 500, batch: 8, max_seconds: null}\n"
)
COMMANDS = {  # arguments, and the text after which they are at work: "" once they have taken a second of CPU time
    "build": (["build", "things.yaml", "--full", "--workers", "2"], "Dask dashboard"),
    "build in one process": (["build", "things.yaml", "--full", "--workers", "0"], ""),
    "audit": (["audit", "things.yaml", "--workers", "1"], "Dask dashboard"),
    "train": (["train", "things.yaml"], "epoch 1"),
    "evaluate": (["evaluate", "things.yaml"], ""),
    "find-errors": (["find-errors", "things.yaml"], "fold 1"),
    "predict": (["predict", "MODEL", "images"], ""),
}
QUICK = ("build", "train")


def speck(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "train.cli", *arguments], cwd=folder, check=True, capture_output=True)


def write_dataset(folder: Path, images: int) -> None:
    (folder / "images").mkdir()
    for number in range(images):
        pixels = np.random.default_rng(number).integers(0, 255, (192, 256, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / "images" / f"{number:03}_a.png"), pixels)
        (folder / "images" / f"{number:03}_a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (folder / "images" / "classes.txt").write_text("thing\n")
    (folder / "things.yaml").write_text(SETTINGS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset, its snapshot and a model."""
    folder = tmp_path_factory.mktemp("trained")
    write_dataset(folder, 60)
    speck(folder, "build", "things.yaml", "--workers", "0")
    speck(folder, "train", "things.yaml", "--set", "train.epochs=1")
    return folder


def start(folder: Path, arguments: list[str], sign: str) -> subprocess.Popen[str]:
    """Start a command and wait until it is at work."""
    with (folder / "errors.txt").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "train.cli", *arguments],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    deadline = time.monotonic() + 120
    while not is_at_work(process, folder, sign):
        assert process.poll() is None, (folder / "errors.txt").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def is_at_work(process: subprocess.Popen[str], folder: Path, sign: str) -> bool:
    if sign:
        return sign in (folder / "errors.txt").read_text()
    return psutil.Process(process.pid).cpu_times().user > 1


def stop(process: subprocess.Popen[str], send: Callable[[int, int], None], number: int) -> float:
    """Send a signal; return the seconds until the process had ended. None of those that it started may be left."""
    started = psutil.Process(process.pid).children(recursive=True)
    before = time.monotonic()
    send(process.pid, number)
    process.wait(60)
    seconds = time.monotonic() - before
    assert not psutil.wait_procs(started, timeout=5)[1]
    return seconds


@pytest.mark.parametrize(
    ("number", "send", "line"),
    [
        pytest.param(signal.SIGINT, os.killpg, "Stopped by Ctrl-C.", id="Ctrl-C"),  # of a terminal, to all processes
        pytest.param(signal.SIGTERM, os.kill, "Stopped by SIGTERM.", id="SIGTERM"),
    ],
)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in COMMANDS]
)
def test_a_signal_ends_a_command_in_one_line(
    name: str, number: int, send: Callable[[int, int], None], line: str, trained: Path
) -> None:
    arguments, sign = COMMANDS[name]
    model = next((trained / "store" / "things" / "models").iterdir())
    process = start(trained, [str(model) if word == "MODEL" else word for word in arguments], sign)
    seconds = stop(process, send, number)
    lines = (trained / "errors.txt").read_text().splitlines()
    assert lines[-1] == line
    assert all(text[:2].isdigit() for text in lines[:-1]), "\n".join(lines)  # those of the log
    assert process.returncode == 128 + number
    assert seconds < MOST_SECONDS
