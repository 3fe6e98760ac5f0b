"""NWD-AP: average precision as COCO's, with the normalised Wasserstein distance (NWD) in place of IoU.

NWD of two boxes is exp(-W / C), with W the 2-Wasserstein distance of the Gaussians N((cx, cy), diag(w/2, h/2)^2) in
their place and C = 12.7 px (Wang et al. 2021, arXiv 2110.13389):

    W^2 = (cx_a - cx_b)^2 + (cy_a - cy_b)^2 + (w_a - w_b)^2 / 4 + (h_a - h_b)^2 / 4

IoU compares shares of a box, NWD pixels: at a threshold t the root mean square error of the four edges may be up to
12.7 px * ln(1 / t) / sqrt(2), whatever the object's size. C is the paper's for every dataset, because metrics of a
growing dataset could not be compared otherwise. Distances are in source pixels, also when sizes are in network pixels.
The lowest threshold is the one at which the assigner makes an anchor positive (0.7: edges 3.2 px off). The highest is
0.85 (1.5 px): labels that are one pixel off at every edge (0.895) pass it with room to spare.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from etl import assigner, boxes
from etl.boxes import Boxes
from train.metrics import coco, precision
from train.metrics.matching import MatchedDetections, match_images
from train.metrics.pairs import Criterion
from train.metrics.sized_boxes import Floats, ScaledImage, size_range_of

THRESHOLDS = (assigner.NWD, 0.75, 0.8, 0.85)
_INSIDE = 0.5  # share of a detection inside an excuse from which it counts as on it


def _excuse_closeness(detections: Boxes, excuses: Boxes) -> Floats:
    """Return NWD [N], row by row, and 1 for a detection that lies inside by half."""
    inside = coco.share_inside(detections, excuses) >= _INSIDE
    closeness: Floats = np.where(inside, 1.0, boxes.nwd(detections, excuses))
    return closeness


NWD = Criterion(
    thresholds=THRESHOLDS,
    closeness=boxes.nwd,
    excuse_closeness=_excuse_closeness,
    reach=boxes.NWD_SCALE * np.log(1 / THRESHOLDS[0]) * (1 + 1e-9),  # no centres further apart reach a threshold
    later_first=False,
    excuses_last=True,
)


def average_precision(
    images: Sequence[ScaledImage], categories: int, max_detections: int | None = None, *, coco_rules: bool = False
) -> dict[str, float | None]:
    """Return NWD_AP and NWD_AP_size, in the size ranges of AP_size; None where there is no ground truth.

    All detections count, or so many per image and category; `coco_rules` as in metrics.summary.
    """
    return by_size(match(images, categories, max_detections, coco_rules=coco_rules))


def match(
    images: Sequence[ScaledImage], categories: int, max_detections: int | None, *, coco_rules: bool
) -> MatchedDetections:
    """Return the detections matched by NWD, in every size range."""
    return match_images(images, categories, NWD, max_detections=max_detections, coco_rules=coco_rules)


def by_size(matched: MatchedDetections) -> dict[str, float | None]:
    """Return NWD_AP and NWD_AP_size of detections matched by NWD."""
    sizes = {"NWD_AP": "all", **{f"NWD_AP_{name}": size_range_of(name) for name in boxes.BUCKETS}}
    return {name: precision.mean(precision.by_category(matched, size)) for name, size in sizes.items()}
