"""A synthetic dataset with known ground truth."""

IMAGES = 63  # of both nights, by default
MIN_IMAGES = 40  # fewer do not hold all planted faults
SIDE = 768  # px, width and height of an image by default
MIN_SIDE, MAX_SIDE = 384, 4096
