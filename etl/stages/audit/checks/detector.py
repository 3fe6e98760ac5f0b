"""Checks of what the configured detector can learn and find: sizes, cells, candidates, anchors and NMS."""

from __future__ import annotations

from collections.abc import Iterator

from etl.boxes import BUCKETS, SIZE_RANGES
from etl.codes import Severity
from etl.findings import Finding, finding
from etl.numbers import count, count_of, percent
from etl.stages.audit import learning
from etl.stages.audit.context import CheckInput
from etl.stages.audit.coverage import ENOUGH
from etl.stages.audit.crowding import DUPLICATE_IOU
from etl.stages.audit.model import Resolutions

_STALE = 0.01  # share of the boxes that old anchors may lose
_SHARED = 0.02  # share of the boxes in a cell with another
_CONTESTED = 0.1  # share of the positives that boxes lose to neighbours
_TIGHT = 16  # px


def tiny_objects(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if boxes are under 16 px at the network, with the input size at which nearly all are larger."""
    audit = data.audit
    count = sum(row.very_tiny + row.tiny for row in audit.sizes_network.values())
    if not count:
        return
    network, untiled = audit.tiny.network, audit.tiny.full_image
    under_16, under_8 = network.under_16 or 0.0, network.under_8 or 0.0
    severity: Severity = "critical" if under_8 > 0.25 else "warning" if under_16 > 0.25 or under_8 > 0.05 else "info"
    of_these = f" ({percent(under_8)} under 8 px)" if under_8 else ""
    without_tiles = "" if untiled == network else f"; without tiling it would be {percent(untiled.under_16)}"
    advice = (
        f"{percent(under_16)} of {count_of(audit.objects, 'box')} are under 16 px at the network{of_these} with tiles "
        f"of {audit.tile_size} px at image size {audit.image_size}{without_tiles}."
    )
    if audit.coverage.advice is None:
        advice += _larger_input(audit.resolution, audit.image_size)
    yield finding("tiny_labels", advice, count=count, severity=severity)


def _larger_input(resolution: Resolutions, image_size: int) -> str:
    """Return the input size at which nearly all boxes reach 8 or 16 px, and its cost; empty if they do."""
    for px, row in ((8, resolution.px_8), (16, resolution.px_16)):
        if row.tiled is not None and row.tiled > image_size:
            cost = (row.tiled / image_size) ** 2
            return f" 19 in 20 boxes would reach {px} px at image size {row.tiled}, for {cost:.2g} times the computing."
    return ""


def coarse_levels(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if another level or input size is worth its cost, with what it changes for the boxes."""
    coverage = data.audit.coverage
    if (change := coverage.advice) is None:
        return
    text = learning.improvement(coverage) or ""
    sentences = [learning.imbalance(coverage.configurations[0]), f"{text[:1].upper()}{text[1:]}."]
    chosen = change.p2 and data.context.p2_variant is not None and data.context.recipe == "auto"
    if chosen:
        sentences.append(f"train.recipe: auto trains {data.context.p2_variant}.")
    elif change.p2:
        sentences.append(f"Set train.model to {data.context.p2_variant or 'one with a P2 level, such as yolo26n-p2'}.")
    if change.input_factor > 1:
        sentences.append(f"Set train.image_size to {round(change.input_factor * data.audit.image_size)}.")
    advice = " ".join(filter(None, sentences))
    yield finding("coarse_levels", advice, count=change.boxes, severity="info" if chosen else "warning")


def uncovered_boxes(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if boxes get no candidate from the model's assigner, with the cheapest change that suffices."""
    coverage = data.audit.coverage
    covered = coverage.configured.covered
    if covered is None or covered >= ENOUGH:
        return
    advice = (
        f"{percent(1 - covered)} of the boxes are expected to get no candidate from the model's assigner "
        f"({coverage.assigner}, strides {', '.join(map(str, coverage.strides))}): it never trains on them. "
    )
    if (change := coverage.change) is not None:
        advice += (
            f"The cheapest change after which 99 % get one: {change.name} ({change.cost:.2g} times the computing)."
        )
    yield finding("uncovered_boxes", advice, count=round((1 - covered) * data.audit.objects))


def stale_anchors(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if the preset or the last snapshot's anchors fit the boxes worse than as many new ones."""
    recall = data.audit.since.anchors
    if recall is None or recall.before >= recall.new - _STALE:
        return
    if data.context.preset_anchors:
        advice = (
            f"The anchors of anchors.preset reach {percent(recall.before)} of these boxes, as many fitted ones "
            f"{percent(recall.new)}: change them, or leave anchors.preset out."
        )
    else:
        advice = (
            f"The last snapshot's anchors reach {percent(recall.before)} of these boxes, as many new ones "
            f"{percent(recall.new)}: this build fits new anchors; train again with them."
        )
    yield finding("stale_anchors", advice, count=round((recall.new - recall.before) * data.audit.objects))


def shared_cells(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if many boxes have their centre in one stride-8 cell with another box's."""
    crowding = data.audit.crowding.network
    coarse, fine = crowding[8].share, crowding[4].share
    if coarse is None or fine is None or coarse <= _SHARED:
        return
    advice = (
        f"{percent(coarse)} of the boxes have their centre in a stride-8 cell with another's, where one "
        f"cell must tell two objects; at stride 4 it is {percent(fine)}. "
    )
    if 2 * fine < coarse:
        advice += "A P2 level or a larger image size separates them."
    else:
        advice += "A finer grid hardly separates them: the boxes nest or repeat each other; look at a few images."
    yield finding("shared_cells", advice, count=crowding[8].boxes)


def nms_ceiling(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if NMS would remove true boxes, unless detections are merged at a threshold that keeps them.

    What it removes above DUPLICATE_IOU is a duplicate rather than a true box.
    """
    total, recall, merge = data.audit.objects, data.audit.neighbours.nms_recall, data.context.merge
    kept = {at: share for at, share in recall.items() if share is not None}
    if not kept or kept[0.5] >= kept[DUPLICATE_IOU]:
        return
    most = kept[DUPLICATE_IOU]
    harmless = next(at for at, share in kept.items() if share >= most - 1e-4)
    if merge.metric == "iou" and merge.threshold >= harmless:
        return
    removed = round((most - kept[0.5]) * total)
    of_boxes = f"{count(removed)} of {count_of(total, 'true box')}"
    set_metric = "" if merge.metric == "iou" else "evaluate.merge.metric: iou and "
    advice = (
        f"NMS at IoU 0.5 would remove {of_boxes}, {percent(most - kept[0.7])} at 0.7 (pairs above "
        f"{DUPLICATE_IOU} count as duplicates). Detections are merged at evaluate.merge.threshold: "
        f"{merge.threshold:g}, whatever the model: {set_metric}evaluate.merge.threshold: {harmless} leaves these boxes "
        "apart, and more duplicate detections too."
    )
    severity: Severity = "warning" if most - kept[0.5] > 0.01 else "info"
    yield finding("nms_ceiling", advice, count=removed, severity=severity)


def contested_boxes(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if neighbours take many of the boxes' positives, with what the cheapest change makes of that."""
    rows = data.audit.coverage.configurations
    if not rows or (lost := rows[0].all.lost) is None or lost <= _CONTESTED:
        return
    now, changed = rows[0].all, rows[1]
    contested, without = (round(now.boxes * (share or 0.0)) for share in (now.contested, 1 - (now.taught or 0.0)))
    advice = (
        f"Where each cell predicts the nearest box, neighbours take {percent(lost)} of the positive cells that the "
        "assigner would give the boxes alone."
    )
    if contested:
        advice += f" {count_of(contested, 'box')} {'loses' if contested == 1 else 'lose'} half or more"
        advice += f", {count_of(without, 'box')} all." if without else "."
    if percent(changed.all.lost) != percent(lost):
        advice += f" With {changed.name} they take {percent(changed.all.lost)}."
    yield finding("contested_boxes", advice, count=contested or round(lost * now.boxes))


def enlarged_tiles(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if tiles are enlarged to the input size."""
    tile_size, image_size = data.audit.tile_size, data.audit.image_size
    if image_size > tile_size:
        advice = (
            f"Tiles of {tile_size} px are enlarged to an input of {image_size}: more cells per object, but not more "
            "detail than the sources hold."
        )
        yield finding("upsampled", advice, count=data.audit.images)


def tight_labels(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if a labelling error of one pixel costs half of the boxes much of their IoU."""
    median = data.audit.length_percentiles.source[50]
    kept = {px: data.audit.localisation[name][1].iou for name, px in zip(BUCKETS[:2], SIZE_RANGES, strict=False)}
    shown = " and ".join(f"{iou:.2f} ({px} px)" for px, iou in kept.items() if iou is not None)
    if median is not None and median < _TIGHT and shown:
        advice = (
            f"Half of the boxes are under {median:.1f} source px: drawn one pixel off along both axes, a box keeps "
            f"an IoU of {shown} on average. Evaluate by AP50 and NWD rather than AP75, and label on enlarged images."
        )
        count = sum(row.very_tiny + row.tiny for row in data.audit.sizes.values())
        yield finding("tight_labels", advice, count=count)
