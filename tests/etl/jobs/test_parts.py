"""The boxes of a part are those that a search of the whole table finds."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from etl.jobs import parts
from etl.jobs.parts import BoxIndex
from etl.stages.image_annotations import boxes_of


@pytest.mark.parametrize("count", [0, 1, 500])
def test_an_index_gives_the_boxes_of_a_part_in_the_order_of_the_table(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "_BATCH", 7)
    rng = np.random.default_rng(count)
    images = pa.table({"image_id": [f"image {number}" for number in rng.permutation(40)]})
    owners = [f"image {number}" for number in rng.integers(50, size=count)]  # some of no image
    annotations = pa.table({"image_id": pa.array(owners, pa.string()), "number": np.arange(count)})
    pieces = [annotations.slice(start, 90) for start in range(0, count, 90)]
    index = BoxIndex(images, pieces, annotations.schema)
    for start in range(0, 40, 7):
        part = images.slice(start, 7)
        assert index.boxes_of(part).equals(boxes_of(part, annotations))
        assert index.count_boxes(part).tolist() == [owners.count(name) for name in part["image_id"].to_pylist()]
