"""Kill a training after an epoch, and take it up again."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

from etl.config import load
from tests.gpu.command import SPECK
from tests.gpu.record import Record

EPOCHS = {True: 2, False: 8}  # by `quick`


def run(record: Record) -> None:
    """A training that is killed with SIGKILL resumes after its last epoch, and finishes."""
    data = record.load("small")
    epochs = EPOCHS[record.quick]
    command = [
        *SPECK, "train", data["config"], "--epochs", str(epochs), "--set", "train.model=yolo26n",
        "--set", "train.seed=1", "--json",
    ]  # fmt: skip
    runs = Path(load(data["config"]).home) / "runs"
    earlier = set(runs.glob("*/last.pt"))
    first = subprocess.Popen(command)
    while first.poll() is None and not set(runs.glob("*/last.pt")) - earlier:
        time.sleep(0.01)
    running = first.poll() is None
    first.kill()
    first.wait()
    record.check("killed after its first epoch", running, "SIGKILL" if running else f"ended with {first.returncode}")
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    print(second.stdout, second.stderr, flush=True)
    resumed = [line for line in second.stderr.splitlines() if "resuming after epoch" in line]
    record.check("says that it resumes", bool(resumed), resumed[0] if resumed else "no such line")
    trained = json.loads(second.stdout.splitlines()[-1])["epochs"] if second.returncode == 0 else None
    record.check("finishes", trained == epochs, f"{trained} of {epochs} epochs, exit code {second.returncode}")
