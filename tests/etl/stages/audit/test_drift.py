"""Drift of new images: distances and sentences against plain loops, silence without drift and on small samples."""

from __future__ import annotations

import math
from collections import Counter
from functools import reduce
from itertools import accumulate
from typing import Any

import numpy as np
import pytest

from etl import schema
from etl.findings import Finding
from etl.stages.audit import conclude
from etl.stages.audit.context import Context
from etl.stages.audit.counts import LabelPart, Summary, count_labels, merge
from etl.stages.audit.model import Audit, DriftMeasure
from tests.etl.stages.audit.test_findings import Row, box, image

OLD, NEW = 60, 60


def dataset(seed: int = 0, **new: Any) -> tuple[list[Row], list[Row], frozenset[str]]:
    """Images with four objects each; of the new ones `new` replaces brightness, contrast, side or share of vans."""
    rng = np.random.default_rng(seed)
    usual = {"brightness": 120.0, "contrast": 50.0, "side": 24.0, "vans": 0.3, "images": NEW}
    images, boxes = [], []
    for age, values in (("old", usual | {"images": OLD}), ("new", usual | new)):
        for number in range(values["images"]):
            name, split = f"{age}{number}", "val" if number % 6 == 0 else "train"
            light = {key: float(values[key] * rng.uniform(0.8, 1.2)) for key in ("brightness", "contrast")}
            images.append(image(name, split=split, **light))
            for place in range(4):
                w, h = values["side"] * rng.uniform(0.8, 1.25, 2)
                category = "van" if rng.random() < values["vans"] else "car"
                boxes.append(box(name, 100 * place + 10, 20, w, h, category))
    return images, boxes, frozenset(row["image_id"] for row in images if row["image_id"].startswith("old"))


def audit(images: list[Row], boxes: list[Row], held: frozenset[str] | None, parts: int = 1) -> Audit:
    summaries: list[Summary] = []
    for number in range(parts):
        table = schema.table(schema.IMAGES, images[number::parts])
        summaries.append(count_labels(LabelPart(table, schema.table(schema.ANNOTATIONS, boxes), 640, 640, held=held)))
    table = schema.table(schema.IMAGES, images)
    context = Context(tile_size=640, image_size=640, images=table, drift_since="the snapshot of the champion")
    return conclude.conclude(reduce(merge, summaries), context)


def found(result: Audit) -> Finding | None:
    return next((row for row in result.findings if row.code == "drifted_images"), None)


def measures(result: Audit) -> dict[str, DriftMeasure]:
    assert result.since.drift is not None
    return {row.name: row for row in result.since.drift.measures}


def values(images: list[Row], boxes: list[Row], measure: str, age: str) -> list[Any]:
    if measure in ("brightness", "contrast"):
        return [row[measure] for row in images if row["image_id"].startswith(age)]
    own = [row for row in boxes if row["image_id"].startswith(age)]
    if measure == "class":
        return [row["category"] for row in own]
    return [math.sqrt((row["x1"] - row["x0"]) * (row["y1"] - row["y0"])) for row in own]


def below(numbers: list[float], edge: float) -> float:
    return sum(number < edge for number in numbers) / len(numbers)


DRIFTS = {
    "size": ({"side": 12.0}, [2 ** (step / 2) for step in range(29)]),
    "brightness": ({"brightness": 60.0}, list(range(16, 256, 16))),
    "contrast": ({"contrast": 90.0}, list(range(8, 128, 8))),
}


@pytest.mark.parametrize("measure", DRIFTS)
def test_a_changed_measure_is_named_with_the_shares_where_it_differs_most(measure: str) -> None:
    change, edges = DRIFTS[measure]
    images, boxes, held = dataset(**change)
    result = audit(images, boxes, held)
    old, new = (values(images, boxes, measure, age) for age in ("old", "new"))
    largest = max(abs(below(new, edge) - below(old, edge)) for edge in edges)
    edge = next(edge for edge in edges if abs(below(new, edge) - below(old, edge)) > largest - 1e-9)
    row, finding = measures(result)[measure], found(result)
    assert row.distance == pytest.approx(largest, abs=1e-4)
    assert [sum(row.trained), sum(row.new)] == [len(old), len(new)]
    assert [name for name, one in measures(result).items() if one.has_drifted] == [measure]
    assert finding is not None
    assert finding.count == NEW
    name = {"size": "object size"}.get(measure, measure)
    advice = finding.advice
    assert advice.startswith("60 images in a split are new since the snapshot of the champion and differ from the 60 ")
    assert f" older ones in {name}." in advice
    assert f"{100 * below(new, edge):.1f} % of the new" in advice
    assert f"under {edge:.3g}" in advice
    assert f"{100 * below(old, edge):.1f} % of the others (distance {largest:.2f}, limit" in advice
    assert "val holds 10 of them." in advice
    assert set(finding.files) <= {f"new{number}.jpg" for number in range(NEW)}
    assert len(finding.files) == 20


