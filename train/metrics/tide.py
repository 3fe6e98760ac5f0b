"""The errors of one image by the types of TIDE (Bolya et al. 2020, arXiv 2008.08115), decided as its code does.

A detection that matches nothing is the first of: a *localisation* error (IoU 0.1 to 0.5 with the closest object of its
category), a *class* error (IoU >= 0.5 with an object of another category), a *duplicate* (IoU >= 0.5 with a matched
object of its category), *background* (IoU <= 0.1 with every object), *both* (the rest: IoU 0.1 to 0.5 with an object of
another category). A *missed* object is matched by no detection and has no localisation or class error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from etl import boxes
from train.detections import Detections, GroundTruth, Index
from train.metrics import summary
from train.metrics.sized_boxes import Mask

ERROR_TYPES = ("localisation", "class", "both", "duplicate", "background", "missed")
LOCALISATION, CLASS, BOTH, DUPLICATE, BACKGROUND, MISSED = range(len(ERROR_TYPES))
BACKGROUND_IOU = 0.1  # up to it a detection is about no object
_PAIRS_AT_ONCE = 2**20  # of false positives and objects


@dataclass(frozen=True, eq=False)
class ImageErrors:
    """The errors of one image: false positives in their order, then missed objects."""

    type: Index  # [E], into ERROR_TYPES
    detection: Index  # [E], -1 for a missed object
    about: Index  # [E], the object it is about, -1 for background
    mendable: Mask  # [E], mending it makes a correct detection: of those about a free object the best score

    def values(self, of_truth: Index, of_detections: Index) -> Index:
        """Return the value of the object that each error is about [E], of a background error its own detection's."""
        place = np.where(self.about >= 0, self.about, len(of_truth) + self.detection)
        values: Index = np.concatenate([of_truth, of_detections])[place]
        return values


def find_errors(truth: GroundTruth, detections: Detections, matches: summary.Matches) -> ImageErrors:
    """Return the errors of an image whose detections are matched at an IoU of 0.5."""
    wrong = np.flatnonzero(matches.false_positive)
    parts = np.array_split(wrong, 1 + len(wrong) * len(truth) // _PAIRS_AT_ONCE)  # whose pairs fit into memory
    types, about = map(
        np.concatenate, zip(*(_classify(truth, detections, matches, part) for part in parts), strict=True)
    )
    near = (types == LOCALISATION) | (types == CLASS)
    near[near] &= ~matches.found[about[near]]
    candidates = np.flatnonzero(near)
    candidates = candidates[np.argsort(-detections.score[wrong[candidates]], kind="stable")]
    mendable = np.zeros(len(wrong), dtype=np.bool_)
    mendable[candidates[np.unique(about[candidates], return_index=True)[1]]] = True
    reached = matches.found.copy()
    reached[about[near]] = True
    missed = np.flatnonzero(truth.counted & ~reached)
    return ImageErrors(
        type=np.append(types, np.full(len(missed), MISSED)),
        detection=np.append(wrong, np.full(len(missed), -1)),
        about=np.append(about, missed),
        mendable=np.append(mendable, np.zeros(len(missed), dtype=np.bool_)),
    )


def _classify(
    truth: GroundTruth, detections: Detections, matches: summary.Matches, wrong: Index
) -> tuple[Index, Index]:
    """Return the error type of each false positive, and the object it is about, -1 for background."""
    types, about = np.full(len(wrong), BACKGROUND), np.full(len(wrong), -1)
    overlap = np.where(truth.counted, boxes.iou(detections.xyxy[wrong], truth.xyxy), 0.0)  # [W, N]
    if not overlap.size:
        return types, about
    own = np.where(detections.category[wrong, None] == truth.category, overlap, 0.0)
    other = overlap - own
    near_own, near_other = own.max(axis=1), other.max(axis=1)
    taken = np.where(matches.found, own, 0.0).max(axis=1)
    conditions = {
        LOCALISATION: (near_own >= BACKGROUND_IOU) & (near_own <= summary.MATCHED_IOU),
        CLASS: near_other >= summary.MATCHED_IOU,
        DUPLICATE: taken >= summary.MATCHED_IOU,
        BACKGROUND: overlap.max(axis=1) <= BACKGROUND_IOU,
    }
    types = np.select(list(conditions.values()), list(conditions), BOTH)
    closest = np.where(np.isin(types, (LOCALISATION, DUPLICATE)), own.argmax(axis=1), other.argmax(axis=1))
    return types, np.where(types == BACKGROUND, -1, closest)
