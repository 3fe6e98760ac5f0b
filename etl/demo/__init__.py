"""A synthetic dataset with known ground truth."""

IMAGES = 63  # of both nights, by default
MIN_IMAGES = 50  # of fewer, the planted faults would spoil more than a build accepts by default
SIDE = 768  # px, width and height of an image by default
MIN_SIDE, MAX_SIDE = 384, 4096
