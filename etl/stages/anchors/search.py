"""Search for anchors: k-means++ starts, each improved one anchor at a time by a pattern search with shrinking steps.

Sizes and anchors are logarithms of (w, h): an anchor reaches a box within a ratio R when the larger difference of their
coordinates is below log R, and they agree by exp(-difference). Moving one anchor does not change how well the others
agree with each box, so that one pass over the boxes scores a whole pattern of moves, for all starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RECALL_FIRST = 1000.0  # weight of recall relative to fitness
_STARTS = ((6, 0.3), (3, 0.12), (1, 0.05))  # (starts kept, step size)
_SWEEPS = 4  # of each step size
_FINISH = (0.12, 0.08, 0.06, 0.04, 0.025, 0.015, 0.01, 0.006)
_TRIES = 4  # at most, while a box is not reached
_WIDE = np.array([-1.5, -0.5, 0.0, 0.5, 1.5])  # steps of a pattern along each side
_NARROW = np.array([-1.0, 0.0, 1.0])


class Sizes(NamedTuple):
    """Representative box sizes, as logarithms."""

    logs: Floats  # [N, 2]
    weights: Floats  # [N], sums to 1
    reach: float  # an anchor reaches the boxes nearer than this


class Limits(NamedTuple):
    """Limits of the anchors' sides, as logarithms."""

    floors: Floats  # [k] the smallest side of the k-th smallest anchor by area
    ceiling: float


def search_anchors(coarse: Sizes, fine: Sizes, limits: Limits, rng: np.random.Generator) -> Floats:
    """Return the best anchors [k, 2] by recall, then fitness: searched on coarse sizes, refined on fine ones."""
    best: Floats = np.empty((len(limits.floors), 2))
    worth = -np.inf
    for _ in range(_TRIES):
        starts = range(_STARTS[0][0])
        candidates = np.stack([_spread(coarse, len(limits.floors), rng, drawn=start > 0) for start in starts])
        for count, step in _STARTS:
            scores, candidates = _evolve(coarse, limits, candidates[:count], [step] * _SWEEPS, _WIDE, rng, RECALL_FIRST)
            candidates = candidates[np.argsort(-scores, kind="stable")]
        anchors = refine_anchors(fine, limits, candidates[0], rng)
        if (now := float(score_anchors(fine, anchors[None])[0])) > worth:
            best, worth = anchors, now
        if (_agreements(fine, best[None]).max(axis=1) > np.exp(-fine.reach)).all():
            break
    return best


def refine_anchors(
    sizes: Sizes, limits: Limits, anchors: Floats, rng: np.random.Generator, recall: float = RECALL_FIRST
) -> Floats:
    """Return anchors [k, 2] improved by a few small steps, or the same ones if no step improves them."""
    _, candidates = _evolve(sizes, limits, anchors[None], _FINISH, _NARROW, rng, recall)
    refined: Floats = candidates[0]
    return refined


def score_anchors(sizes: Sizes, anchors: Floats, recall: float = RECALL_FIRST) -> Floats:
    """Return the score [S] of each start's anchors [S, k, 2]."""
    return _worth(sizes, _agreements(sizes, anchors).max(axis=1), recall)


def clamp_anchors(anchors: Floats, limits: Limits) -> Floats:
    """Return anchors [S, k, 2] sorted by area and clamped to their floors and the ceiling."""
    for _ in range(anchors.shape[1]):  # raising one may change the order by area, but only ever upwards
        order = np.argsort(anchors.sum(axis=2), axis=1, kind="stable")
        anchors = np.take_along_axis(anchors, order[..., None], axis=1)
        raised = np.clip(anchors, limits.floors[:, None], limits.ceiling)
        if np.array_equal(raised, anchors):
            break
        anchors = raised
    return np.clip(anchors, limits.floors[:, None], limits.ceiling)


def _evolve(
    sizes: Sizes,
    limits: Limits,
    anchors: Floats,
    steps: Sequence[float],
    pattern: Floats,
    rng: np.random.Generator,
    recall: float,
) -> tuple[Floats, Floats]:
    """Return the best score [S] and anchors [S, k, 2] that each start reaches."""
    kept = clamp_anchors(anchors, limits)
    best = score_anchors(sizes, kept, recall)
    for step in steps:
        moved = clamp_anchors(_sweep(sizes, limits, kept, pattern * step, rng, recall), limits)
        now = score_anchors(sizes, moved, recall)
        better = now > best
        best, kept = np.where(better, now, best), np.where(better[:, None, None], moved, kept)
    return best, kept


def _sweep(
    sizes: Sizes, limits: Limits, anchors: Floats, pattern: Floats, rng: np.random.Generator, recall: float
) -> Floats:
    """Return the anchors [S, k, 2] after each, in random order, made its best move of the pattern [G] by [G]."""
    anchors = anchors.copy()
    starts, count, _ = anchors.shape
    rows = np.arange(starts)
    agreements = _agreements(sizes, anchors)
    for j in rng.permutation(count):
        others = np.delete(agreements, j, axis=1).max(axis=1, initial=0.0)  # [S, N]
        moves = pattern * rng.uniform(0.5, 1.5)
        places = np.clip(anchors[:, j, :, None] + moves, limits.floors[j], limits.ceiling)  # [S, 2, G]
        along = np.exp(-np.abs(sizes.logs.T[:, None] - places[..., None]))  # [S, 2, G, N]
        agreement = np.minimum(along[:, 0, :, None], along[:, 1, None])  # [S, G, G, N]
        worth = _worth(sizes, np.maximum(agreement, others[:, None, None]), recall).reshape(starts, -1)
        x, y = np.divmod(worth.argmax(axis=1), len(pattern))
        agreements[:, j] = agreement[rows, x, y]
        anchors[:, j] = np.stack([places[rows, 0, x], places[rows, 1, y]], axis=1)
    return anchors


def _agreements(sizes: Sizes, anchors: Floats) -> Floats:
    """Return how well each anchor [S, k, 2] agrees with each size: [S, k, N]."""
    across, down = np.abs(sizes.logs.T[:, None, None] - np.moveaxis(anchors, 2, 0)[..., None])  # [S, k, N] each
    agreements: Floats = np.exp(-np.maximum(across, down))
    return agreements


def _worth(sizes: Sizes, agreement: Floats, recall: float) -> Floats:
    """Return the score of the best agreements [..., N]."""
    worth: Floats = np.einsum("...n,n", (agreement + recall) * (agreement > np.exp(-sizes.reach)), sizes.weights)
    return worth


def _spread(sizes: Sizes, count: int, rng: np.random.Generator, *, drawn: bool) -> Floats:
    """Return distant points [count, 2]: drawn by weight and distance (k-means++), or each the farthest from all."""
    logs = sizes.logs
    chosen = np.empty((count, 2))
    nearest = np.ones(len(logs))
    for index in range(count):
        if drawn:
            mass = np.cumsum(sizes.weights * nearest)
            mass = np.cumsum(sizes.weights) if mass[-1] <= 0 else mass  # fewer sizes than anchors
            place = min(int(np.searchsorted(mass, rng.random() * mass[-1], side="right")), len(logs) - 1)
            chosen[index] = logs[place]
        else:
            chosen[index] = logs[int(nearest.argmax())] if index else (logs.min(axis=0) + logs.max(axis=0)) / 2
        distance = np.abs(logs - chosen[index]).max(axis=1) ** 2
        nearest = distance if index == 0 else np.minimum(nearest, distance)
    return chosen
