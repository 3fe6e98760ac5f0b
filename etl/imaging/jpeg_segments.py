"""The segments of a JPEG, found without decoding it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
SCAN = 0xDA  # SOS: entropy-coded data follow it
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF, without DHT, JPG (reserved) and DAC
_BARE = frozenset((0x01, *range(0xD0, 0xD9)))  # TEM, RST0-7 and SOI have no length


class Segment(NamedTuple):
    """A segment: its marker's second byte, and where its content behind the length starts and ends."""

    marker: int
    start: int
    end: int


def segments(data: bytes) -> Iterator[Segment]:
    """Yield the segments up to the header of the first scan; none of what is no JPEG."""
    place = 2 if data[:2] == SOI else len(data)
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        start = place + 4
        place += 2 if marker in _BARE else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        yield Segment(marker, start, place)
        if marker == SCAN:
            return
