"""Objects that a model sees and nobody labelled: a queue for people, the likeliest first.

A detection is of a labelled object when their normalised Wasserstein distance (Wang et al. 2110.13389) reaches what
nearly all true pairs of that size reach; IoU would call every second small pair a stranger. The rest is ranked by how
often detections of that size and score are right on the images held out, not by the score itself, which is surer of
large objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etl import boxes
from etl.boxes import NWD_SCALE
from train.detections import Detections, GroundTruth

_SURE = 0.01  # of the true pairs may lie below the threshold
_LEAST_PAIRS = 30  # of a size, for a threshold and a curve of its own
_APART = 0.5  # of an object's side: centres further apart are no true pair
_REACH = 0.75  # of its own side: a detection further off is of no label, whatever other pairs of its size reach
_HIGH = 0.8  # of a threshold
_LEAST = 0.5  # probability from which a detection is worth a look

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Calibration:
    """What true pairs and scores are worth, by size bucket."""

    nwd: Floats  # [buckets], from which a detection is of a labelled object
    scores: Sequence[Floats]  # by bucket, rising
    right: Sequence[Floats]  # by bucket, the share that is right at each of these scores, rising with them

    def probability(self, size: NDArray[np.int64], score: Floats) -> Floats:
        """Return how likely detections of these buckets [N] and scores [N] are right."""
        found = np.zeros(len(score))
        for bucket in np.unique(size):
            mine = size == bucket
            known = self.scores[bucket], self.right[bucket]
            found[mine] = np.interp(score[mine], *known) if len(known[0]) else 0.0
        return found


def calibrate(images: Iterable[tuple[GroundTruth, Detections]]) -> Calibration:
    """Return what pairs and scores are worth on images whose labels are taken for complete.

    Sizes with few pairs take the figures of all sizes together.
    """
    pairs: list[tuple[NDArray[np.int64], Floats]] = []
    judged: list[tuple[NDArray[np.int64], Floats, NDArray[np.bool_]]] = []
    for truth, found in images:
        owner, near = _pairs(truth, found)
        size = boxes.bucket(boxes.side_length(found.xyxy))
        hit = owner >= 0
        pairs.append((boxes.bucket(boxes.side_length(truth.xyxy[owner[hit]])), near[hit]))
        neutral = _on_ignored(truth, found) & ~hit
        judged.append((size[~neutral], found.score[~neutral], hit[~neutral]))
    of_pair = np.concatenate([np.zeros(0, np.int64), *(row[0] for row in pairs)])
    near = np.concatenate([np.zeros(0), *(row[1] for row in pairs)])
    size = np.concatenate([np.zeros(0, np.int64), *(row[0] for row in judged)])
    score = np.concatenate([np.zeros(0), *(row[1] for row in judged)])
    right = np.concatenate([np.zeros(0, np.bool_), *(row[2] for row in judged)])
    thresholds, scores, shares = [], [], []
    for bucket in range(len(boxes.BUCKETS)):
        mine = of_pair == bucket
        values = near[mine] if mine.sum() >= _LEAST_PAIRS else near
        low = float(np.quantile(values, _SURE)) if len(values) else _HIGH
        thresholds.append(min(low, _HIGH))
        own = size == bucket
        own = own if right[own].sum() >= _LEAST_PAIRS else np.ones(len(size), dtype=np.bool_)
        order = np.lexsort((~right[own], score[own]))  # of equal scores the right ones first: they are made one
        scores.append(score[own][order].astype(np.float64))
        shares.append(_rising(right[own][order].astype(np.float64)))
    return Calibration(np.array(thresholds), scores, shares)


def find_suspects(truth: GroundTruth, found: Detections, calibration: Calibration) -> tuple[Detections, Floats]:
    """Return the detections of one image that no label explains, and how likely each is an object."""
    side = boxes.side_length(found.xyxy)
    size = boxes.bucket(side)
    least = np.maximum(calibration.nwd[size], np.exp(-_REACH * side / NWD_SCALE))
    near = boxes.nwd(found.xyxy[:, None], truth.xyxy)
    labelled = (near >= least[:, None]).any(axis=1) if len(truth) else np.zeros(len(found), np.bool_)
    likely = calibration.probability(size, found.score)
    kept = ~labelled & ~_on_ignored(truth, found) & (likely >= _LEAST)
    return found.take(kept), likely[kept]


def rank(queue: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with `probability` and `score`, the likeliest first, numbered from 1."""
    rows = sorted(queue, key=lambda row: (-row["probability"], -row["score"], row["path"], row["x0"], row["y0"]))
    return [{"rank": number, **row} for number, row in enumerate(rows, start=1)]


def _pairs(truth: GroundTruth, found: Detections) -> tuple[NDArray[np.int64], Floats]:
    """Return which counted object each detection is of, -1 for none, best scores first, and how near it is."""
    near = boxes.nwd(found.xyxy[:, None], truth.xyxy)
    middle = [(part.xyxy[:, :2] + part.xyxy[:, 2:]) / 2 for part in (found, truth)]
    apart = np.sqrt(((middle[0][:, None] - middle[1]) ** 2).sum(axis=2))
    reach = np.maximum(_APART * boxes.side_length(truth.xyxy), 1.0)
    open_ = (apart <= reach) & truth.counted & (found.category[:, None] == truth.category)
    owner, value = np.full(len(found), -1), np.zeros(len(found))
    for row in np.argsort(-found.score, kind="stable"):
        if open_[row].any():
            owner[row] = int(np.where(open_[row], near[row], -1.0).argmax())
            value[row] = near[row, owner[row]]
            open_[:, owner[row]] = False
    return owner, value


def _on_ignored(truth: GroundTruth, found: Detections) -> NDArray[np.bool_]:
    """Return which detections lie by half in what nobody was asked to label."""
    passed = truth.ignore | truth.difficult
    shared = boxes.intersection(found.xyxy, truth.xyxy[passed])
    return np.asarray((shared >= 0.5 * np.maximum(boxes.area(found.xyxy), 1e-9)[:, None]).any(axis=1))


def _rising(values: Floats) -> Floats:
    """Return the rising values nearest to these (pool adjacent violators, Barlow et al. 1972)."""
    means: list[float] = []
    counts: list[int] = []
    for value in values.tolist():
        means.append(value)
        counts.append(1)
        while len(means) > 1 and means[-2] >= means[-1]:
            total = counts[-2] + counts[-1]
            means[-2] = (means[-2] * counts[-2] + means[-1] * counts[-1]) / total
            counts[-2] = total
            means.pop()
            counts.pop()
    return np.repeat(means, counts) if means else np.zeros(0)
