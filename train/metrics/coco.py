"""COCO's matching criterion: IoU at 0.5, 0.55 ... 0.95, and the order of equal ones, bit for bit as in pycocotools."""

from __future__ import annotations

import numpy as np

from etl import boxes
from etl.boxes import Boxes
from train.metrics.pairs import Criterion
from train.metrics.sized_boxes import Floats

MAX_DETECTIONS = 100  # that count per image and category
AP_THRESHOLDS = {"AP": slice(None), "AP50": slice(0, 1), "AP75": slice(5, 6)}  # of IOU, by metric


def iou(detections: Boxes, objects: Boxes) -> Floats:
    """Return intersection over union [N], row by row."""
    shared = _intersection(detections, objects)
    union = boxes.area(detections) + boxes.area(objects) - shared
    return np.divide(shared, union, out=np.zeros(len(shared)), where=shared > 0)


def share_inside(detections: Boxes, regions: Boxes) -> Floats:
    """Return the share of each detection that lies in its region [N]."""
    shared = _intersection(detections, regions)
    return np.divide(shared, boxes.area(detections), out=np.zeros(len(shared)), where=shared > 0)


def _intersection(a: Boxes, b: Boxes) -> Floats:
    """Return the area [N] that each box shares with its partner; far sides are rounded as corner plus size."""
    wide, high = (
        np.minimum(*(box[:, axis] + (box[:, axis + 2] - box[:, axis]) for box in (a, b)))
        - np.maximum(a[:, axis], b[:, axis])
        for axis in (0, 1)
    )
    shared: Floats = np.maximum(wide, 0.0) * np.maximum(high, 0.0)
    return shared


IOU = Criterion(
    thresholds=tuple(np.linspace(0.5, 0.95, 10).tolist()),
    closeness=iou,
    excuse_closeness=share_inside,
    reach=0.0,  # half a detection's width and height at least lie in the other box
    later_first=True,
    excuses_last=False,
)
