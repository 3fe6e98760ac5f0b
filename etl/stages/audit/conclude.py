"""From the counts of a whole dataset to its audit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate

from etl.boxes import BUCKETS
from etl.by_size import BySize
from etl.findings import EXAMPLES
from etl.stages.audit import image_quality, learning, model
from etl.stages.audit.box_shapes import conclude_aspects, conclude_centres
from etl.stages.audit.checks.run import run_checks
from etl.stages.audit.class_similarity import confusable_pairs
from etl.stages.audit.context import CheckInput, Context
from etl.stages.audit.counts import (
    ASPECTS,
    NMS,
    SIDES,
    SPACES,
    STRIDES,
    Summary,
)
from etl.stages.audit.coverage import (
    anchor_recall,
    anchors_of,
    by_assigner,
    cheapest_change,
    coverage,
    grid,
)
from etl.stages.audit.drift import conclude_drift
from etl.stages.audit.localisation import localisation
from etl.stages.audit.model import Audit
from etl.stages.audit.outliers import find_outliers
from etl.stages.audit.source_counts import WRITTEN
from etl.stages.audit.tally import FIXED, LENGTHS, PER_OCTAVE, Key

VERSION = 13
COCO = model.CocoShares(small=0.41, medium=0.34, large=0.24)  # of COCO's boxes
PERCENTILES = (5, 25, 50, 75, 95)
MOST_PAIRS = 100  # of classes, listed
CAPS = (100, 300)  # usual limits of detections per image


def conclude(summary: Summary, context: Context) -> Audit:
    """Return the audit: every count, share, percentile and finding of a dataset."""
    counts = summary.counts
    images = {str(key[1]): number for key, number in counts.items() if key[0] == "images"}
    lengths = {space: _lengths(counts, space) for space in SPACES}
    percentiles = model.Spaces(**{space: {q: _percentile(lengths[space], q) for q in PERCENTILES} for space in SPACES})
    sizes = {space: _sizes(counts, space, 2) for space in SPACES}
    audit = Audit(
        images=sum(images.values()),
        annotations=counts.get(("annotations",), 0) + context.unread_boxes,
        objects=sum(lengths["source"]),
        images_by_split=dict(sorted(images.items())),
        tile_size=context.tile_size,
        image_size=context.image_size,
        sizes=sizes["source"],
        sizes_network=sizes["network"],
        sizes_full_image=sizes["full_image"],
        sizes_by_class=_sizes(counts, "source", 3),
        sizes_network_by_class=_sizes(counts, "network", 3),
        classes=_classes(counts, "source", context.classes),
        length_percentiles=percentiles,
        resolution=model.Resolutions(px_8=_resolution(context, 8, lengths), px_16=_resolution(context, 16, lengths)),
        coco=_compare_with_coco(sizes["source"]),
        boxes_per_image=_boxes_per_image(counts),
        crowding=model.NetworkSpaces(**{space: _crowding(counts, space) for space in SPACES[1:]}),
        coverage=_coverage(counts, context),
        neighbours=_neighbours(counts),
        since=_since(counts, context),
        localisation=_localisation(counts, sizes["source"]),
        quality=image_quality.conclude_quality(counts),
        alike=tuple(confusable_pairs(summary.descriptors)[:MOST_PAIRS]),
        outliers=tuple(find_outliers(counts, summary.extremes, context.image_size / context.tile_size)),
        histograms=_histograms(counts, lengths),
        centres=conclude_centres(counts),
        aspects=conclude_aspects(counts),
        class_sizes=_class_sizes(counts),
        image_sizes=_largest({f"{key[1]} x {key[2]}": n for key, n in counts.items() if key[0] == "image_size"}),
        formats=_largest({str(key[1]): n for key, n in counts.items() if key[0] == "format"}),
        tiny=model.NetworkSpaces(**{space: _tiny(sizes[space]) for space in SPACES[1:]}),
        source=_source(counts, context),
    )
    return audit.model_copy(update={"findings": tuple(run_checks(CheckInput(audit, summary, context)))})


def share(part: int, whole: int) -> float | None:
    """Return part / whole to six digits; None of nothing."""
    return round(part / whole, 6) if whole else None


def _sizes(counts: Mapping[Key, int], space: str, by: int) -> model.SizeTable:
    """Return boxes by bucket for each value of one part of the key: 2 the split, 3 the category."""
    table: dict[str, list[int]] = {}
    for key, number in sorted(((k, n) for k, n in counts.items() if k[:2] == ("size", space)), key=repr):
        table.setdefault(str(key[by]), [0] * len(BUCKETS))[int(key[4])] += number
    return {name: BySize[int].of(row) for name, row in table.items()}


def _class_sizes(counts: Mapping[Key, int]) -> dict[str, model.SizeTable]:
    splits = sorted({str(key[2]) for key in counts if key[:2] == ("size", "network")})
    of_split = {
        split: {key: n for key, n in counts.items() if key[:3] == ("size", "network", split)} for split in splits
    }
    return {split: _sizes(rows, "network", 3) for split, rows in of_split.items()}


def _classes(counts: Mapping[Key, int], space: str, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return the objects of each class by split; classes with these names first, in their order."""
    numbers = sorted(((key, number) for key, number in counts.items() if key[:2] == ("size", space)), key=repr)
    used = sorted({str(key[3]) for key, _ in numbers} - set(names))
    table: dict[str, dict[str, int]] = {name: {} for name in [*names, *used]}
    for key, number in numbers:
        row = table[str(key[3])]
        row[str(key[2])] = row.get(str(key[2]), 0) + number
    return table


