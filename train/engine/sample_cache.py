"""Decoded samples in memory that the trainer's worker processes share."""

from __future__ import annotations

import mmap

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


class SampleCache:
    """Square images by sample number, as many of them as fit into `most_bytes`.

    The memory is mapped before the workers fork. The worker that decodes a sample first stores it for all; memory is
    used only for samples that are stored.
    """

    def __init__(self, samples: int, side: int, most_bytes: int) -> None:
        size = 3 * side * side
        self.samples = min(samples, most_bytes // (size + 1))
        memory = mmap.mmap(-1, max(1, self.samples * (size + 1)))
        self._is_stored = np.frombuffer(memory, np.uint8, self.samples)
        images = np.frombuffer(memory, np.uint8, self.samples * size, offset=self.samples)
        self._images: Pixels = images.reshape(self.samples, side, side, 3)

    def load(self, sample: int) -> Pixels | None:
        """Return the stored image, which must not be changed; None if there is none."""
        return self._images[sample] if sample < self.samples and self._is_stored[sample] else None

    def store(self, sample: int, image: Pixels) -> Pixels:
        """Store the image and return the stored one; return the image itself if there is no place for it."""
        if sample >= self.samples:
            return image
        stored: Pixels = self._images[sample]
        stored[:] = image
        self._is_stored[sample] = 1  # last: another process may read the image from now on
        return stored
