"""What the labels of the train samples say about sizes and crowds."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from etl.schema import SAMPLES
from train.models.trained_labels import TrainedLabels, measure_labels


def sample(split: str, image: str, scale: float, sides: list[float], first: int = 0) -> dict[str, object]:
    found = [
        {"x0": 1.0, "y0": 2.0, "x1": 1.0 + side, "y1": 2.0 + side, "annotation_id": f"{image}{first + number}"}
        for number, side in enumerate(sides)
    ]
    return {"split": split, "image_id": image, "scale": scale, "boxes": found}


def table(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SAMPLES)


def test_sizes_are_percentiles_in_network_pixels_by_scale_of_the_train_samples() -> None:
    fine, coarse = np.linspace(4, 30, 500).tolist(), np.linspace(2, 12, 300).tolist()
    labels = measure_labels(
        table(
            sample("train", "a", 1.0, fine), sample("train", "b", 0.5, coarse), sample("val", "c", 1.0, [900.0] * 50)
        ),
        2.0,
    )
    assert labels.sizes.keys() == {1.0, 0.5}
    expected = sorted(fine)[5] * 2, sorted(fine)[-6] * 2
    assert labels.sizes[1.0] == pytest.approx(expected, rel=0.01)
    assert labels.sizes[0.5][1] < 24
    assert TrainedLabels.from_dict("model.json", labels.to_dict()) == labels


def test_crowds_are_counted_by_tile_and_by_image_each_object_once() -> None:
    rows = [sample("train", "a", 1.0, [5.0] * 200), sample("train", "a", 1.0, [5.0] * 170, first=150)]
    labels = measure_labels(table(*rows, sample("train", "b", 1.0, [])), 1.0)
    assert (labels.most_in_tile, labels.most_in_image) == (200, 320)
    assert labels.max_detections == 700, "twice as many as in the image, in hundreds"
    few = measure_labels(table(sample("train", "a", 1.0, [5.0] * 3)), 1.0)
    assert few.max_detections == 300


def test_a_train_split_without_boxes_has_no_sizes() -> None:
    labels = measure_labels(table(sample("train", "a", 1.0, [])), 1.0)
    assert (labels.sizes, labels.most_in_tile, labels.max_detections) == ({}, 0, 300)
