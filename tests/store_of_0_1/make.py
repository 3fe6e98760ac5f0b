"""Writes store.tar.xz: a small dataset and the store that Speck 0.1.0 made of it, which every later version must read.

The code of commit 1d4823f made the archive. The code of a later commit would make a store of that commit, which proves
nothing, so this script always runs with a checkout of 1d4823f:

    git worktree add ../speck-0.1 1d4823f
    PYTHONPATH=../speck-0.1 python -P tests/store_of_0_1/make.py /data/drawings

The argument is a folder that does not exist yet; the script leaves it there. The store contains its absolute path, so
the path must not name a machine or a user. Opening the archive in another folder also tests that a store can be moved.
The snapshot ids are reproducible; the model id is not, as the epochs that the trainer validates depend on its speed.
"""

from __future__ import annotations

import io
import json
import lzma
import os
import sys
import tarfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import cv2
import numpy as np

ARCHIVE = Path(__file__).with_name("store.tar.xz")
# Optional packages, hidden: with PyTurboJPEG the plan requires libturbojpeg on every machine that builds on the store;
# the names of TensorBoard's event files contain the host name.
HIDDEN = ("turbojpeg", "torch.utils.tensorboard")
COLOURS = {"red": (40, 40, 220), "blue": (220, 60, 30)}  # BGR, by category
WIDTH, HEIGHT = 112, 64

DATASET = """\
name: drawings
store: store
source:
  format: yolo
  images: images
  annotations: labels
  categories: [red, blue]
  group: '^(drawing\\d)'
  split: {val: 0.25}
tile: {size: 64, overlap: 0.25}
augment: {oversample_small: 1}
shard: {quality: 80}
anchors: {strides: [8]}
train:
  model: narrow.yaml
  weights: scratch
  epochs: 100
  image_size: 64
  batch: 8
  device: cpu
  options: {optimizer: AdamW, lr0: 0.01}
"""

ARCHITECTURE = """\
nc: 1
end2end: False
reg_max: 1
backbone:
  - [-1, 1, Conv, [8, 6, 4, 1]] # stride 4
  - [-1, 1, Conv, [16, 3, 2]] # stride 8
head:
  - [[1], 1, Detect, [nc]]
"""


def draw(folder: Path, number: int) -> None:
    """Write an image of four coloured rectangles (PNG or JPEG) and its label file; image 0 also has an empty box."""
    rng = np.random.default_rng(number)
    image = np.full((HEIGHT, WIDTH, 3), rng.integers(110, 150, 3), np.uint8)
    lines = []
    for place in range(4):
        kind = int(rng.integers(len(COLOURS)))
        width, height = (int(side) for side in rng.integers(10, 17, 2))
        x = 56 * (place % 2) + int(rng.integers(2, 38))
        y = 32 * (place // 2) + int(rng.integers(1, 15))
        image[y : y + height, x : x + width] = list(COLOURS.values())[kind]
        centre = (x + width / 2) / WIDTH, (y + height / 2) / HEIGHT
        lines.append(" ".join([str(kind), *(f"{v:.6f}" for v in (*centre, width / WIDTH, height / HEIGHT))]))
    if number == 0:
        lines.append("0 0.5 0.5 0 0")
    for below in ("images", "labels"):
        (folder / below).mkdir(exist_ok=True, parents=True)
    cv2.imwrite(str(folder / "images" / f"drawing{number}.{'jpg' if number % 2 else 'png'}"), image)
    (folder / "labels" / f"drawing{number}.txt").write_text("\n".join(lines) + "\n")


def speck(*arguments: str) -> dict[str, Any]:
    """Run a command in this process and return its JSON answer."""
    from train.cli import app

    with redirect_stdout(io.StringIO()) as printed:
        if code := app([*arguments, "--json"], standalone_mode=False):
            raise SystemExit(code)
    return dict(json.loads(printed.getvalue().splitlines()[-1]))


def make(folder: Path) -> None:
    """Write the dataset, build it, build it again with two more images, train, evaluate and promote."""
    folder.mkdir(parents=True)
    os.chdir(folder)  # train.model is relative to the current directory
    (folder / "drawings.yaml").write_text(DATASET)
    (folder / "narrow.yaml").write_text(ARCHITECTURE)
    for number in range(6):
        draw(folder, number)
    speck("build", "drawings.yaml", "--workers", "0")
    for number in range(6, 8):
        draw(folder, number)
    speck("build", "drawings.yaml", "--workers", "0")
    model = speck("train", "drawings.yaml")["model"]
    speck("evaluate", "drawings.yaml")
    speck("promote", model, "--reason", "the first model")
    draw(folder / "later", 8)  # an image for a test to add


def pack(folder: Path) -> bytes:
    """Return the files of a folder as a tar.xz archive; its bytes depend on their paths and contents only."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            data = path.read_bytes()
            info = tarfile.TarInfo(path.relative_to(folder).as_posix())
            info.size, info.mtime = len(data), 1_600_000_000
            archive.addfile(info, io.BytesIO(data))
    return lzma.compress(buffer.getvalue(), preset=9 | lzma.PRESET_EXTREME)


if __name__ == "__main__":
    sys.modules.update(dict.fromkeys(HIDDEN))
    target = Path(sys.argv[1])
    make(target)
    ARCHIVE.write_bytes(pack(target))
