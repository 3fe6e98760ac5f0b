"""What mending errors gains, against plain loops over detections and objects."""

from __future__ import annotations

import numpy as np
import pytest

from etl import boxes
from etl.diagnosis import Mending
from tests.train.metrics.test_summary import NAMES, make_detections, make_truth, random_image
from train.detections import Detections, GroundTruth
from train.metrics import summary, tide
from train.metrics.mending import measure_mending
from train.metrics.operating_points import MatchedImage

Images = list[tuple[GroundTruth, Detections]]
Row = tuple[float, int, bool]  # score, category, correct
Error = tuple[
    str, Row | None, Row | None, int | None, int, int
]  # type, before, mended, missed category, category, size


def images_of(seed: int, number: int = 4) -> Images:
    """Random images with errors of every type, in which every score occurs once and correct detections score higher."""
    rng = np.random.default_rng(seed)
    images = []
    for truth, found in (random_image(rng) for _ in range(number)):
        near = len(truth)  # random_image puts a detection about each object first
        rows = np.concatenate([np.flatnonzero(rng.random(near) < 0.8), np.arange(near), np.arange(near, len(found), 8)])
        rows = rows[rng.random(len(rows)) < 0.8]
        moved = found.xyxy[rows] + rng.normal(0, 0.06, (len(rows), 1)) * boxes.side_length(found.xyxy[rows])[:, None]
        category = np.where(rng.random(len(rows)) < 0.15, rng.integers(0, 3, len(rows)), found.category[rows])
        score = rng.random(len(rows)) * np.where(rows < near, 1.0, 0.5)
        images.append((truth, make_detections(moved.tolist(), score.tolist(), category.tolist())))
    return images


def mending_of(images: Images, scale: float = 1.0) -> Mending:
    matched = [MatchedImage(truth, found, summary.match(truth, found)) for truth, found in images]
    return measure_mending(matched, [scale] * len(images), NAMES)


