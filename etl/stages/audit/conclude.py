"""What a dataset holds and where it will hurt, in source pixels and in the pixels the network sees.

`summarize` counts one part, `merge` adds two counts, `conclude` turns the sum into the audit. Counts are integers over
fixed bins, so any partition of the images gives the same audit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from etl.boxes import BUCKETS
from etl.findings import EXAMPLES
from etl.stages.audit import class_similarity, image_quality
from etl.stages.audit.checks import findings
from etl.stages.audit.counts import (
    ASPECTS,
    LEAST,
    LENGTHS,
    NMS,
    PER_OCTAVE,
    SIDES,
    SPACES,
    STRIDES,
    Key,
    Part,
    Summary,
    merge,
    summarize,
)
from etl.stages.audit.coverage import anchors_of, by_assigner, cheapest, contested, coverage, grid, localisation, stale
from etl.stages.audit.findings import Context, share
from etl.stages.audit.outliers import outliers

__all__ = ["VERSION", "Context", "Key", "Part", "Summary", "conclude", "merge", "summarize"]

VERSION = 3
COCO = {"small": 0.41, "medium": 0.34, "large": 0.24}  # shares of COCO's boxes by size
PERCENTILES = (5, 25, 50, 75, 95)
MOST_PAIRS = 100  # of classes, listed
CAPS = (100, 300)  # usual limits of detections per image


def conclude(summary: Summary, context: Context) -> dict[str, Any]:
    """Return the audit: every count, share, percentile and finding of a dataset, JSON-able."""
    counts = summary.counts
    images = {str(key[1]): number for key, number in counts.items() if key[0] == "images"}
    lengths = {space: _lengths(counts, space) for space in SPACES}
    marks = {space: {str(q): _percentile(lengths[space], q) for q in PERCENTILES} for space in SPACES}
    audit: dict[str, Any] = {
        "images": sum(images.values()),
        "annotations": counts.get(("annotations",), 0) + context.unread_boxes,
        "objects": sum(lengths["source"]),
        "images_by_split": dict(sorted(images.items())),
        "tile_size": context.tile_size,
        "image_size": context.image_size,
        "sizes": _sizes(counts, "source", 2),
        "sizes_network": _sizes(counts, "network", 2),
        "sizes_full_image": _sizes(counts, "full_image", 2),
        "sizes_by_class": _sizes(counts, "source", 3),
        "sizes_network_by_class": _sizes(counts, "network", 3),
        "classes": _classes(counts, context.declared),
        "length_percentiles": marks,
        "resolution": {
            str(goal): {
                "tiled": _needed(context.image_size, goal, marks["network"]["5"]),
                "full_image": _needed(context.image_size, goal, marks["full_image"]["5"]),
                **_ways(context.tile_size, goal, marks["network"]["5"]),
            }
            for goal in (8, 16)
        },
        "coco": _beside_coco(counts),
        "boxes_per_image": _per_image(counts),
        "crowding": {space: _crowding(counts, space) for space in SPACES[1:]},
        "coverage": {
            "assigner": context.assigner,
            "strides": list(context.strides),
            "network": by_assigner(grid(counts, "network"), context.image_size),
            "full_image": by_assigner(grid(counts, "full_image"), context.image_size, ("point_in_box", "tal")),
            **_configured(counts, context),
        },
        "neighbours": _neighbours(counts),
        "since": _since(counts, context),
        "localisation": localisation(lengths["source"]),
        "quality": image_quality.conclude(counts),
        "alike": class_similarity.alike(summary.sights)[:MOST_PAIRS],
        "outliers": outliers(counts, summary.extremes, context.image_size / context.tile_size),
        "histograms": {
            "length": {space: _half_octaves(lengths[space]) for space in SPACES},
            "wh": {"edges": SIDES.tolist(), "counts": _grid(counts)},
            "aspect": {"edges": ASPECTS.tolist(), "counts": _bins(counts, ("aspect",), len(ASPECTS) + 1)},
        },
        "image_sizes": _largest({f"{key[1]} x {key[2]}": n for key, n in counts.items() if key[0] == "image_size"}),
        "formats": _largest({str(key[1]): n for key, n in counts.items() if key[0] == "format"}),
    }
    audit["tiny"] = {space: _tiny(audit[f"sizes_{space}"]) for space in SPACES[1:]}
    found = {str(key[1]): number for key, number in counts.items() if key[0] == "found"}
    problems = findings(audit, found, summary.files, context)
    return {**audit, "findings": [row.to_dict() for row in problems]}


def _sizes(counts: Mapping[Key, int], space: str, by: int) -> dict[str, dict[str, int]]:
    """Return boxes by bucket for each value of one part of the key: 2 the split, 3 the category."""
    table: dict[str, dict[str, int]] = {}
    for key, number in sorted(((k, n) for k, n in counts.items() if k[:2] == ("size", space)), key=repr):
        row = table.setdefault(str(key[by]), dict.fromkeys(BUCKETS, 0))
        row[BUCKETS[int(key[4])]] += number
    return table


def _classes(counts: Mapping[Key, int], declared: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return the trainable boxes of each class by split; declared ones first, in their order."""
    used = sorted({str(key[1]) for key in counts if key[0] == "category"} - set(declared))
    table: dict[str, dict[str, int]] = {name: {} for name in [*declared, *used]}
    for key, number in sorted(((k, n) for k, n in counts.items() if k[:2] == ("size", "source")), key=repr):
        row = table[str(key[3])]
        row[str(key[2])] = row.get(str(key[2]), 0) + number
    return table


