"""Whether a model may be a champion at all: judged on new images, on enough objects, and better than not looking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow.compute as pc

from etl.config import Config
from etl.lifecycle import champion, retrain
from etl.numbers import count, count_of
from etl.snapshots.snapshot import Snapshot
from etl.storage import store
from etl.storage.paths import SnapshotPaths
from train.detections import Detections
from train.evaluation.detectors import DetectedImages
from train.evaluation.gate import comparison, rule, trivial
from train.evaluation.images import EvalImage
from train.metrics.matching import MatchedDetections
from train.metrics.sized_boxes import size_range_of


def disqualify_training(model: str, snapshot: Snapshot, images: Sequence[EvalImage]) -> list[str]:
    """Return why a model (its URI) is never promoted for what it was trained on; empty if it may.

    Its snapshot is of a trial or of another dataset, or its train images are among the images that it is judged on.
    """
    if (foreign := champion.foreign_training(model)) is not None:
        return [foreign]
    trained_on = retrain.snapshot_of(model)
    if retrain.trained_on(model) == snapshot.id or not store.exists(SnapshotPaths(trained_on).manifest):
        return []
    trained = Snapshot.open(trained_on).table("images")
    files = set(trained.filter(pc.equal(trained["split"], "train"))["sha256"].to_pylist())
    known = sum(image.sha256 in files for image in images)
    return [f"it was trained on {count(known)} of the {count_of(len(images), 'image')} of val"] if known else []


def disqualify(
    config: Config, detected: DetectedImages, matched: MatchedDetections, metric: str, sites: Sequence[str]
) -> list[str]:
    """Return why the gate never promotes this model, whatever the champion is; empty if it may.

    Too few objects to judge by, no correct detection, or not better than a detector that does not look at the image.
    """
    objects, least = matched.objects(size_range_of(metric.partition("_")[2])), config.gate.min_boxes
    if objects == 0:
        return [rule.unmeasured(metric)]
    if objects < least:
        few = f"{count_of(objects, 'object')}, fewer than gate.min_boxes ({least}): too few to judge by"
        return [f"{metric} is measured on {few}"]
    for name in dict.fromkeys((metric, "AP")):
        if not comparison.value(matched, name) > 0:
            return [f"{name} is 0: no correct detection in val"]
    for description, detections in _trivial_detectors(detected, sites):
        trivial_matches = comparison.match(detected, detections, config.evaluate.size_reference)
        if not rule.is_certain(comparison.gain(matched, trivial_matches, metric)):
            return [
                f"{metric} {comparison.value(matched, metric):.4f} is no better, beyond luck, than that of a detector "
                f"that does not look at the image: {comparison.value(trivial_matches, metric):.4f} by {description}"
            ]
    return []


def _trivial_detectors(detected: DetectedImages, sites: Sequence[str]) -> Iterator[tuple[str, Sequence[Detections]]]:
    """Yield the detections of detectors that do not look at the image, described in words."""
    sizes = [image.wh for image in detected.images]
    exchanged = trivial.exchange_images(detected.detections["combined"], sizes, sites)
    if exchanged is not None:
        yield "its own detections on other images", exchanged
    truth = [image.truth for image in detected.images]
    yield "the same boxes in every image", trivial.constant_boxes(truth, sizes, len(detected.detector.categories))