def overlap(a: list[float], b: list[float]) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(wide, 0) * max(high, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def size_of(box: list[float]) -> int:
    side = ((box[2] - box[0]) * (box[3] - box[1])) ** 0.5
    return sum(side >= edge for edge in boxes.BUCKET_EDGES)


def plain_errors(images: Images) -> tuple[list[Row], list[Error], list[int]]:
    """Return the correct detections, the errors, and the number of objects of each category, in plain loops."""
    correct: list[Row] = []
    errors: list[Error] = []
    objects = [0] * len(NAMES)
    for truth, found in images:
        matches = summary.match(truth, found)
        labels = [
            (box, int(kind), bool(taken))
            for box, kind, taken, counted in zip(
                truth.xyxy.tolist(), truth.category, matches.found, truth.counted, strict=True
            )
            if counted
        ]
        for _, kind, _ in labels:
            objects[kind] += 1
        claims: dict[int, list[tuple[float, int]]] = {}
        pending = []
        for row in sorted(range(len(found)), key=lambda row: -found.score[row]):
            box, kind, score = found.xyxy[row].tolist(), int(found.category[row]), float(found.score[row])
            if matches.owner[row] >= 0:
                correct.append((score, kind, True))
                continue
            if matches.neutral[row]:
                continue
            own = [(overlap(box, label), i) for i, (label, other, _) in enumerate(labels) if other == kind]
            others = [(overlap(box, label), i) for i, (label, other, _) in enumerate(labels) if other != kind]
            near_own, near_other = max(own, default=(0.0, -1)), max(others, default=(0.0, -1))
            twice = max([iou for iou, i in own if labels[i][2]], default=0.0)
            if 0.1 <= near_own[0] <= 0.5:
                name, about = "localisation", near_own[1]
            elif near_other[0] >= 0.5:
                name, about = "class", near_other[1]
            elif twice >= 0.5:
                name, about = "duplicate", near_own[1]
            elif max(near_own[0], near_other[0]) <= 0.1:
                name, about = "background", -1
            else:
                name, about = "both", near_other[1]
            if name in ("localisation", "class") and not labels[about][2]:
                claims.setdefault(about, []).append((score, row))
            pending.append((name, row, about, (score, kind, False)))
        for name, row, about, before in pending:
            mended = None
            if about in claims and name in ("localisation", "class") and max(claims[about])[1] == row:
                mended = (before[0], labels[about][1], True)
            category = before[1] if about < 0 else labels[about][1]
            size = size_of(found.xyxy[row].tolist() if about < 0 else labels[about][0])
            errors.append((name, before, mended, None, category, size))
        for i, (box, kind, taken) in enumerate(labels):
            if not taken and i not in claims:
                errors.append(("missed", None, None, kind, kind, size_of(box)))
    return correct, errors, objects


def plain_ap50(rows: list[Row], objects: list[int], ever: list[int]) -> float:
    values = []
    for kind, number in enumerate(objects):
        hits = [hit for _, category, hit in sorted(rows, reverse=True) if category == kind]
        if not ever[kind] or (not number and not hits):
            continue
        if not number:
            values.append(0.0)
            continue
        points = [(sum(hits[: i + 1]) / number, sum(hits[: i + 1]) / (i + 1)) for i in range(len(hits))]
        levels = [max([p for r, p in points if r >= level], default=0.0) for level in np.linspace(0, 1, 101)]
        values.append(sum(levels) / 101)
    return sum(values) / len(values)


def plain_gain(images: Images, name: str, size: int | None = None, category: int | None = None) -> float:
    correct, errors, objects = plain_errors(images)
    rows, left = list(correct), list(objects)
    for kind, before, mended, missed, of, bucket in errors:
        if kind == name and size in (None, bucket) and category in (None, of):
            rows += [mended] if mended else []
            if missed is not None:
                left[missed] -= 1
        else:
            rows += [before] if before else []
    everything = correct + [before for _, before, *_ in errors if before]
    return max(plain_ap50(rows, left, objects) - plain_ap50(everything, objects, objects), 0.0)


@pytest.mark.parametrize("seed", range(4))
def test_the_gains_equal_those_of_plain_loops(seed: int) -> None:
    images = images_of(seed)
    mending = mending_of(images)
    assert (
        pytest.approx(summary.average_precision(*map(list, zip(*images, strict=True)), NAMES).AP50, abs=1e-5)
        == mending.AP50
    )
    for name, gain in mending.all.items():
        assert gain == pytest.approx(plain_gain(images, name), abs=2e-6), name
        for size, (bucket, gains) in enumerate(mending.by_size.items()):
            assert dict(gains.items())[name] == pytest.approx(plain_gain(images, name, size=size), abs=2e-6), bucket
        for number, category in enumerate(NAMES):
            gains = mending.by_category[category]
            assert dict(gains.items())[name] == pytest.approx(plain_gain(images, name, category=number), abs=2e-6)


def test_the_largest_gains_come_first_and_each_type_is_there() -> None:
    gains = mending_of(images_of(9)).all.items()
    assert [gain for _, gain in gains] == sorted((gain for _, gain in gains), reverse=True)
    assert {name for name, _ in gains} == set(tide.ERROR_TYPES)
    assert gains[0][1] > 0


def test_a_swapped_class_is_worth_its_object_and_a_miss_is_worth_its_recall() -> None:
    truth = make_truth([[0, 0, 20, 20], [100, 0, 120, 20]], [0, 1])
    swapped = [(truth, make_detections([[0, 0, 20, 20], [100, 0, 120, 20]], [0.9, 0.8], [0, 0]))]
    gains = dict(mending_of(swapped).all.items())
    assert mending_of(swapped).AP50 == 0.5
    assert gains["class"] == 0.5
    missed = [(truth, make_detections([[0, 0, 20, 20]], [0.9], [0]))]
    assert dict(mending_of(missed).all.items())["missed"] == 0.5  # the category of the missed object drops out


def test_nothing_is_gained_where_nothing_is_wrong_or_nothing_is_labelled() -> None:
    truth = make_truth([[0, 0, 20, 20]], [0])
    perfect = mending_of([(truth, make_detections([[0, 0, 20, 20]], [0.9], [0]))])
    assert perfect.AP50 == 1.0
    assert {gain for _, gain in perfect.all.items()} == {0.0}
    empty = mending_of([(make_truth([]), make_detections([[0, 0, 20, 20]], [0.9], [0]))])
    assert empty.AP50 is None
    assert {gain for _, gain in empty.all.items()} == {0.0}
