"""How well two sets of detections of the same images agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tests.gpu.record import Record
from train.detections import Detections

STRONGEST = 25  # detections of an image that are compared, best scores first


@dataclass(frozen=True)
class Agreement:
    """The strongest detections of one side, looked up among all of the other side.

    A detection is matched if one of its category has all sides within `pixels`. Some are not, however small the
    numerical differences are: suppression keeps another one of two that are equally good.
    """

    pixels: float
    compared: int
    matched: float  # share
    largest: float  # px, distance of a side of a matched pair
    score: float  # largest difference of the scores of a matched pair

    def __str__(self) -> str:
        near = f"{self.matched:.4f} of {self.compared} matched within {self.pixels:g} px"
        return f"{near}, at most {self.largest:.3f} px apart, scores at most {self.score:.4f}"

    def report(self, record: Record, name: str, *, matched: float) -> None:
        """Check that at least this share is matched, but in a quick run: the scores of its untrained model are ties."""
        if record.quick:
            record.fact(name, str(self))
            return
        passed = self.compared > 0 and self.matched >= matched
        record.check(f"{name} (tolerance: {matched:g} within {self.pixels:g} px)", passed, str(self))


def compare(ours: Sequence[Detections], theirs: Sequence[Detections], *, pixels: float) -> Agreement:
    """Return the agreement of the detections of the same images."""
    compared = 0
    distances: list[float] = []
    scores: list[float] = []
    for one, other in zip(ours, theirs, strict=True):
        best = one.take(np.argsort(-one.score, kind="stable")[:STRONGEST])
        compared += len(best)
        if not len(best) or not len(other):
            continue
        apart = np.abs(best.xyxy[:, None] - other.xyxy[None]).max(axis=2)
        apart[best.category[:, None] != other.category[None]] = np.inf
        nearest = apart.argmin(axis=1)
        distance = apart[np.arange(len(best)), nearest]
        same = distance <= pixels
        distances += distance[same].tolist()
        scores += np.abs(best.score - other.score[nearest])[same].tolist()
    share = len(distances) / compared if compared else 0.0
    return Agreement(pixels, compared, share, max(distances, default=0.0), max(scores, default=0.0))
