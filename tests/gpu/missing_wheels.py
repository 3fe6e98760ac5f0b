"""Print the downloaded wheels whose packages this Python lacks."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

WHEELS = Path(__file__).resolve().parent / "wheels"
EXACT = {"typing_extensions"}  # an installed one of another version does not do


def missing(folder: Path) -> list[Path]:
    """Return the wheels of packages that are not installed, by name."""
    found = []
    for wheel in sorted(folder.glob("*.whl")):
        name, version = wheel.name.split("-")[:2]
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            found.append(wheel)
            continue
        if name in EXACT and installed != version:
            found.append(wheel)
    return found


if __name__ == "__main__":
    print(*missing(WHEELS), sep="\n")
