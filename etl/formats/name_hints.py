"""Find the setting of `source.match` that would join label files and images whose names differ."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from os.path import commonprefix

from etl.formats.pairing import pair_labels, stem_of

_MOST = 500  # names of each side that are compared
_NUMBERS = (r"(\d+)\.", r"0*(\d+)\.", r"(\d+)\D*\.", r"0*(\d+)\D*\.")  # the number in a name, without leading zeros


def matching_hint(labels: Sequence[str], images: Sequence[str]) -> str | None:
    """Return a pattern for `source.match` with the number of names that it joins; None if it joins less than half."""
    labels, images = sorted(labels)[:_MOST], sorted(images)[:_MOST]
    best, most = "", 0
    for pattern in _patterns(labels, images):
        count = len(pair_labels(labels, images, pattern).pairs)
        if count > most:
            best, most = pattern, count
    if 2 * most < min(len(labels), len(images)) or not most:
        return None
    return f"source.match: '{best}' joins {most} of {len(labels)}"


def _patterns(labels: Sequence[str], images: Sequence[str]) -> Iterator[str]:
    stems = [[stem_of(path) for path in paths] for paths in (labels, images)]
    starts = sorted({start for side in stems if (start := _common_start(side))}, key=len, reverse=True)
    if starts:
        yield rf"(?:^|/)(?:{'|'.join(map(re.escape, starts))})?([^/]+)\."
    yield from _NUMBERS


def _common_start(stems: Sequence[str]) -> str:
    """Return what all stems start with, up to the last character that is neither letter nor digit."""
    shared = commonprefix(list(stems)) if len(stems) > 1 else ""  # noqa: RUF071 - of names
    return shared.removesuffix(re.split(r"[\W_]", shared)[-1])