def _source(counts: Mapping[Key, int], context: Context) -> model.SourceView:
    lengths = _lengths(counts, WRITTEN)
    return model.SourceView(
        objects=sum(lengths),
        classes=_classes(counts, WRITTEN, context.declared),
        sizes_by_class=_sizes(counts, WRITTEN, 3),
        length_percentiles={q: _percentile(lengths, q) for q in PERCENTILES},
        untrained=dict(context.untrained),
        ontology=tuple(context.preview),
    )


def _lengths(counts: Mapping[Key, int], space: str) -> list[int]:
    total = [0] * (len(LENGTHS) + 1)
    for key, number in counts.items():
        if key[:2] == ("length", space):
            total[int(key[3])] += number
    return total


def _by_width_and_height(counts: Mapping[Key, int]) -> tuple[tuple[int, ...], ...]:
    """Return boxes by width bin [column] and height bin [row]; bin 0 lies below the first edge."""
    bins = range(len(SIDES) + 1)
    return tuple(tuple(counts.get(("wh", column, row), 0) for column in bins) for row in bins)


def _localisation(counts: Mapping[Key, int], sizes: model.SizeTable) -> BySize[dict[int, model.ShiftedOverlap]]:
    sums = {(int(key[1]), int(key[2])): number / FIXED for key, number in counts.items() if key[0] == "shifted_iou"}
    boxes = BySize[int].of(sum(row[name] for row in sizes.values()) for name in BUCKETS)
    return localisation(sums, boxes)


def _half_octaves(bins: Sequence[int]) -> model.Histogram:
    """Return lengths on edges half an octave apart; lengths beyond the outermost edges are in the outermost bins."""
    wide = PER_OCTAVE // 2
    inner = list(bins[1:-1])
    inner[0] += bins[0]
    inner[-1] += bins[-1]
    counts = [sum(inner[start : start + wide]) for start in range(0, len(inner), wide)]
    return model.Histogram(edges=tuple(LENGTHS[::wide].tolist()), counts=tuple(counts))


def _percentile(bins: Sequence[int], percent: float) -> float | None:
    """Return the length below which this per cent of the boxes lie, to a fraction of a bin; None without boxes."""
    total, before = sum(bins), 0
    for index, number in enumerate(bins):
        if number and (before + number) * 100 >= percent * total:
            low = LENGTHS[max(index - 1, 0)]
            inside = (percent * total / 100 - before) / number
            return round(float(low * 2 ** (max(inside, 0.0) / PER_OCTAVE)), 2)
        before += number
    return None


def _reached_by_most(bins: Sequence[int]) -> float | None:
    """Return a length that 19 in 20 boxes reach: the lower edge of the bin of the 5th percentile."""
    up_to = accumulate(bins)
    index = next((index for index, number in enumerate(up_to) if number * 20 > sum(bins)), None)
    return None if index is None else float(LENGTHS[max(index - 1, 0)])


def _resolution(context: Context, goal: int, lengths: Mapping[str, Sequence[int]]) -> model.Resolution:
    """Return what it takes for 19 in 20 boxes to reach the goal, in network pixels.

    The factor by which it misses the goal is also that of the capture resolution or of the input size; each costs its
    square in pixels.
    """
    fifth = _reached_by_most(lengths["network"])
    factor = None if fifth is None else max(goal / fifth, 1.0)
    return model.Resolution(
        tiled=_input_size(context.image_size, goal, fifth),
        full_image=_input_size(context.image_size, goal, _reached_by_most(lengths["full_image"])),
        factor=None if factor is None else round(factor, 2),
        tile_size=None if factor is None else int(context.tile_size / factor / 16) * 16,
        cost=None if factor is None else round(factor**2, 2),
    )


