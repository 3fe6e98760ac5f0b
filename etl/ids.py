"""Ids, digests and pseudo-random numbers that depend on content alone, not on order, count or time."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

_LENGTH = 16  # hex digits: 64 bits


def digest(*parts: object) -> str:
    """Return the SHA-256 of the parts' canonical JSON in hex; tuples equal lists, keys are sorted.

    Bytes of a file name that are not UTF-8 are escaped.
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()


def seed_of(text: str) -> int:
    """Return a non-negative 63-bit integer that depends on the text alone."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:_LENGTH], 16) >> 1


def fraction(text: str) -> float:
    """Return a number in [0, 1) that depends on the text alone, uniform over texts."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:13], 16) / 16**13


def normal_path(path: str) -> str:
    """Return the NFC posix form of a relative path."""
    return unicodedata.normalize("NFC", PurePosixPath(path).as_posix())


def image_id(path: str) -> str:
    """Return the id of the image at this path relative to `source.images`."""
    return hashlib.sha256(normal_path(path).encode()).hexdigest()[:_LENGTH]


def sample_id(image: str, scale: float, window: Sequence[int], kind: str, copy: int) -> str:
    """Return the id of the sample cut from an image's window [x0, y0, x1, y1] by a recipe kind, copy number from 0."""
    return digest(image, float(scale), [int(side) for side in window], kind, copy)[:_LENGTH]


class AnnotationIds:
    """Ids of the boxes of one image; equal boxes are numbered in their order."""

    def __init__(self, image: str) -> None:
        self._image = image
        self._occurrences: dict[str, int] = {}

    def box(self, category: str, xyxy: Iterable[float]) -> str:
        """Return the id of a box in upright source pixels, as written in the file, to 1/100 px."""
        return self._next(digest(self._image, category, [round(side * 100) for side in xyxy]))

    def text(self, raw: str) -> str:
        """Return the id of an entry that could not be read as a box."""
        return self._next(digest(self._image, "unreadable", raw))

    def _next(self, key: str) -> str:
        occurrence = self._occurrences.get(key, 0)
        self._occurrences[key] = occurrence + 1
        return digest(key, occurrence)[:_LENGTH]
