"""The rows of images come back in the order of the paths, however they were added and are cut into pieces."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from etl.jobs import image_rows
from etl.jobs.image_rows import ROWS, ImageRows, to_table, to_tables

PATHS = [f"{letter}.jpg" for letter in "abcdefgh"]


def rows_of(boxes: dict[str, int], version: int) -> pa.Table:
    """The rows of images with so many boxes each."""
    rows = [
        {
            "path": path,
            "images": [{"path": path, "width": version}],
            "annotations": [{"image_id": path, "line": line} for line in range(count)],
            "ledger": [], "rejects": [{"where": path}] * (count % 2), "traits": [],
        }
        for path, count in boxes.items()
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=ROWS)


@given(st.lists(st.dictionaries(st.sampled_from(PATHS), st.integers(0, 5), max_size=8), max_size=4), st.integers(1, 30))
def test_rows_are_read_in_the_order_of_the_paths_and_later_ones_replace_earlier_ones(
    added: list[dict[str, int]], size: int
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(image_rows, "_PIECE", size)
        rows, expected = ImageRows(PATHS), {}
        for version, boxes in enumerate(added):
            rows.add(rows_of(boxes, version))
            expected |= {path: (count, version) for path, count in boxes.items()}
            read = [row for piece in rows.read() for row in piece.to_pylist()]
            assert [(row["path"], len(row["annotations"]), row["images"][0]["width"]) for row in read] == [
                (path, *expected[path]) for path in sorted(expected)
            ]
            assert [[box["line"] for box in row["annotations"]] for row in read] == [
                list(range(len(row["annotations"]))) for row in read
            ]
        assert rows.missing() == [path for path in PATHS if path not in expected]
        assert rows.added == sum(map(len, added))


def test_a_piece_holds_few_boxes_and_at_least_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_rows, "_PIECE", 10)
    rows = ImageRows(PATHS)
    rows.add(rows_of(dict(zip(PATHS, (1, 1, 50, 1, 1, 1, 4, 9), strict=True)), 0))
    pieces = [piece["path"].to_pylist() for piece in rows.read()]
    assert len(pieces) == 4
    assert [path for piece in pieces for path in piece] == PATHS


def test_the_tables_of_rows_are_those_of_their_images() -> None:
    rows = rows_of({"a.jpg": 2, "b.jpg": 1}, 3)
    tables = to_tables(rows)
    assert [(row["image_id"], row["line"]) for row in tables["annotations"].to_pylist()] == [
        ("a.jpg", 0), ("a.jpg", 1), ("b.jpg", 0),
    ]  # fmt: skip
    assert tables["rejects"]["where"].to_pylist() == ["b.jpg"]
    assert all(to_table(rows, name).equals(table) for name, table in tables.items())


def _sizes(rows: ImageRows) -> list[Any]:
    return [piece.num_rows for piece in rows.read()]


def test_no_paths_have_no_pieces() -> None:
    assert _sizes(ImageRows([])) == _sizes(ImageRows(PATHS)) == []
