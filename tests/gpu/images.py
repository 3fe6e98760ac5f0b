"""The images that the suite predicts on: real ones if they were fetched, else synthetic ones."""

from __future__ import annotations

from pathlib import Path

from etl.imaging.codec import Pixels
from train.prediction import media

REAL = Path(__file__).resolve().parent / "data" / "aerial_cars"
SUFFIXES = (".jpg", ".jpeg", ".png")


def read_images(synthetic: str, count: int, *, real: bool) -> tuple[str, list[Pixels]]:
    """Return which images they are, and up to `count` of them, evenly spaced by name."""
    folder = REAL if real and REAL.is_dir() and any(REAL.iterdir()) else Path(synthetic)
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    files = [path for path in files if path.stem != "depot_002"]  # truncated on purpose
    count = min(count, len(files))
    chosen = [files[number * len(files) // count] for number in range(count)]
    kind = "real" if folder == REAL else "synthetic"
    return kind, [media.read_image_file(str(path)) for path in chosen]
