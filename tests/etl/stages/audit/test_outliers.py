"""Outliers of a class: far outside its usual sizes and shapes, never in a class of few boxes."""

from __future__ import annotations

import numpy as np
import pytest

from etl.stages.audit.counts import GRID_PER_OCTAVE
from etl.stages.audit.outliers import find_outliers


def cell(side: float) -> int:
    """The bin of a side in px."""
    return int(np.floor(np.log2(side) * GRID_PER_OCTAVE)) + 1


def counted(*rows: tuple[float, float, int], category: str = "car") -> dict[tuple[str | int, ...], int]:
    return {("sides", "network", category, cell(width), cell(height)): number for width, height, number in rows}


@pytest.mark.parametrize(("side", "than", "end"), [(400.0, "larger", "most"), (1.0, "smaller", "least")])
def test_boxes_far_from_the_usual_size_are_outliers(side: float, than: str, end: str) -> None:
    extremes = {f"{end} size/car": ((np.log2(side) if end == "most" else -np.log2(side), "a.txt:7"),)}
    (row,) = find_outliers(counted((20, 20, 100), (side, side, 2)), extremes, 1.0)
    assert (row.category, row.kind, row.than, row.count, row.files) == ("car", "size", than, 2, ("a.txt:7",))
    low, high = row.usual
    assert low < 20 < high


def test_boxes_within_the_fences_are_none() -> None:
    assert find_outliers(counted((20, 20, 100), (40, 40, 2), (12, 12, 2)), {}, 1.0) == []


def test_a_class_of_few_boxes_has_no_usual_size() -> None:
    assert find_outliers(counted((20, 20, 28), (400, 400, 1)), {}, 1.0) == []
    assert len(find_outliers(counted((20, 20, 29), (400, 400, 1)), {}, 1.0)) == 1


def test_the_usual_range_is_in_source_pixels() -> None:
    boxes = counted((20, 20, 100), (400, 400, 2))
    (same,), (halved,) = (find_outliers(boxes, {}, scale) for scale in (1.0, 2.0))
    assert halved.usual == pytest.approx([side / 2 for side in same.usual], rel=0.01)


def test_files_within_the_usual_range_are_not_named() -> None:
    extremes = {"most size/car": ((np.log2(400), "a.txt:7"), (np.log2(21), "b.txt:1"))}
    (row,) = find_outliers(counted((20, 20, 100), (400, 400, 2)), extremes, 1.0)
    assert row.files == ("a.txt:7",)


@pytest.mark.parametrize(("width", "height", "than"), [(200, 12, "wider"), (12, 200, "taller")])
def test_boxes_far_from_the_usual_shape_are_outliers(width: float, height: float, than: str) -> None:
    (row,) = find_outliers(counted((50, 50, 100), (width, height, 1)), {}, 1.0)
    assert (row.kind, row.than, row.count) == ("shape", than, 1)


def test_the_shape_of_objects_that_turn_is_their_longer_side_over_the_shorter() -> None:
    turning = ((40, 10, 60), (10, 40, 40))
    assert find_outliers(counted(*turning), {}, 1.0) == []
    extremes = {"least shape/car": ((6.0, "a.txt:3"),)}
    (row,) = find_outliers(counted(*turning, (3, 192, 1)), extremes, 1.0)
    assert (row.than, row.count, row.files) == ("longer", 1, ("a.txt:3",))


def test_classes_are_separate() -> None:
    boxes = counted((20, 20, 100)) | counted((400, 400, 100), category="hall")
    assert find_outliers(boxes, {}, 1.0) == []
