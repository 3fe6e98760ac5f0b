"""What a night costs that brings 1 % new images: CPU seconds and bytes written, beside a full build."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from etl.snapshot import Snapshot

IMAGES = 600
NEW = 6  # 1 %
FRAME = (1280, 720)
SETTINGS = {"copies: 0": {"augment": {"copies": 0}}, "the defaults": {}}
WANTED = {"copies: 0": 0.02, "the defaults": 0.06}
ALLOWED = 2.0  # CPU seconds on top


class Frames:
    """Parts of aerial_cars' pictures, mirrored by turns, with the boxes that lie in them whole."""

    def __init__(self, data: Path, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._pictures = [path for path in sorted(data.glob("*.jpg")) if path.with_suffix(".txt").exists()]

    def write(self, name: str, number: int) -> None:
        """Write frame `number`: the same pixels and boxes whatever its name."""
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


def build(folder: Path, section: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """Run `speck build`; return its answer and the CPU seconds of the whole command, its start included."""
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
    before = os.times()
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return json.loads(out.splitlines()[-1]), spent


def rewritten(before: str, after: str) -> tuple[float, int]:
    """Return the share of the bytes of the later snapshot's shards that are not the earlier's, and its shards."""
    old = {entry["sha256"] for entry in Snapshot.open(before).manifest["shards"]}
    now = Snapshot.open(after).manifest["shards"]
    new = sum(entry["bytes"] for entry in now if entry["sha256"] not in old)
    return new / sum(entry["bytes"] for entry in now), len(now)


@pytest.mark.parametrize("names", ["after the old", "at random"])
@pytest.mark.parametrize("setting", list(SETTINGS))
def test_one_percent_new_images(setting: str, names: str, real_data: Path, tmp_path: Path, capsys) -> None:
    frames = Frames(real_data / "aerial_cars", tmp_path / "data")
    order = np.random.default_rng(3).permutation(IMAGES + NEW)
    places = order if names == "at random" else np.arange(IMAGES + NEW)
    for number in range(IMAGES):
        frames.write(f"{places[number]:04d}", number)
    first, full = build(tmp_path, SETTINGS[setting])
    for number in range(IMAGES, IMAGES + NEW):
        frames.write(f"{places[number]:04d}", number)
    second, night = build(tmp_path, SETTINGS[setting])
    share, shards = rewritten(first["snapshot"], second["snapshot"])
    limit = WANTED[setting] * full + ALLOWED
    made = sum(second["samples"].values()) - second["reused_samples"]
    with capsys.disabled():
        print(
            f"\n{NEW} new images on {IMAGES}, {setting}, their names {names}: {night:.1f} CPU-s of {full:.1f} "
            f"({night / full:.1%}; wanted at most {limit:.1f}); {made} of {sum(second['samples'].values())} samples "
            f"made; {share:.1%} of the bytes of {shards} shards written (wanted 5 % after the old, copies: 0)"
        )
    assert second["images"] == IMAGES + NEW
    assert night <= limit
    if setting == "copies: 0" and names == "after the old":
        assert shards >= 100
        assert share <= 0.05
