"""Small images with many YOLO labels, made from their number alone."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

CLASSES = ("car", "bus", "van")
_WIDTH, _HEIGHT, _QUALITY = 320, 240, 60


def write_images(folder: Path, images: int, boxes: int) -> None:
    """Write some JPEGs of noise, each with some boxes of 6 to 16 px; files that exist are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(images):
        labels = folder / f"{number:06d}.txt"
        if labels.exists():
            continue
        rng = np.random.default_rng(number)
        rough = rng.integers(256, size=(9, 12, 3), dtype=np.uint8)
        pixels = cv2.resize(rough, (_WIDTH, _HEIGHT))
        cv2.imwrite(str(labels.with_suffix(".jpg")), pixels, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        centres, sides = rng.uniform(0.03, 0.97, (boxes, 2)), rng.uniform(0.02, 0.05, (boxes, 2))
        classes = rng.integers(len(CLASSES), size=(boxes, 1))
        lines = (
            f"{int(c)} {x:.5f} {y:.5f} {w:.4f} {h:.4f}\n" for c, x, y, w, h in np.hstack([classes, centres, sides])
        )
        labels.write_text("".join(lines))