def _input_size(image_size: int, goal: int, fifth: float | None) -> int | None:
    """Return the input size, a multiple of 32, at which a length reaches the goal."""
    return None if fifth is None else int(-(-image_size * goal // (fifth * 32)) * 32)


def _tiny(sizes: model.SizeTable) -> model.Tiny:
    total = sum(sum(row.values()) for row in sizes.values())
    under_8 = sum(row.very_tiny for row in sizes.values())
    under_16 = under_8 + sum(row.tiny for row in sizes.values())
    return model.Tiny(under_8=share(under_8, total), under_16=share(under_16, total))


def _compare_with_coco(sizes: model.SizeTable) -> model.CocoComparison:
    small = sum(row.very_tiny + row.tiny + row.small for row in sizes.values())
    medium, large = sum(row.medium for row in sizes.values()), sum(row.large for row in sizes.values())
    total = small + medium + large
    shares = model.CocoShares(small=share(small, total), medium=share(medium, total), large=share(large, total))
    return model.CocoComparison(dataset=shares, coco=COCO)


def _boxes_per_image(counts: Mapping[Key, int]) -> model.BoxesPerImage:
    rows = sorted((str(key[1]), int(key[2]), number) for key, number in counts.items() if key[0] == "per_image")
    histogram: dict[str, dict[int, int]] = {}
    total = Counter[int]()
    for split, boxes, number in rows:
        histogram.setdefault(split, {})[boxes] = number
        total[boxes] += number
    percentiles = {q: _nearest_rank(total, q) for q in (*PERCENTILES, 100)}
    return model.BoxesPerImage(histogram=histogram, percentiles=percentiles)


def _nearest_rank(counted: Mapping[int, int], percent: int) -> int | None:
    total, before = sum(counted.values()), 0
    for value in sorted(counted):
        before += counted[value]
        if before * 100 >= percent * total:
            return value
    return None


def _crowding(counts: Mapping[Key, int], space: str) -> dict[int, model.CellSharing]:
    total = sum(_lengths(counts, space))
    table = {}
    for stride in STRIDES:
        pairs, boxes = (counts.get((name, space, stride), 0) for name in ("cell_pairs", "cell_boxes"))
        table[stride] = model.CellSharing(pairs=pairs, boxes=boxes, share=share(boxes, total))
    return table


def _coverage(counts: Mapping[Key, int], context: Context) -> model.AssignerCoverage:
    boxes, name, strides = grid(counts, "network"), context.assigner, context.strides
    anchors = anchors_of(name, boxes, context.image_size, strides)
    detector = learning.Detector(assigner=name, strides=strides, reach=context.reach, anchors=anchors)
    rows = learning.configurations(counts, detector)
    return model.AssignerCoverage(
        assigner=name,
        strides=tuple(strides),
        network=by_assigner(boxes, context.image_size),
        full_image=by_assigner(grid(counts, "full_image"), context.image_size, ("point_in_box", "tal")),
        configured=coverage(boxes, name, strides, anchors),
        change=cheapest_change(boxes, name, strides, anchors),
        configurations=rows,
        advice=learning.advise(rows),
    )


def _since(counts: Mapping[Key, int], context: Context) -> model.Since:
    boxes = grid(counts, "network")
    recall = anchor_recall(boxes, context.anchors, context.image_size, context.strides)
    return model.Since(anchors=recall, drift=conclude_drift(counts))


def _neighbours(counts: Mapping[Key, int]) -> model.Neighbours:
    total = sum(_lengths(counts, "source"))
    distances = [counts.get(("nearest", index), 0) for index in range(len(LENGTHS) + 1)]
    beyond = {
        cap: sum(max(int(key[2]) - cap, 0) * number for key, number in counts.items() if key[0] == "per_image")
        for cap in CAPS
    }
    return model.Neighbours(
        nms_recall={at: share(total - counts.get(("suppressed", str(at)), 0), total) for at in NMS},
        cap_recall={cap: share(total - number, total) for cap, number in beyond.items()},
        nearest_px={q: _percentile(distances, q) for q in PERCENTILES},
        on_one_object=_class_pairs(counts, "on_one_object"),
        within=_class_pairs(counts, "within"),
    )


def _histograms(counts: Mapping[Key, int], lengths: Mapping[str, Sequence[int]]) -> model.Histograms:
    aspects = tuple(counts.get(("aspect", index), 0) for index in range(len(ASPECTS) + 1))
    return model.Histograms(
        length=model.Spaces(**{space: _half_octaves(lengths[space]) for space in SPACES}),
        wh=model.Histogram2D(edges=tuple(SIDES.tolist()), counts=_by_width_and_height(counts)),
        aspect=model.Histogram(edges=tuple(ASPECTS.tolist()), counts=aspects),
    )


def _class_pairs(counts: Mapping[Key, int], code: str) -> tuple[model.ClassPair, ...]:
    rows = sorted((-number, str(key[1]), str(key[2])) for key, number in counts.items() if key[0] == code)
    return tuple(model.ClassPair(first, second, -number) for number, first, second in rows[:MOST_PAIRS])


def _largest(table: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(table.items(), key=lambda item: (-item[1], item[0]))[:EXAMPLES])
