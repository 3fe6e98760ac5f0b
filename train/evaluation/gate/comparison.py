"""The gains of a model over a champion on the same images, by size and by site.

A paired bootstrap: both models are measured on the same 1,000 resamples of the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from etl.evaluation import Gain
from train.detections import Detections, Index
from train.evaluation.detectors import DetectedImages
from train.evaluation.gate.rule import BUCKET_METRICS, EVERY_SIZE_METRIC, Comparison
from train.metrics import bootstrap, coco
from train.metrics.matching import MatchedDetections, RangeMatches, match_images
from train.metrics.sized_boxes import scaled_images, size_range_of

LEAST_IMAGES = 5  # of a site: fewer do not tell how its AP varies

Mask = NDArray[np.bool_]


def compare(
    model: MatchedDetections, champion: MatchedDetections, name: str, metric: str, sites: Sequence[str]
) -> Comparison:
    """Return the gains of a model over the champion of this name; `sites` [images] names the site of each image."""
    return Comparison(
        champion=name,
        metric=gain(model, champion, metric),
        buckets={bucket: gain(model, champion, of_bucket) for bucket, of_bucket in BUCKET_METRICS.items()},
        sites={
            site: gain(_of_images(model, mask), _of_images(champion, mask), EVERY_SIZE_METRIC)
            for site, mask in _masks(sites).items()
        },
    )


def match(detected: DetectedImages, detections: Sequence[Detections], size_reference: str) -> MatchedDetections:
    """Return detections matched on the images, with sizes as the evaluated model's network shows them."""
    truth = [image.truth for image in detected.images]
    scale = detected.size_scale("combined", size_reference)
    return match_images(scaled_images(truth, detections, scale), len(detected.detector.categories), coco.IOU)


def _masks(sites: Sequence[str]) -> dict[str, Mask]:
    """Return the images of each site of LEAST_IMAGES or more; nothing if there is only one site."""
    names = np.array(sites, dtype=np.str_)
    if len(np.unique(names)) < 2:
        return {}
    masks = {str(site): names == site for site in np.unique(names)}
    return {site: mask for site, mask in masks.items() if mask.sum() >= LEAST_IMAGES}


def _of_images(matched: MatchedDetections, mask: Mask) -> MatchedDetections:
    """Return the matches of some images in the range of all sizes."""
    number: Index = np.cumsum(mask) - 1

    def restrict(matches: RangeMatches) -> RangeMatches:
        kept = mask[matches.image]
        return replace(
            matches,
            image=number[matches.image[kept]],
            rank=matches.rank[kept],
            hit=matches.hit[:, kept],
            neutral=matches.neutral[:, kept],
            objects=matches.objects[mask],
        )

    every = size_range_of("")
    return MatchedDetections(int(mask.sum()), {every: [restrict(category) for category in matched.ranges[every]]})


def gain(model: MatchedDetections, champion: MatchedDetections, metric: str) -> Gain:
    """Return the gain model - champion of a metric on 1,000 resamples."""
    return bootstrap.paired_gain(model, champion, metric, bootstrap.resample(model.images))


def value(matched: MatchedDetections, metric: str) -> float:
    """Return a metric on the images as they are; NaN without an object that it measures."""
    every_image_once = np.ones((1, matched.images), dtype=np.int64)
    return float(bootstrap.average_precision(matched, metric, every_image_once)[0])
