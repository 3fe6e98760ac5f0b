"""Plant label errors of each kind in a COCO file of the demo data, and tell which suspects are of one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from etl import boxes
from etl.review import KINDS, Kind
from train.label_errors.suspects import Suspect

SHARE = 0.05  # of the labels, of each kind
_SAME = 0.5  # IoU from which a suspect is at a removed label
_FAULTS: dict[str, Kind] = {
    "missing_label": "missing",
    "wrong_category": "swapped",
    "duplicate": "spurious",
}  # of the demo data itself


@dataclass(frozen=True)
class Planted:
    """One planted error."""

    kind: Kind
    path: str
    xywh: tuple[float, ...]  # of the wrong label, of a missing one the object's


def plant(dataset: Path, night: str, seed: int) -> list[Planted]:
    """Rewrite the annotations of a night and return the errors in them: 5 % of the labels by kind, and the demo's own.

    A misplaced label has an IoU of 0.2 to 0.4 with its object, a spurious one lies where no object is.
    """
    file = dataset / night / "annotations.json"
    document = json.loads(file.read_text())
    truth = json.loads((dataset.parent / "truth.json").read_text())
    names = {row["id"]: f"{night}/{row['file_name']}" for row in document["images"]}
    faults = json.loads((dataset.parent / "faults.json").read_text())
    faulty = {row.get("annotation_id") for row in faults if row["file"].startswith(night)}
    wh = {row["file_name"]: (row["width"], row["height"]) for row in truth["images"]}
    of_image = {row["id"]: row["file_name"] for row in truth["images"]}
    objects: dict[str, list[list[float]]] = {path: [] for path in wh}
    for row in truth["annotations"]:
        objects[of_image[row["image_id"]]].append(row["bbox"])
    rows = [row for row in document["annotations"] if row["id"] not in faulty and names[row["image_id"]] in wh]
    rng = np.random.default_rng(seed)
    number = round(SHARE * len(rows))
    order = rng.permutation(len(rows))
    missing, swapped, misplaced, models = (
        [rows[at] for at in order[number * part : number * (part + 1)]] for part in range(4)
    )
    planted = [Planted("missing", names[row["image_id"]], tuple(row["bbox"])) for row in missing]
    kept = [row for row in document["annotations"] if row not in missing]
    categories = [row["id"] for row in document["categories"]]
    for row in swapped:
        row["category_id"] = int(rng.choice([other for other in categories if other != row["category_id"]]))
        planted.append(Planted("swapped", names[row["image_id"]], tuple(row["bbox"])))
    for row in misplaced:
        row["bbox"] = _misplace(rng, row["bbox"], wh[names[row["image_id"]]])
        planted.append(Planted("misplaced", names[row["image_id"]], tuple(row["bbox"])))
    images = [row["id"] for row in document["images"] if names[row["id"]] in wh]
    next_id = max(row["id"] for row in kept) + 1
    for offset, model in enumerate(models):
        image = int(rng.choice(images))
        path = names[image]
        xywh = _place_apart(rng, model["bbox"][2:], wh[path], objects[path])
        objects[path].append(xywh)
        kept.append({**model, "id": next_id + offset, "image_id": image, "bbox": xywh, "area": xywh[2] * xywh[3]})
        planted.append(Planted("spurious", path, tuple(xywh)))
    file.write_text(json.dumps({**document, "annotations": kept}))
    own = [
        Planted(_FAULTS[row["fault"]], row["file"], tuple(row["bbox"]))
        for row in faults
        if row["fault"] in _FAULTS and row["file"].startswith(night)
    ]
    return [*planted, *own]


def _misplace(rng: Generator, xywh: Sequence[float], wh: tuple[int, int]) -> list[float]:
    """Return the box moved and resized to an IoU of 0.2 to 0.4, inside the image."""
    x, y, w, h = xywh
    while True:
        dx, dy = rng.uniform(-1, 1, 2) * (w, h)
        new_w, new_h = np.array([w, h]) * np.exp2(rng.uniform(-0.5, 0.5, 2))
        moved = [round(float(side), 2) for side in (x + dx, y + dy, new_w, new_h)]
        inside = moved[0] >= 0 and moved[1] >= 0 and moved[0] + moved[2] <= wh[0] and moved[1] + moved[3] <= wh[1]
        if inside and 0.2 <= _iou([moved], [xywh]).max() <= 0.4:
            return moved


def _place_apart(
    rng: Generator, size: Sequence[float], wh: tuple[int, int], others: Sequence[Sequence[float]]
) -> list[float]:
    """Return a box of this size at a random place of the image that touches no other box."""
    while True:
        x, y = rng.uniform(0, 1, 2) * (wh[0] - size[0], wh[1] - size[1])
        placed = [round(float(side), 2) for side in (x, y, *size)]
        if _iou([placed], others).max(initial=0) == 0:
            return placed


def _iou(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> np.ndarray:
    return boxes.iou(_xyxy(a), _xyxy(b))


def _xyxy(xywh: Sequence[Sequence[float]]) -> np.ndarray:
    rows = np.array(xywh, dtype=np.float64).reshape(-1, 4)
    return np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:]], axis=1)


def match(suspects: Sequence[Suspect], planted: Sequence[Planted], *, centred: bool = False) -> list[int | None]:
    """Return for each suspect, in its order, the planted error that it is the first to name; None for none.

    `centred`: a suspect is at a removed label if its centre lies within half the label's side of the label's centre.
    """
    taken: set[int] = set()
    found: list[int | None] = []
    for suspect in suspects:
        hit = None
        for number, error in enumerate(planted):
            if number in taken or (error.kind, error.path) != (suspect.kind, suspect.path):
                continue
            if _is_centred(suspect, error) if centred and error.kind == "missing" else _overlap(suspect, error):
                hit = number
                taken.add(number)
                break
        found.append(hit)
    return found


def _overlap(suspect: Suspect, error: Planted) -> bool:
    same = float(boxes.iou(np.array([suspect.box]), _xyxy([error.xywh]))[0, 0])
    return same >= (_SAME if error.kind == "missing" else 0.95)


def _is_centred(suspect: Suspect, error: Planted) -> bool:
    x, y, w, h = error.xywh
    x0, y0, x1, y1 = suspect.box
    return abs(x0 + x1 - 2 * x - w) <= max(w, 2) and abs(y0 + y1 - 2 * y - h) <= max(h, 2)


def figures(suspects: Sequence[Suspect], planted: Sequence[Planted]) -> dict[str, dict[str, Any]]:
    """Return precision@50, the share found among the first 2 x planted, and the calibration error, in all and by kind.

    The calibration error is the mean distance of ten bins' chance from their share of errors, weighted by suspects.
    """
    answer = {}
    for kind in (None, *KINDS):
        errors = [error for error in planted if kind in (None, error.kind)]
        rows = [suspect for suspect in suspects if kind in (None, suspect.kind)]
        right, centred = (_is_right(match(rows, errors, centred=value)) for value in (False, True))
        chance = np.array([row.chance for row in rows])
        answer[kind or "all"] = {
            "planted": len(errors),
            "suspects": len(rows),
            "precision@50": round(float(right[:50].mean()) if len(rows) else 0.0, 3),
            "precision@50_centred": round(float(centred[:50].mean()) if len(rows) else 0.0, 3),
            "found": round(float(right[: 2 * len(errors)].sum()) / max(len(errors), 1), 3),
            "mean_chance": round(float(chance.mean()) if len(rows) else 0.0, 3),
            "mean_right": round(float(right.mean()) if len(rows) else 0.0, 3),
            "calibration_error": _calibration_error(chance, right),
            "calibration_error_centred": _calibration_error(chance, centred),
        }
    return answer


def _is_right(matched: Sequence[int | None]) -> np.ndarray:
    return np.array([number is not None for number in matched], dtype=bool)


def _calibration_error(chance: np.ndarray, right: np.ndarray) -> float:
    bins = np.minimum((chance * 10).astype(int), 9)
    return round(sum(abs(float((chance - right)[bins == at].sum())) for at in range(10)) / max(len(chance), 1), 3)
