"""In which order samples are trained on: a function of the seed and the epoch, so that a run goes on where it ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

_RARE = 0.1  # share of the samples below which a category or size counts as rare


class EpochSampler(Sampler[int]):
    """Every sample once an epoch, or as many drawn by weight; yields epoch * samples + sample.

    `ShardDataset` takes the number apart, and draws what it augments by it. Each time it is iterated it goes on to the
    next epoch. Of several processes each takes every `world`-th sample, as many as the others.
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
        """Go on with this epoch."""
        self.epoch = epoch


def rarity(labels: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """Return how often each sample is to be drawn beside others, given what each shows (categories, sizes).

    Of a label that a share f of the samples show, sqrt(0.1 / f), at least 1; a sample has its rarest label's (Gupta et
    al. 1908.03195, section 5). One without labels has 1.
    """
    shown = [np.unique(row) for row in labels]
    counts = np.bincount(np.concatenate([np.zeros(0, dtype=np.int64), *shown]))
    with np.errstate(divide="ignore"):
        factor = np.maximum(np.sqrt(_RARE * len(labels) / counts), 1.0)
    return np.array([factor[row].max(initial=1.0) for row in shown])
