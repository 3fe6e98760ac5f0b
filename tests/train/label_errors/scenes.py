"""Scenes of objects on a grid and what a detector finds in them: small ones with lower scores, less exactly placed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from etl import boxes
from etl.plan import Window
from etl.review import KINDS, Kind
from tests.train.metrics.test_summary import make_detections, make_truth
from train.detections import Detections
from train.evaluation.images import EvalImage
from train.label_errors.judge import Judge, Judged, make_judge

WH = (800, 500)
CATEGORIES = ("car", "bus", "boat")
COLOURS = ((200, 60, 60), (60, 200, 60), (60, 60, 200))


@dataclass
class Scene:
    """The objects of an image, what was detected, and what was planted in its labels."""

    xyxy: np.ndarray
    category: np.ndarray
    detections: Detections
    pixels: np.ndarray


def draw_scene(rng: np.random.Generator) -> Scene:
    """Return 40 objects of 5 to 60 px of three classes, 36 of them detected, and 25 false detections."""
    side = np.exp2(rng.uniform(2.3, 5.9, 40))
    low = np.column_stack([np.arange(40) % 8 * 100, np.arange(40) // 8 * 100]) + rng.uniform(0, 30, (40, 2))
    xyxy = np.column_stack([low, low + side[:, None]])
    category = rng.integers(0, 3, 40)
    seen = rng.random(40) < 0.9
    near = xyxy[seen] + rng.normal(0, 1.0, (int(seen.sum()), 4)) * np.minimum(side[seen, None] / 20, 1)
    score = np.clip(0.35 + 0.6 * (side[seen] / 60) ** 0.5 + rng.normal(0, 0.06, len(near)), 0, 1)
    noise = rng.uniform(0, (720, 420), (25, 2))
    false = np.column_stack([noise, noise + np.exp2(rng.uniform(2.3, 5.9, (25, 1)))])
    weak = np.clip(rng.normal(0.25, 0.12, 25), 0.01, 1)
    found = make_detections(
        [*near.tolist(), *false.tolist()], [*score, *weak], [*category[seen].tolist(), *rng.integers(0, 3, 25).tolist()]
    )
    return Scene(xyxy, category, found, draw_pixels(rng, xyxy, category))


def draw_pixels(rng: np.random.Generator, xyxy: np.ndarray, category: np.ndarray) -> np.ndarray:
    """Return grey noise with a rectangle of its class's colour for each object."""
    pixels = rng.integers(80, 100, (WH[1], WH[0], 3), dtype=np.uint8)
    for (x0, y0, x1, y1), own in zip(xyxy.round().astype(int), category, strict=True):
        pixels[y0:y1, x0:x1] = np.clip(np.array(COLOURS[own]) + rng.integers(-40, 40, 3), 0, 255)
    return pixels


def judged(number: int, scene: Scene, calibrates: bool = True) -> Judged:
    """Return the scene as an image with its labels."""
    truth = make_truth(scene.xyxy.tolist(), category=scene.category.tolist())
    image = EvalImage(
        f"image{number}", f"{number}.jpg", WH, Window(0, 0, *WH), 1, truth,
        annotation_ids=tuple(f"{number}/{row}" for row in range(len(truth))),
    )  # fmt: skip
    return Judged(image, "train", scene.detections, number % 2, calibrates)


def judge(scenes: Sequence[Scene], learned: Sequence[Scene] = ()) -> Judge:
    """Return the judge of held-out scenes, and of scenes that the detector was trained on."""
    images = [judged(number, scene, number < len(scenes)) for number, scene in enumerate([*scenes, *learned])]
    made = make_judge(images[: len(scenes)], CATEGORIES, 0)
    for image, scene in zip(images, [*scenes, *learned], strict=True):
        made.add(image, scene.pixels)
    return made


def plant(rng: np.random.Generator, scene: Scene, share: float, kinds: Sequence[Kind] = KINDS) -> tuple[Scene, dict]:
    """Return the scene with errors in this share of its labels by kind, and the boxes of the errors by kind."""
    xyxy, category = scene.xyxy.copy(), scene.category.copy()
    drawn = rng.random(len(xyxy))
    rows = {kind: (drawn >= share * at) & (drawn < share * (at + 1)) for at, kind in enumerate(kinds)}
    none = np.zeros(len(xyxy), dtype=bool)
    swapped, misplaced, missing = (rows.get(kind, none) for kind in ("swapped", "misplaced", "missing"))
    category[swapped] = (category[swapped] + rng.integers(1, 3, int(swapped.sum()))) % 3
    wh = xyxy[misplaced, 2:] - xyxy[misplaced, :2]
    low = xyxy[misplaced, :2] + wh * rng.uniform(0.25, 0.4, (len(wh), 1))  # an IoU of 0.4 to 0.2
    xyxy[misplaced] = np.concatenate([low, low + wh * np.exp2(rng.uniform(-0.3, 0.3, wh.shape))], axis=1)
    number = int(rows.get("spurious", none).sum())
    low = rng.uniform(0, (740, 440), (200, 2))
    tried = np.column_stack([low, low + np.exp2(rng.uniform(2.3, 5.9, (200, 1)))])
    spurious = tried[boxes.iou(tried, scene.xyxy).max(axis=1) == 0][:number]
    errors = {
        "missing": xyxy[missing], "swapped": xyxy[swapped], "misplaced": xyxy[misplaced], "spurious": spurious
    }  # fmt: skip
    labels = np.concatenate([xyxy[~missing], spurious])
    classes = np.concatenate([category[~missing], rng.integers(0, 3, number)])
    return replace(scene, xyxy=labels, category=classes), errors