def _bins(counts: Mapping[Key, int], head: Key, number: int) -> list[int]:
    return [counts.get((*head, index), 0) for index in range(number)]


def _lengths(counts: Mapping[Key, int], space: str) -> list[int]:
    total = [0] * (len(LENGTHS) + 1)
    for key, number in counts.items():
        if key[:2] == ("length", space):
            total[int(key[3])] += number
    return total


def _grid(counts: Mapping[Key, int]) -> list[list[int]]:
    """Return boxes by width bin [column] and height bin [row]; bin 0 lies below the first edge."""
    bins = range(len(SIDES) + 1)
    return [[counts.get(("wh", column, row), 0) for column in bins] for row in bins]


def _half_octaves(bins: Sequence[int]) -> dict[str, list[float] | list[int]]:
    """Return lengths on edges half an octave apart; what lies beyond the outermost edges is in the outermost bins."""
    wide = PER_OCTAVE // 2
    inner = list(bins[1:-1])
    inner[0] += bins[0]
    inner[-1] += bins[-1]
    counts = [sum(inner[start : start + wide]) for start in range(0, len(inner), wide)]
    return {"edges": LENGTHS[::wide].tolist(), "counts": counts}


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


def _needed(image_size: int, goal: int, fifth: float | None) -> int | None:
    """Return the network size, a multiple of 32, at which the 5th percentile of the lengths reaches the goal, in px."""
    return None if fifth is None else int(-(-image_size * goal // (fifth * 32)) * 32)


def _tiny(sizes: Mapping[str, Mapping[str, int]]) -> dict[str, float | None]:
    """Return the shares of boxes under 8 and under 16 px."""
    total = sum(sum(row.values()) for row in sizes.values())
    very = sum(row["very_tiny"] for row in sizes.values())
    return {"under_8": share(very, total), "under_16": share(very + sum(row["tiny"] for row in sizes.values()), total)}


def _beside_coco(counts: Mapping[Key, int]) -> dict[str, dict[str, float | None]]:
    """Return the shares of small, medium and large boxes in source pixels, and COCO's."""
    by_bucket: Counter[str] = Counter()
    for row in _sizes(counts, "source", 2).values():
        by_bucket.update(row)
    small = sum(by_bucket[name] for name in BUCKETS[:3])
    mine = {"small": small, "medium": by_bucket["medium"], "large": by_bucket["large"]}
    return {"dataset": {name: share(number, sum(mine.values())) for name, number in mine.items()}, "coco": dict(COCO)}


def _per_image(counts: Mapping[Key, int]) -> dict[str, Any]:
    """Return how many images hold how many boxes, by split, and the percentiles over all images."""
    rows = sorted((str(key[1]), int(key[2]), number) for key, number in counts.items() if key[0] == "per_image")
    table: dict[str, dict[str, int]] = {}
    for split, boxes, number in rows:
        table.setdefault(split, {})[str(boxes)] = number
    total = Counter[int]()
    for _, boxes, number in rows:
        total[boxes] += number
    marks = {str(q): _nearest_rank(total, q) for q in (*PERCENTILES, 100)}
    return {"histogram": table, "percentiles": marks}


def _nearest_rank(counted: Mapping[int, int], percent: int) -> int | None:
    total, before = sum(counted.values()), 0
    for value in sorted(counted):
        before += counted[value]
        if before * 100 >= percent * total:
            return value
    return None


def _crowding(counts: Mapping[Key, int], space: str) -> dict[str, dict[str, float | int | None]]:
    total = sum(_lengths(counts, space))
    return {
        str(stride): {
            "pairs": counts.get(("cell_pairs", space, stride), 0),
            "boxes": counts.get(("cell_boxes", space, stride), 0),
            "share": share(counts.get(("cell_boxes", space, stride), 0), total),
        }
        for stride in STRIDES
    }


def _configured(counts: Mapping[Key, int], context: Context) -> dict[str, Any]:
    """Return what the configured model's assigner gives, and the cheapest change after which 99 % get a candidate."""
    boxes = grid(counts, "network")
    fitted = anchors_of(context.assigner, boxes, context.image_size, context.strides)
    change = cheapest(boxes, context.assigner, context.strides, fitted)
    return {
        "configured": coverage(boxes, context.assigner, context.strides, fitted),
        "change": None if change is None else change._asdict(),
    }


def _since(counts: Mapping[Key, int], context: Context) -> dict[str, Any]:
    """Return how what the snapshot before chose does on these boxes; all else in an audit knows no history."""
    boxes = grid(counts, "network")
    return {"anchors": stale(boxes, context.anchors, context.image_size, context.strides)}


def _neighbours(counts: Mapping[Key, int]) -> dict[str, Any]:
    """Return what boxes lose to others of their image."""
    total = sum(_lengths(counts, "source"))
    away = [counts.get(("nearest", index), 0) for index in range(len(LENGTHS) + 1)]
    beyond = {
        cap: sum(max(int(key[2]) - cap, 0) * number for key, number in counts.items() if key[0] == "per_image")
        for cap in CAPS
    }
    return {
        "contested": {str(least): contested(counts, least) for least in LEAST},
        "nms_recall": {str(at): share(total - counts.get(("suppressed", str(at)), 0), total) for at in NMS},
        "cap_recall": {str(cap): share(total - number, total) for cap, number in beyond.items()},
        "nearest_px": {str(q): _percentile(away, q) for q in PERCENTILES},
        **{code: _pairs(counts, code) for code in ("on_one_object", "within")},
    }


def _pairs(counts: Mapping[Key, int], code: str) -> list[list[str | int]]:
    rows = sorted((-number, str(key[1]), str(key[2])) for key, number in counts.items() if key[0] == code)
    return [[a, b, -number] for number, a, b in rows[:MOST_PAIRS]]


def _ways(tile_size: int, goal: int, fifth: float | None) -> dict[str, float | int | None]:
    """Return by what factor the 5th percentile misses the goal, the tile size that makes up for it and its cost.

    The factor is that of the capture resolution or of the input size, too; each costs its square in pixels.
    """
    if fifth is None:
        return {"factor": None, "tile_size": None, "cost": None}
    factor = max(goal / fifth, 1.0)
    return {"factor": round(factor, 2), "tile_size": int(tile_size / factor / 16) * 16, "cost": round(factor**2, 2)}


def _largest(table: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(table.items(), key=lambda item: (-item[1], item[0]))[:EXAMPLES])
