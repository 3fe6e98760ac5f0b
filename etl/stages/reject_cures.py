"""What to do about many rejects of one reason, derived from what they have in common."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa

from etl.formats.recognise import Look, recognise
from etl.numbers import count_of
from etl.stages.similar_names import find_similar

Rows = Sequence[Mapping[str, Any]]
_MOST_ROWS = 100_000  # rejects of one reason that are looked at
_MOST = 0.9  # of the rejects must fit an explanation
_NAMED = 5  # names in a remedy
_CHANGES = {  # words of an expectation -> what to do
    "a confidence?": "Delete the last number of each row, a confidence. Are these predictions rather than labels?",
    "a track id?": "Delete the last number of each row, a track id.",
    "decimal points": "Write decimal points, not commas.",
    "separated by blanks": "Separate the numbers by blanks.",
    "one box a line": "Begin a new line at each class.",
    "not its name": "Write the index of the class in the list of names, not its name.",
}
_ROWS = {"yolo": "class cx cy w h", "dota": "x4 y4 class", "visdrone": "score,category"}  # expected by each format
_LOOKED_AT = 1000  # lines
_SIZE = re.compile(r"(?<!\d)(\d+)x(\d+)")


def derive_cure(reason: str, rejects: pa.Table, categories: Sequence[str], written: Collection[str]) -> str | None:
    """Return the remedy that the first rejects of a reason suggest together, None if they suggest none.

    `categories` is the class list, `written` has the names of the classes in the labels as far as they are known.
    """
    derive = _DERIVED.get(reason)
    return None if derive is None else derive(rejects.slice(0, _MOST_ROWS).to_pylist(), categories, written)


def _unknown_ids(rows: Rows, categories: Sequence[str], written: Collection[str]) -> str | None:
    """Explain YOLO class ids beyond the list of classes."""
    words = [row["found"].split()[:1] for row in rows]
    ids = [int(float(word[0])) for word in words if word and re.fullmatch(r"\d+(\.0*)?", word[0])]
    if not categories or len(ids) < _MOST * len(rows):
        return None
    number, most = len(categories), max(ids)
    names = f"{count_of(number, 'name')} {'is' if number == 1 else 'are'} given"
    if most == number and categories[0] not in written:
        return (
            f"Every class id is from 1 to {number}, and {names}: do the ids start at 1? Subtract 1 from "
            "each, or put a name for id 0 first in source.categories."
        )
    return f"Class ids go up to {most}, but only {names}: is it the list of these labels?"


def _outside(rows: Rows, categories: Sequence[str], written: Collection[str]) -> str | None:
    """Explain boxes outside their image by coordinates that were taken for shares of its width and height."""
    shares = []
    for row in rows:
        corners, size = row["found"].split(), _SIZE.search(row["expected"])
        if len(corners) == 4 and size is not None:
            wh = [int(side) for side in size.groups()] * 2
            shares.append((wh, [float(corner) / side for corner, side in zip(corners, wh, strict=True)]))
    as_pixels = sum(_within(corners, wh) for wh, corners in shares)
    as_percent = sum(_within(corners, [100] * 4) for _, corners in shares)
    if as_pixels < _MOST * len(rows):
        return None
    if as_percent == len(rows) and any(min(wh) > 2 * 100 for wh, _ in shares) and len(rows) > 10:
        return "These are per cent, not shares of the width and height: divide each coordinate by 100."
    return "These are pixels, not normalised: divide x and width by the image's width, y and height by its height."


def _within(corners: Sequence[float], wh: Sequence[int]) -> bool:
    """Return whether a box of more than a pixel lies in an image, but for a pixel at its border."""
    x0, y0, x1, y1 = corners
    return -1 <= x0 < x1 <= wh[0] + 1 and -1 <= y0 < y1 <= wh[1] + 1 and max(x1, y1) > 2


def _malformed(rows: Rows, categories: Sequence[str], written: Collection[str]) -> str | None:
    """Explain lines that are rows of another format, or that all need the same change by what their readers expect."""
    if (look := _find_other_format(rows[:_LOOKED_AT])) is not None:
        return f"These lines look like {look}: {look.advice}."
    for words, cure in _CHANGES.items():
        if sum(words in row["expected"] for row in rows) >= _MOST * len(rows):
            return cure
    return None


def _find_other_format(rows: Rows) -> Look | None:
    """Return the format that most lines look like, None if it is the one that is expected."""
    ((look, count),) = Counter(recognise(row["found"].encode()) for row in rows).most_common(1)
    if look is None or count < _MOST * len(rows):
        return None
    return look if look.format is None or _ROWS.get(look.format, "") not in rows[0]["expected"] else None


def _unknown_names(rows: Rows, categories: Sequence[str], written: Collection[str]) -> str | None:
    """Explain names that differ from those of the list by spelling only."""
    similar = {name: find_similar(name, categories) for name in sorted({row["found"] for row in rows})}
    pairs = [f"{name} ({known}?)" for name, known in similar.items() if known is not None][:_NAMED]
    if not pairs:
        return None
    names = ", ".join(pairs)
    return (
        f"Some names differ only by spelling: {names}. Add them to source.categories and merge them (ontology.merge)."
    )


def _other_size(rows: Rows, categories: Sequence[str], written: Collection[str]) -> str | None:
    """Explain labels that give an image another size than its file has."""
    sizes = [[_SIZE.search(row[key]) for key in ("expected", "found")] for row in rows]
    pairs = [tuple(tuple(map(int, size.groups())) for size in pair if size is not None) for pair in sizes]
    pairs = [pair for pair in pairs if len(pair) == 2 and min(pair[1]) > 0]
    if not pairs:
        return None
    if all(declared == (height, width) for declared, (width, height) in pairs):
        return "The labels give width and height exchanged: the images were rotated. Rotate them back."
    factors = {(w / width, h / height) for (w, h), (width, height) in pairs}
    x = sorted(factors)[0][0]
    if all(abs(side / x - 1) < 0.02 for factor in factors for side in factor):
        return (
            f"All label files give {x:g} times the size of the image: they are labels of scaled images. Use those "
            f"images, or divide the boxes and sizes by {x:g}."
        )
    return "The sizes share no factor: check that labels and images belong together."


_DERIVED: dict[str, Callable[[Rows, Sequence[str], Collection[str]], str | None]] = {
    "unknown_category_id": _unknown_ids,
    "outside_image": _outside,
    "malformed_line": _malformed,
    "size_mismatch": _other_size,
    "unknown_category": _unknown_names,
}
