"""The order of the training samples: a function of seed and epoch, so that a resumed run sees the same order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

_RARE_SHARE = 0.1  # of the samples, below which a category or size counts as rare


class EpochSampler(Sampler[int]):
    """Yields each sample once per epoch, or draws as many by weight; an index is epoch * samples + sample.

    `ShardDataset` splits the index and seeds its augmentation with it. Each iteration advances to the next epoch. With
    several processes, each takes every `world`-th sample and all take equally many.
    """

    def __init__(
        self, samples: int, seed: int, *, weights: NDArray[np.float64] | None = None, rank: int = 0, world: int = 1
    ) -> None:
        self.epoch = 0
        self._samples, self._seed, self._weights = samples, seed, weights
        self._rank, self._world = rank, world

    def __len__(self) -> int:
        return -(-self._samples // self._world)

    def __iter__(self) -> Iterator[int]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        rng = np.random.default_rng([self._seed, epoch])
        if self._weights is None:
            order = rng.permutation(self._samples)
        else:
            order = rng.choice(self._samples, self._samples, p=self._weights / self._weights.sum())
        padded = np.resize(order, len(self) * self._world)
        yield from (padded[self._rank :: self._world] + epoch * self._samples).tolist()

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self.epoch = epoch


def rarity_weights(labels: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """Return the sampling weight of each sample [N] given its labels (categories and sizes).

    A label in a share f of the samples has the repeat factor max(1, sqrt(0.1 / f)); a sample has the largest factor of
    its labels (Gupta et al. 1908.03195, section 5), 1 without labels.
    """
    distinct = [np.unique(row) for row in labels]
    counts = np.bincount(np.concatenate([np.zeros(0, dtype=np.int64), *distinct]))
    with np.errstate(divide="ignore"):
        factor = np.maximum(np.sqrt(_RARE_SHARE * len(labels) / counts), 1.0)
    return np.array([factor[row].max(initial=1.0) for row in distinct])
