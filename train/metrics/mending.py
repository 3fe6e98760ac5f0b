"""What errors cost: AP50 after mending all errors of one TIDE type, minus AP50 (Bolya et al. 2020, arXiv 2008.08115).

Mending gives a detection with a localisation or class error the object that it is about, if it is the best of those
about that object and no other detection has matched it; else it takes the detection away, as it does a duplicate, both
or background error. A missed object is mended by no longer counting it. A gain below 0 is an artefact of the 101 recall
levels and counts as 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from etl import boxes
from etl.by_size import BySize
from etl.diagnosis import ErrorGains, Mending
from train.detections import Index
from train.metrics import precision, tide
from train.metrics.matching import RangeMatches
from train.metrics.operating_points import MatchedImage
from train.metrics.sized_boxes import Floats, Mask

_ONCE = np.ones((1, 1), dtype=np.int64)
_FULL_PRECISION = 6  # decimals


@dataclass(frozen=True, eq=False)
class MendableDetections:
    """The detections of all images that count, the number of objects, and the errors."""

    score: Floats  # [D]
    category: Index  # [D]
    hit: Mask  # [D]
    objects: Index  # [C]
    error_type: Index  # [E], into tide.ERROR_TYPES
    error_detection: Index  # [E], -1 for a missed object
    error_category: Index  # [E], of the object that it is about, of a background error its own
    error_bucket: Index  # [E], likewise
    mendable: Mask  # [E], mending it makes a correct detection

    @classmethod
    def of(cls, images: Sequence[MatchedImage], scale: Sequence[float], categories: int) -> MendableDetections:
        """Return the detections and errors of matched images; `scale` is network pixels per source pixel of each."""
        objects = np.zeros(categories, dtype=np.int64)
        columns = []
        before = 0  # detections of earlier images
        for (truth, detections, matches), per_pixel in zip(images, scale, strict=True):
            objects += np.bincount(truth.category[truth.counted], minlength=categories)
            errors = tide.find_errors(truth, detections, matches)
            place = np.cumsum(~matches.neutral) - 1 + before
            sizes = [boxes.bucket(boxes.side_length(part.xyxy) * per_pixel) for part in (truth, detections)]
            row = np.where(errors.detection >= 0, np.append(place, -1)[errors.detection], -1)
            kept = ~matches.neutral
            before += int(kept.sum())
            of_detections = detections.score[kept], detections.category[kept], matches.owner[kept] >= 0
            about = errors.values(truth.category, detections.category), errors.values(*sizes)
            columns.append((*of_detections, errors.type, row, *about, errors.mendable))
        score, category, hit, *of_errors = map(np.concatenate, zip(*columns, strict=True))
        return cls(score, category, hit, objects, *of_errors)

    @cached_property
    def base(self) -> Floats:
        """AP50 of each category as it is [C], NaN without objects."""
        return self._measure(
            np.arange(len(self.objects)), self.category, self.hit, self.objects, np.ones_like(self.hit)
        )

    def gain(self, errors: Mask) -> float:
        """Return by how much AP50 rises if some errors [E] are mended."""
        if not errors.any():
            return 0.0
        types, rows, of = self.error_type[errors], self.error_detection[errors], self.error_category[errors]
        mendable = self.mendable[errors]
        missed, wrong_class = types == tide.MISSED, (types == tide.CLASS) & mendable
        category, hit, kept, objects = self.category.copy(), self.hit.copy(), np.ones_like(self.hit), self.objects
        kept[rows[~missed & ~mendable]] = False
        hit[rows[mendable]] = True
        category[rows[wrong_class]] = of[wrong_class]
        objects = objects - np.bincount(of[missed], minlength=len(objects))
        changed = np.union1d(of[missed | wrong_class], self.category[rows[~missed]])
        mended = self.base.copy()
        mended[changed] = self._measure(changed, category, hit, objects, kept)
        mean = precision.mean(mended)
        before = precision.mean(self.base)
        return 0.0 if mean is None or before is None else round(max(mean - before, 0.0), _FULL_PRECISION)

    def _measure(self, changed: Index, category: Index, hit: Mask, objects: Index, kept: Mask) -> Floats:
        """Return AP50 of some categories; NaN for one that never had objects, or has neither any nor detections."""
        wanted = np.zeros(len(objects), dtype=np.bool_)
        wanted[changed] = True
        rows = np.flatnonzero(kept & wanted[category])
        rows = rows[np.lexsort((-self.score[rows], category[rows]))]
        ends = np.searchsorted(category[rows], np.arange(len(objects) + 1))
        values = []
        for number in changed.tolist():
            hits = hit[rows[ends[number] : ends[number + 1]]]
            if objects[number]:
                values.append(_average_precision(hits, int(objects[number])))
            else:
                values.append(0.0 if self.objects[number] and len(hits) else np.nan)
        return np.array(values, dtype=np.float64)


def measure_mending(images: Sequence[MatchedImage], scale: Sequence[float], categories: Sequence[str]) -> Mending:
    """Return what mending the errors of each type gains: of all, of each size bucket and of each category."""
    detections = MendableDetections.of(images, scale, len(categories))
    base = precision.mean(detections.base)
    return Mending(
        AP50=None if base is None else round(base, _FULL_PRECISION),
        all=_gains(detections, np.ones(len(detections.error_type), dtype=np.bool_)),
        by_size=BySize.of(_gains(detections, detections.error_bucket == size) for size in range(len(boxes.BUCKETS))),
        by_category={
            name: _gains(detections, detections.error_category == number) for number, name in enumerate(categories)
        },
    )


def _gains(detections: MendableDetections, errors: Mask) -> ErrorGains:
    by_type = {
        name: detections.gain(errors & (detections.error_type == number))
        for number, name in enumerate(tide.ERROR_TYPES)
    }
    return ErrorGains(**by_type)


def _average_precision(hits: Mask, objects: int) -> float:
    """Return AP50 of one category from its detections, best score first."""
    none = np.zeros(len(hits), dtype=np.int64)
    matches = RangeMatches(none, none, hits[None], np.zeros((1, len(hits)), dtype=np.bool_), np.array([objects]))
    return float(precision.average_precision(matches, _ONCE)[0, 0])
