"""Regions that are neither label nor background, painted out."""

from __future__ import annotations

from math import ceil, floor

import numpy as np

from etl.boxes import Boxes
from etl.imaging.codec import Pixels

GREY = 114  # the value detectors pad with


def paint(image: Pixels, ignore: Boxes, labelled: Boxes) -> Pixels:
    """Return the image with every pixel an ignore region [M, 4] touches grey, but none that a labelled box touches."""
    if not len(ignore):
        return image
    mask = np.zeros(image.shape[:2], bool)
    for value, regions in ((True, ignore), (False, labelled)):
        for x0, y0, x1, y1 in regions:
            mask[max(floor(y0), 0) : max(ceil(y1), 0), max(floor(x0), 0) : max(ceil(x1), 0)] = value
    painted = image.copy()
    painted[mask] = GREY
    return painted
