"""The sequence and frame number in an image's path: `flight/frame_` and 405 of `train/images/flight/frame_0405.jpg`."""

from __future__ import annotations

import posixpath
import re
from typing import NamedTuple

from etl.formats.folders import names_kind, without_split
from etl.ids import normal_path

BLOCK = 32  # consecutive numbers that form a group under a plan without `Plan.grouping`
_NUMBER = re.compile(r"^(.*?)(?<!\d)(\d+)$")
_NUMBER_AND_WORD = re.compile(r"^(.*?)(?<!\d)(\d+)([-_ ][^\W\d_]+)$")  # a camera or kind of picture: 0012_left, 0012_V
_TIME_BEFORE_NUMBER = re.compile(r"(?<!\d)((?:19|20)\d{6})\d{6}(?=\D+\d)")  # the date of DJI_20240517101112_0012
_MOST_DIGITS = 15
_VERSION = re.compile(r"([-_](jpe?g|jfif|png|bmp|tiff?|webp|heic|avif))?\.rf\.[0-9a-zA-Z]+$", re.IGNORECASE)
_OLD_VERSION = re.compile(r"\.rf\.[0-9a-zA-Z]+$")


class FrameName(NamedTuple):
    """The place of an image in a numbered sequence."""

    sequence: str  # the path without its trailing number
    number: int | None

    @property
    def photo(self) -> str:
        """The name of the photo, which its augmented versions share."""
        return self.sequence if self.number is None else f"{self.sequence}#{self.number}"

    def block(self, length: int) -> str:
        """Return the name of the block of so many consecutive numbers."""
        return self.sequence if self.number is None else f"{self.sequence}#{self.number // length}"


def frame_name(path: str) -> FrameName:
    """Return the sequence and number of an image.

    Folders that name a split or a kind of file do not count, nor does the end that Roboflow gives the versions of an
    image, `_jpg.rf.<hash>`: the frames of one video stay one sequence however an export sorted them into folders. A
    number may have a word behind it, as in `DJI_20240517101112_0012_V`; the time of day before a number does not count.
    """
    *folders, name = normal_path(path).split("/")
    kept = [part for part in (without_split(folder) for folder in folders if not names_kind(folder)) if part]
    stem = _TIME_BEFORE_NUMBER.sub(r"\1", _VERSION.sub("", posixpath.splitext(name)[0]))
    found = _NUMBER_AND_WORD.match(stem)
    if found is None or len(found[2]) > _MOST_DIGITS:
        return _frame_name("/".join(kept), stem)
    return FrameName("/".join([*kept, f"{found[1]}*{found[3]}"]), int(found[2]))


def frame_name_of_old_plan(path: str) -> FrameName:
    """Return the sequence and number of an image as plans without `Plan.grouping` see them: with every folder."""
    folder, name = posixpath.split(normal_path(path))
    return _frame_name(folder, _OLD_VERSION.sub("", posixpath.splitext(name)[0]))


def _frame_name(folder: str, stem: str) -> FrameName:
    numbered = _NUMBER.match(stem)
    name, number = (numbered[1], int(numbered[2])) if numbered and len(numbered[2]) <= _MOST_DIGITS else (stem, None)
    return FrameName(posixpath.join(folder, name) if name else folder or ".", number)
