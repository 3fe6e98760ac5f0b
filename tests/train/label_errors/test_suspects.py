"""Suspects keep their id from run to run, and their values in the table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from train.label_errors import suspects
from train.label_errors.suspects import SUSPECTS, Suspect

SUSPECT = Suspect(
    kind="misplaced", path="a.jpg", image_id="a", split="train", annotation_id="7", category="bus",
    suggested_category="bus", box=(1, 2, 3, 4), suggested_box=(2, 2, 4, 4), score=0.5, chance=0.25, size="tiny",
)  # fmt: skip
MISSING = replace(SUSPECT, kind="missing", annotation_id=None, category=None, suggested_box=None, chance=0.75)


def test_the_most_likely_suspect_is_the_first() -> None:
    ranked = suspects.rank([SUSPECT, MISSING, replace(SUSPECT, kind="swapped", score=0.6)])
    assert [(row.rank, row.kind) for row in ranked] == [(1, "missing"), (2, "swapped"), (3, "misplaced")]


def test_the_table_holds_every_value() -> None:
    rows = suspects.rank([SUSPECT, MISSING])
    table = suspects.to_table(rows)
    assert table.schema == SUSPECTS
    assert suspects.from_table(table) == rows
    assert table["suspect_id"].to_pylist() == [row.suspect_id for row in rows]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"score": 0.1, "chance": 0.1, "rank": 9, "suggested_box": (0, 0, 1, 1)}, True),
        ({"kind": "swapped"}, False),
        ({"image_id": "b"}, False),
        ({"annotation_id": "8"}, False),
    ],
)
def test_the_id_is_of_kind_image_and_label(change: dict[str, object], same: bool) -> None:
    assert (replace(SUSPECT, **change).suspect_id == SUSPECT.suspect_id) == same


def test_the_id_of_a_missing_label_is_of_its_box_to_a_hundredth_pixel() -> None:
    assert replace(MISSING, box=(1.001, 2, 3, 4)).suspect_id == MISSING.suspect_id
    assert replace(MISSING, box=(1.01, 2, 3, 4)).suspect_id != MISSING.suspect_id
    assert len(MISSING.suspect_id) == 16
