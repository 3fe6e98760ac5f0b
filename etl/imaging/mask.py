"""Grey out the ignore regions of an image."""

from __future__ import annotations

from math import ceil, floor

import numpy as np

from etl.boxes import Boxes
from etl.imaging.codec import Pixels

GREY = 114  # the padding value of YOLO detectors


def mask_out(image: Pixels, ignore: Boxes, labelled: Boxes) -> Pixels:
    """Return the image [H, W, 3] with its ignore regions [M, 4] grey, labelled boxes [N, 4] left as they are."""
    if not len(ignore):
        return image
    mask = np.zeros(image.shape[:2], bool)
    for value, regions in ((True, ignore), (False, labelled)):
        for x0, y0, x1, y1 in regions:
            mask[max(floor(y0), 0) : max(ceil(y1), 0), max(floor(x0), 0) : max(ceil(x1), 0)] = value
    masked = image.copy()
    masked[mask] = GREY
    return masked
