"""Pose rows that were read as polygons are rejected over the whole dataset."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st

from etl import schema
from etl.formats import yolo
from etl.stages import ingest
from etl.stages.box_checks import apply_checks
from etl.stages.pose_rows import PoseRows

POSE = "0 0.8 0.5 0.05 0.08 0.79 0.52 0.81 0.48 0.8 0.5"
POLYGON = "0 0.8 0.5 0.85 0.5 0.86 0.53 0.84 0.55 0.8 0.54"
OUTSIDE = "0 1.8 1.5 1.05 1.08 1.79 1.52 1.81 1.48 1.8 1.5"


def ingested(*files: str) -> dict[str, pa.Table]:
    rows = ingest.IngestRows()
    for number, text in enumerate(files):
        labels = yolo.read_label(text.encode(), f"{number}.txt", (300 + number, 200), ["car"])
        row = {"image_id": f"{number}", "path": f"{number}.jpg", "width": 300 + number, "height": 200}
        ingest.add_image(rows, row, [labels])  # type: ignore[arg-type]
    return {
        name: schema.table(schema.TABLES[name], found) for name, found in vars(rows).items() if name in schema.TABLES
    }


def reject_pose_rows(*pieces: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """The tables of all pieces after the checks of all of them."""
    pose_rows = PoseRows()
    for tables in pieces:
        pose_rows.add(tables)
    checked = [apply_checks(tables, pose_rows.checks())[0] for tables in pieces]
    return {name: pa.concat_tables([tables[name] for tables in checked]) for name in pieces[0]}


def test_every_row_of_the_length_of_pose_rows_is_rejected_and_no_longer_a_box() -> None:
    before = ingested(f"{POSE}\n0 0.5 0.5 0.1 0.1\n", f"\n{POSE}\n")
    after = reject_pose_rows(before)
    assert [(row["where"], row["reason"]) for row in after["rejects"].to_pylist()] == [
        ("0.txt:1", "pose_row"), ("1.txt:2", "pose_row"),
    ]  # fmt: skip
    assert "`kpt_shape: [3, 2]`" in after["rejects"]["expected"][0].as_py()
    assert "11 numbers" in after["rejects"]["found"][0].as_py()
    assert after["annotations"]["polygon"].to_pylist() == [None]
    assert ingest.count_boxes(after) == ingest.count_boxes(before) == 3


def test_pose_rows_are_found_over_all_images_not_in_each() -> None:
    pieces = [ingested(POSE), ingested(POLYGON), ingested(POSE, POSE), ingested("0 0.5 0.5 0.1 0.1"), ingested("")]
    after = reject_pose_rows(*pieces)
    assert after["rejects"]["reason"].to_pylist() == ["pose_row"] * 4
    few = [ingested(POSE), *[ingested(f"{POLYGON}\n{POLYGON}")] * 6]
    assert reject_pose_rows(*few)["rejects"].num_rows == 0


@pytest.mark.parametrize("text", [f"{POLYGON}\n{POLYGON}", "0 0.5 0.5 0.1 0.1", ""])
def test_polygons_and_boxes_are_left_alone(text: str) -> None:
    before = ingested(text)
    assert reject_pose_rows(before)["annotations"] == before["annotations"]


def test_a_box_that_is_rejected_already_keeps_its_reason() -> None:
    after = reject_pose_rows(ingested("\n".join([POSE, POSE, OUTSIDE])))
    assert sorted(after["rejects"]["reason"].to_pylist()) == ["outside_image", "pose_row", "pose_row"]
    assert after["annotations"].num_rows == 1
    assert len(np.unique(after["ledger"]["annotation_id"].to_pylist())) == after["ledger"].num_rows == 3


NUMBERS = st.sampled_from(["0", "1", "7", "-0.2", "0.05", "0.3", "0.5", "0.8", "1.2", "3", "x", "nan", "1e12", "1e308"])
LINES = st.lists(st.lists(NUMBERS, min_size=1, max_size=12).map(" ".join) | st.just(POSE), max_size=9)


@given(st.lists(LINES, max_size=3))
@settings(max_examples=200, deadline=None)
def test_every_line_is_a_usable_box_or_a_reject(files: list[list[str]]) -> None:
    tables = reject_pose_rows(ingested(*("\n".join(lines) for lines in files)))
    dropped = ingest.is_dropped(tables).to_pylist()
    usable = len(dropped) - sum(dropped)
    written = sum(map(len, files))
    assert usable + tables["rejects"].num_rows == ingest.count_boxes(tables) == written