def test_a_changed_mix_of_classes_is_named_with_the_shares_of_each() -> None:
    images, boxes, held = dataset(vans=0.9)
    result = audit(images, boxes, held)
    old, new = (Counter(values(images, boxes, "class", age)) for age in ("old", "new"))
    shares = [{name: counts[name] / counts.total() for name in ("car", "van")} for counts in (old, new)]
    row, finding = measures(result)["class"], found(result)
    assert row.distance == pytest.approx(sum(abs(shares[0][name] - shares[1][name]) for name in old) / 2, abs=1e-4)
    assert finding is not None
    assert f"van is {100 * shares[1]['van']:.1f} % of the new objects, {100 * shares[0]['van']:.1f} %" in finding.advice
    assert "older ones in class mix." in finding.advice


@pytest.mark.parametrize("seed", range(40))
def test_new_images_like_the_others_are_no_finding(seed: int) -> None:
    result = audit(*dataset(seed, images=5 + 5 * (seed % 8)))
    assert found(result) is None
    assert result.since.drift is not None


def test_fewer_than_twenty_values_on_a_side_are_not_compared() -> None:
    result = audit(*dataset(images=4, side=6.0, brightness=30.0))  # 16 objects
    assert measures(result) == {}
    assert found(result) is None
    images, boxes, held = dataset(images=5, side=6.0)  # 20 objects in 5 images: chance reaches 0.87
    assert set(measures(audit(images, boxes, held))) == {"size", "class"}
    assert "size" in (row.name for row in measures(audit(images, boxes, held)).values() if row.has_drifted)


def test_the_objects_of_one_image_count_as_one_sample() -> None:
    images, boxes, held = dataset(images=0)
    images.append(image("new"))
    boxes += [box("new", 20 * place, 20, 6, 6) for place in range(40)]
    row = measures(audit(images, boxes, held))["size"]
    assert row.distance > 0.9
    assert row.limit == pytest.approx(math.sqrt(math.log(1000) / 2) * math.sqrt(1 + 1 / OLD), abs=1e-3)
    assert not row.has_drifted


def test_drift_is_that_of_the_whole_however_the_images_are_divided() -> None:
    images, boxes, held = dataset(side=12.0, vans=0.6)
    whole, divided = audit(images, boxes, held), audit(images, boxes, held, parts=7)
    assert divided.since.drift == whole.since.drift
    assert found(divided) == found(whole)


def test_images_in_no_split_are_on_neither_side() -> None:
    images, boxes, held = dataset(side=12.0)
    for row in images:
        if row["image_id"].startswith("new"):
            row["split"] = schema.LEFT_OUT
    assert audit(images, boxes, held).since.drift is None


EVERY = frozenset(f"{age}{number}" for age in ("old", "new") for number in range(60))


@pytest.mark.parametrize("held", [None, EVERY, frozenset()])
def test_there_is_no_drift_without_a_snapshot_new_images_or_old_ones(held: frozenset[str] | None) -> None:
    images, boxes, _ = dataset(side=12.0)
    result = audit(images, boxes, held)
    assert result.since.drift is None
    assert found(result) is None


def test_an_audit_of_an_earlier_version_has_no_drift() -> None:
    images, boxes, held = dataset()
    written = audit(images, boxes, held).to_dict()
    del written["since"]["drift"]
    assert Audit.from_dict("audit.json", written).since.drift is None


def test_bins_hold_the_values_between_their_edges() -> None:
    images, boxes, held = dataset(side=12.0)
    row = measures(audit(images, boxes, held))["size"]
    new = values(images, boxes, "size", "new")
    assert list(accumulate(row.new))[:-1] == [sum(value < edge for value in new) for edge in row.edges]
