"""The pictures of the evaluation page as JPEG, together no larger than a page may be."""

from __future__ import annotations

from collections.abc import Sequence

from etl.imaging import codec
from etl.imaging.codec import Pixels

_QUALITIES = (82, 65, 50, 35)
_MOST_BYTES = 1_000_000  # of all pictures; as text in the page they are a third larger


def encode_pictures(pictures: Sequence[Pixels], most: int = _MOST_BYTES) -> list[bytes]:
    """Return JPEG bytes of the pictures in the best quality at which all fit; otherwise the last ones are left out."""
    for quality in _QUALITIES:
        encoded = [codec.encode(picture, quality) for picture in pictures]
        if sum(map(len, encoded)) <= most:
            return encoded
    while sum(map(len, encoded)) > most:
        encoded.pop()
    return encoded
