"""The path of a file relative to a folder that it lies in."""

from __future__ import annotations


def relative_to(path: str, folder: str) -> str | None:
    """Return a path relative to a folder, empty for the folder itself, None if it does not lie in it."""
    if path == folder:
        return ""
    start = folder.rstrip("/") + "/"
    return path[len(start) :] if path.startswith(start) else None
