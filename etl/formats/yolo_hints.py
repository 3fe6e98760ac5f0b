"""What is wrong with a line of a YOLO file that cannot be read, as far as the line shows it."""

from __future__ import annotations

from collections.abc import Sequence

from etl.formats import keypoints
from etl.formats.labels import BadBox
from etl.formats.text import excerpt, has_separators, malformed, numbers
from etl.numbers import count_of

EXPECTED = "class cx cy w h, or class and three or more points, finite and normalised"
_BOX = 5  # class cx cy w h


def explain(line: str, number: int, values: Sequence[float] | None, kpt_shape: tuple[int, int] | None) -> BadBox:
    """Return the bad box of a line that is neither a box nor a polygon nor, where declared, a box with keypoints."""
    if values is None:
        return malformed(number, line, _expected_numbers(line))
    if kpt_shape is not None:
        length = _BOX + kpt_shape[0] * kpt_shape[1]
        return malformed(
            number, line, f"class cx cy w h, or {count_of(length, 'number')} by kpt_shape {list(kpt_shape)}"
        )
    if (boxes := count_boxes(line)) > 1:
        return malformed(number, line, f"one box a line, not {boxes}. {EXPECTED}")
    if len(values) > _BOX + 1 and (form := keypoints.guess_form(values[1:])) is not None:
        return BadBox("pose_row", excerpt(line), form.expected, number)
    if len(values) > _BOX and len(values) % 2 == 0:
        last = "a confidence" if 0 <= values[-1] <= 1 else "a track id"
        return malformed(
            number, line, f"{count_of(len(values) - 1, 'number')}: is the last one {last}? Delete it. {EXPECTED}"
        )
    return malformed(number, line, EXPECTED)


def count_boxes(line: str) -> int:
    """Return how many boxes a line holds: several if every fifth word, and no other, is a whole number."""
    words = line.split()
    boxes, rest = divmod(len(words), _BOX)
    is_class = [number % _BOX == 0 for number in range(len(words))]
    return boxes if not rest and [word.isdecimal() for word in words] == is_class else 1


def _expected_numbers(line: str) -> str:
    words = line.split()
    if numbers(line.replace(",", ".").split()) is not None:
        return f"decimal points, not commas. {EXPECTED}"
    if has_separators(line, _BOX):
        return f"numbers separated by blanks. {EXPECTED}"
    if len(words) >= _BOX and numbers(words[:1]) is None and numbers(words[1:]) is not None:
        return f"the number of the class, not its name. {EXPECTED}"
    return EXPECTED
