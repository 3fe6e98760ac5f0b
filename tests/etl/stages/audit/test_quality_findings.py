"""Findings of image quality: their numbers are those of a plain computation on the same pixels."""

from __future__ import annotations

from collections import Counter
from typing import Any

import cv2
import numpy as np
import pytest

from etl.boxes import as_boxes
from etl.findings import Finding
from etl.stages.audit import conclude, image_quality
from etl.stages.audit.checks import images as images_checks
from etl.stages.audit.context import Context
from etl.stages.audit.counts import Summary
from tests.etl.stages.audit.test_checks import given

SMALL_SIDES, LARGE_SIDE = (12, 6, 24, 12), 60  # of every size below 32 px


def scene(rng: np.random.Generator, small: float, larger: float, ground: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Luma and boxes of eight small and two larger squares whose mean differs from the ground by about so much."""
    luma = np.full((400, 400), float(ground))
    places = [(20 + 45 * n, 20, SMALL_SIDES[n % 4], small) for n in range(8)]
    places += [(20, 120, LARGE_SIDE, larger), (220, 240, LARGE_SIDE, larger)]
    for x, y, side, difference in places:
        luma[y : y + side, x : x + side] += difference * rng.uniform(0.6, 1.4) * rng.choice([-1, 1])
    return luma.round().astype(np.uint8), as_boxes([(x, y, x + side, y + side) for x, y, side, _ in places])


def contrast(luma: np.ndarray, box: np.ndarray) -> float:
    """The difference of the mean luma of a box and of what surrounds it by half of its side, 4 px at least."""
    x0, y0, x1, y1 = box.astype(int)
    room = max((x1 - x0) // 2, 4)
    around = np.zeros(luma.shape, dtype=bool)
    around[max(y0 - room, 0) : y1 + room, max(x0 - room, 0) : x1 + room] = True
    around[y0:y1, x0:x1] = False
    return abs(luma[y0:y1, x0:x1].mean() - luma[around].mean())


def findings(counts: Counter[Any], **context: Any) -> dict[str, Finding]:
    objects = sum(number for key, number in counts.items() if key[0] == "contrast")
    counts["length", "source", "train", 700] = objects  # where conclude counts the objects
    result = conclude.conclude(Summary(dict(counts)), Context(tile_size=640, image_size=640, **context))
    return {row.code: row for row in result.findings}


def count(images: list[tuple[np.ndarray, np.ndarray]], jpeg_quality: int | None = None) -> Counter[Any]:
    counts: Counter[Any] = Counter()
    for luma, boxes in images:
        counts.update(image_quality.count_quality(image_quality.measure_quality(luma, boxes, jpeg_quality)))
    return counts


@pytest.mark.parametrize(("small", "larger"), [(6, 16), (5, 3)])
def test_faint_objects_compare_the_medians_of_all_small_and_of_all_larger_objects(small: float, larger: float) -> None:
    images = [scene(np.random.default_rng(n), small, larger) for n in range(12)]
    true = [[contrast(luma, box) for luma, boxes in images for box in boxes[part]]
            for part in (slice(8), slice(8, None))]  # fmt: skip
    row = findings(count(images))["faint_objects"]
    assert row.count == sum(value < 10 for value in true[0])
    numbers = [np.quantile(values, 0.5, method="inverted_cdf") for values in true]
    words = row.advice.split()
    said = [float(words[words.index("by") + 1]), float(row.advice.split("objects by ")[1].split()[0].rstrip(","))]
    assert said == pytest.approx(numbers, abs=0.75)  # printed without decimals
    assert "median one of 96 small objects" in row.advice and "one of 24 larger objects" in row.advice
    assert "(12 images measured)" in row.advice


def test_faint_objects_are_none_where_the_median_stands_out_and_of_too_few_objects() -> None:
    assert "faint_objects" not in findings(count([scene(np.random.default_rng(n), 25, 5) for n in range(12)]))
    few = [scene(np.random.default_rng(n), 5, 25) for n in range(2)]
    assert "faint_objects" not in findings(count(few))  # 16 small objects
    enough = count([scene(np.random.default_rng(n), 5, 25) for n in range(3)])
    assert "larger" not in findings(enough)["faint_objects"].advice  # 24 small ones, 6 larger


def test_the_remedy_of_faint_objects_is_what_the_file_lacks() -> None:
    counts = count([scene(np.random.default_rng(n), 5, 25) for n in range(12)])
    assert "and is on" in findings(counts, varies_quality=True)["faint_objects"].advice
    assert "Set augment.quality" in findings(counts, varies_quality=False)["faint_objects"].advice


@pytest.mark.parametrize(("noisy", "found"), [(3, True), (2, False)])
def test_most_measured_images_must_be_noisy(noisy: int, found: bool) -> None:
    rng = np.random.default_rng(0)
    images = []
    for number in range(4):
        luma, boxes = scene(rng, 50, 50)
        sigma = 14.0 if number < noisy else 1.0
        images.append((np.clip(luma + rng.normal(0, sigma, luma.shape), 0, 255).astype(np.uint8), boxes))
    row = findings(count(images)).get("noisy_images")
    assert (row is not None) == found
    assert row is None or (row.count, row.advice.startswith("3 of 4 images measured")) == (3, True)


@pytest.mark.parametrize(("saved", "found"), [(40, True), (69, True), (70, False), (95, False), (None, False)])
def test_low_jpeg_qualities_are_found(saved: int | None, found: bool) -> None:
    images = [scene(np.random.default_rng(n), 50, 50) for n in range(4)]
    row = findings(count(images, saved)).get("heavy_compression")
    assert (row is not None) == found
    assert row is None or f"(median {saved})" in row.advice


@pytest.mark.parametrize(("share", "found"), [(0.12, True), (0.08, False)])
def test_clipped_pixels_are_counted(share: float, found: bool) -> None:
    images = []
    for number in range(4):
        luma, boxes = scene(np.random.default_rng(number), 50, 50)
        luma[-int(400 * share) :] = 255 * (number % 2)
        images.append((luma, boxes))
    counts = count(images)
    row = findings(counts).get("clipped_exposure")
    assert (row is not None) == found
    assert row is None or (row.count, row.advice.startswith("In 4 of 4 images")) == (4, True)
    measured = image_quality.conclude_quality(counts).clipped_percent
    truth = sorted(100 * float(((luma <= 2) | (luma >= 253)).mean()) for luma, _ in images)
    assert measured[50] == pytest.approx(truth[1], abs=0.1)


def test_statistics_of_images_with_fewer_than_twenty_objects_are_no_findings() -> None:
    luma = cv2.randn(np.zeros((300, 300), np.uint8), 128, 40)
    boxes = as_boxes([(10 + 20 * n, 10, 20 + 20 * n, 20) for n in range(10)])
    assert {"noisy_images", "heavy_compression"} & findings(count([(luma, boxes)], 30)).keys() == set()
    assert {"noisy_images", "heavy_compression"} <= findings(count([(luma, boxes)] * 2, 30)).keys()


@pytest.mark.parametrize(
    ("check", "code", "one", "two"),
    [
        (images_checks.one_colour_images, "one_colour_images", "1 of 9 images is black", "2 of 9 images are black"),
        (images_checks.dark_images, "dark_images", "1 of 9 images has a mean", "2 of 9 images have a mean"),
    ],
)
def test_the_verb_agrees_with_the_number_of_images(check: Any, code: str, one: str, two: str) -> None:
    for number, start in ((1, one), (2, two)):
        (row,) = check(given({"images": 9}, {code: number}))
        assert row.advice.startswith(start)
