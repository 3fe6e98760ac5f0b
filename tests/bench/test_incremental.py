"""The cost of an incremental build with 1 % new images: CPU seconds and bytes written, compared with a full build."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from etl.snapshots.snapshot import Snapshot

NEW = 0.01  # of the images
SETTINGS = {"copies: 0": {"augment": {"copies": 0}}, "the defaults": {}}
CASES = [(600, "copies: 0"), (600, "the defaults"), (3000, "copies: 0")]
TARGET = {"copies: 0": 0.02, "the defaults": 0.06}
ALLOWED = 2.0  # CPU seconds, added to the target


def build(folder: Path, section: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """Run `speck build`; return its answer and the CPU seconds of the whole command, including its start."""
    config = {
        "name": "grown",
        "store": str(folder / "store"),
        "source": {
            "format": "yolo",
            "images": str(folder / "data"),
            "categories": [str(number) for number in range(7)],
            "group": "(.*)",
        },
        "tile": {"size": 640},
        "shard": {"max_mb": 2},
        **section,
    }
    (folder / "grown.yaml").write_text(json.dumps(config))
    command = [sys.executable, "-m", "train.cli", "build", str(folder / "grown.yaml"), "--workers", "0", "--json"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = os.times()
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return json.loads(out.splitlines()[-1]), spent


def rewritten(before: str, after: str) -> tuple[float, int]:
    """Return the share of the later snapshot's shard bytes that the earlier does not have, and its number of shards."""
    old = {entry["sha256"] for entry in Snapshot.open(before).manifest["shards"]}
    now = Snapshot.open(after).manifest["shards"]
    new = sum(entry["bytes"] for entry in now if entry["sha256"] not in old)
    return new / sum(entry["bytes"] for entry in now), len(now)


@pytest.mark.parametrize("names", ["after the old", "at random"])
@pytest.mark.parametrize(("images", "setting"), CASES)
@pytest.mark.timeout(3600)
def test_one_percent_new_images(
    images: int, setting: str, names: str, real_data: Path, tmp_path: Path, bench: Any
) -> None:
    new = round(images * NEW)
    frames = bench.Frames(real_data / "aerial_cars", tmp_path / "data")
    order = np.random.default_rng(3).permutation(images + new)
    places = order if names == "at random" else np.arange(images + new)
    for number in range(images):
        frames.write(f"{places[number]:04d}", number)
    first, full = build(tmp_path, SETTINGS[setting])
    for number in range(images, images + new):
        frames.write(f"{places[number]:04d}", number)
    second, night = build(tmp_path, SETTINGS[setting])
    share, shards = rewritten(first["snapshot"], second["snapshot"])
    limit = TARGET[setting] * full + ALLOWED
    made = sum(second["samples"].values()) - second["reused_samples"]
    bench.report(
        f"{new} new images on {images}, {setting}, their names {names}: {night:.1f} CPU-s of {full:.1f} "
        f"({night / full:.1%}); target <= {limit:.1f}: {'met' if night <= limit else 'missed'}",
        f"  {made} of {sum(second['samples'].values())} samples made; {share:.1%} of the bytes of {shards} shards "
        "written (target <= 5 % with copies: 0 and names after the old)",
    )
    assert second["images"] == images + new
    assert night <= limit
    if setting == "copies: 0" and names == "after the old":
        assert shards >= 100
        assert share <= 0.05
