from __future__ import annotations

import hashlib
from functools import partial
from typing import Any

import numpy as np
import pytest

from etl import schema
from etl.config import Augment
from etl.stages.augment.donor_reader import DonorReader, DonorTables, select_donors
from etl.stages.augment.donors import PER_SET, SETS, choose_donors, divide_into_sets, pick_donors
from etl.stages.image_annotations import boxes_of

NAMES = [hashlib.sha256(str(number).encode()).hexdigest()[:16] for number in range(8)]


def tables() -> tuple[Any, Any]:
    """Six train images with two boxes each, one of val and one of test."""
    splits = ["train"] * 6 + ["val", "test"]
    images = [
        {"image_id": name, "split": split, "width": 60, "height": 40, "path": name}
        for name, split in zip(NAMES, splits, strict=True)
    ]
    annotations = [
        {"annotation_id": f"{name}-{n}", "image_id": name, "category": "car", "ignore": n == 1}
        | {"x0": 5.0 * n, "y0": 2.0, "x1": 5.0 * n + 4 + number, "y1": 45.0}
        for number, name in enumerate(NAMES)
        for n in range(2)
    ]
    return schema.table(schema.IMAGES, images), schema.table(schema.ANNOTATIONS, annotations)


def borrowed() -> DonorTables:
    images, annotations = tables()
    return select_donors(
        choose_donors(images, [annotations], Augment()),
        images.slice(4, 4),
        images,
        partial(boxes_of, annotations=annotations),
    )


def test_a_part_carries_the_rows_of_its_train_images_donors_and_no_more() -> None:
    found = borrowed()
    assert set(found.donors) == set(NAMES[4:6])
    everyone = sorted(NAMES[:6])
    for name, sets in found.donors.items():
        assert sets == divide_into_sets(pick_donors(name, SETS * PER_SET, everyone, own=name))
    donors = {name for sets in found.donors.values() for names in sets for name in names}
    assert set(found.images["image_id"].to_pylist()) == set(found.annotations["image_id"].to_pylist()) == donors


@pytest.mark.parametrize("number", range(SETS))
def test_the_boxes_of_donors_are_numbered_through_as_their_rows_are(number: int) -> None:
    reader = DonorReader(borrowed(), lambda image: np.zeros((image["height"], image["width"], 3), np.uint8))
    rows, sides = reader.rows(NAMES[4], number), reader.sides(NAMES[4], number)
    images = [ask() for ask in reader.images(NAMES[4], number, 10)]
    assert len(rows) == len(sides) == 2 * PER_SET
    for labelled in images:
        for place, (box, ignore) in enumerate(zip(labelled.boxes, labelled.ignore, strict=True)):
            row = rows[labelled.first - 10 + place]
            assert (row["image_id"], row["x1"], row["ignore"]) == (labelled.image_id, box[2], ignore)
            assert sides[labelled.first - 10 + place] == pytest.approx(((box[2] - box[0]) * 38) ** 0.5)  # inside
    assert len({labelled.image_id for labelled in images}) == PER_SET


def test_a_donor_is_read_when_asked_for_and_once() -> None:
    read = []
    reader = DonorReader(borrowed(), lambda image: read.append(image["image_id"]) or np.zeros((40, 60, 3), np.uint8))
    asks = reader.images(NAMES[5], 0, 0)
    assert read == []
    for _ in range(3):
        asks[0]()
    assert len(read) == 1
    assert reader.images(NAMES[6], 0, 0) == reader.rows(NAMES[6], 0) == []  # of val
