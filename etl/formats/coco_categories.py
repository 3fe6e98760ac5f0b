"""The categories of a COCO document."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from etl.errors import SourceError
from etl.formats.coco_numbers import is_id, same_id
from etl.formats.coco_repeats import Repeated, bad_entry
from etl.formats.labels import BadBox
from etl.formats.text import excerpt
from etl.numbers import count_of

_SHOWN = 10  # ids that an error names


@dataclass(frozen=True)
class Categories:
    """The names of the categories by id."""

    names: Mapping[Any, str] = field(default_factory=dict)
    bad: Sequence[BadBox] = ()  # entries in which a key stands twice
    root: str | None = None  # the category that is the supercategory of all others and has no box, as Roboflow adds it


def read_categories(
    file: str, rows: Sequence[Any] | None, used: Sequence[Any], names: Sequence[str] | None
) -> Categories:
    """Return the declared categories; without any, those of `names`, which are in the order of the ids.

    `used` are the category ids of the annotations. SourceError for a category without id or name, for an id with two
    names, and if the ids cannot be known.
    """
    if not rows:
        ids = [key for key in used if not isinstance(key, tuple)]
        return Categories(_by_position(file, ids, names) if ids else {})
    bad = [bad_entry(row, f"categories[{n}]") for n, row in enumerate(rows) if isinstance(row, Repeated)]
    rows = [row for row in rows if not isinstance(row, Repeated)]
    found: dict[Any, str] = {}
    for row in rows:
        if not (isinstance(row, dict) and is_id(row.get("id")) and row.get("name") not in (None, "")):
            raise SourceError(f"{file}: category {excerpt(row)}, expected an id and a name")
        name = row["name"] if isinstance(row["name"], str) else json.dumps(row["name"])
        if found.setdefault(row["id"], name) != name:
            raise SourceError(
                f"{file}: category id {row['id']} is {found[row['id']]!r} and {name!r}, expected one name"
            )
    return Categories(found, bad, _find_root(rows, found, used))


def _find_root(rows: Sequence[dict[str, Any]], names: Mapping[Any, str], used: Sequence[Any]) -> str | None:
    with_boxes = {same_id(key) for key in used if not isinstance(key, tuple)}
    for row in rows:
        others = [other for other in rows if other is not row]
        if others and same_id(row["id"]) not in with_boxes and _is_parent(names[row["id"]], others):
            return names[row["id"]]
    return None


def _is_parent(name: str, others: Sequence[dict[str, Any]]) -> bool:
    return all(other.get("supercategory") == name for other in others)


def _by_position(file: str, ids: Sequence[Any], names: Sequence[str] | None) -> dict[Any, str]:
    """Return the names by id for a document without categories, whose ids count from 0 or from 1."""
    whole = {same_id(key) for key in ids}
    numbers = sorted(key for key in whole if isinstance(key, int))
    shown = ", ".join(str(key) for key in sorted(whole, key=str)[:_SHOWN]) + (", …" if len(whole) > _SHOWN else "")
    cure = f"write {file} with its list 'categories', or set source.categories to the names in the order of the ids"
    problem = f"{file} has no categories, and its annotations use the category ids {shown}"
    if names is None:
        raise SourceError(f"{problem}; {cure}")
    is_position = len(numbers) == len(whole) and numbers[0] >= 0 and numbers[-1] - min(numbers[0], 1) < len(names)
    if not is_position:
        raise SourceError(
            f"{problem}, which are no positions among the {count_of(len(names), 'name')} in source.categories; {cure}"
        )
    if numbers[0] > 0 and numbers[-1] < len(names):  # 0 or the last position would decide it
        counted = f"which can count the {count_of(len(names), 'name')} in source.categories from 0 or from 1"
        raise SourceError(f"{problem}, {counted}; write {file} with its list 'categories'")
    first = 1 if numbers[0] > 0 else 0
    return {number + first: name for number, name in enumerate(names)}
