"""Copy a selection of labelled images, evenly spaced by name, of at most so many megabytes: FROM TO MB."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

SUFFIXES = (".jpg", ".jpeg", ".png")


def labelled_images(folder: Path) -> list[Path]:
    """Return the images that have a YOLO label file, by name."""
    return [p for p in sorted(folder.iterdir()) if p.suffix.lower() in SUFFIXES and p.with_suffix(".txt").exists()]


def select(images: list[Path], limit: int) -> list[Path]:
    """Return as many images as the limit in bytes allows, evenly spaced."""
    for count in range(len(images), 0, -1):
        chosen = [images[number * len(images) // count] for number in range(count)]
        if sum(path.stat().st_size + path.with_suffix(".txt").stat().st_size for path in chosen) <= limit:
            return chosen
    return []


def main(source: Path, target: Path, megabytes: int) -> None:
    """Copy the selection with its label files and the file of category names."""
    if not source.is_dir():
        print(f"no real images at {source} (SPECK_DATA): the suite uses synthetic ones", file=sys.stderr)
        target.mkdir(parents=True)
        return
    names = sorted(source.glob("*.names"))
    chosen = select(labelled_images(source), megabytes * 1_000_000 - sum(path.stat().st_size for path in names))
    target.mkdir(parents=True)
    for path in (*names, *chosen, *(path.with_suffix(".txt") for path in chosen)):
        shutil.copy(path, target)
    print(f"{len(chosen)} images from {source}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
