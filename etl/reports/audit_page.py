"""The audit page: findings first, then the charts and tables behind them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from etl.boxes import BUCKET_EDGES, BUCKETS, SIZE_RANGES
from etl.numbers import count, count_of, hundred, percent
from etl.reports.box_figures import box_figures, class_heat_table, image_size_figure, width_height_figure
from etl.reports.cell_figures import CONFIGURATION_HEAD, cell_figures, configuration_rows
from etl.reports.charts import bar_chart, grouped_bars, histogram, stacked_bars
from etl.reports.class_tables import (
    ONTOLOGY_HEAD,
    SIZE_HEAD,
    ontology_row,
    size_rows_by_class,
    split_rows_by_class,
)
from etl.reports.drift_figures import DRIFT_HEAD, drift_figures, drift_rows
from etl.reports.page import render
from etl.reports.svg import Figure
from etl.schema import LEFT_OUT
from etl.stages.audit import learning
from etl.stages.audit.model import Audit, ImageQuality, Resolution, SizeTable, SourceView
from etl.stages.audit.sample_size import LEAST
from etl.stages.split_rows import group_rows, left_out_rows, size_rows
from etl.stages.splitting.report import SplitReport

_PER_IMAGE = (0, 1, 2, 5, 10, 20, 50, 100, 200, 300, 500, 1000)  # boxes, lower edges of the bars
_MOST_CLASSES = 20
_MOST_GROUPS = 20
_OPEN_EXAMPLES = 4  # classes whose examples are not folded


def audit_page(
    audit: Audit,
    thumbnails: Sequence[tuple[str, bytes]] = (),
    *,
    title: str = "",
    before: Audit | None = None,
    split: SplitReport | None = None,
    pictures: Mapping[str, Sequence[tuple[str, bytes]]] = MappingProxyType({}),
    examples: Mapping[str, Sequence[tuple[str, bytes]]] = MappingProxyType({}),
) -> str:
    """Return the audit as one HTML page.

    Thumbnails are captions with the JPEG bytes of images with boxes drawn, `pictures` those of each finding by its
    code, `examples` those of each class; `before` is the audit of the last snapshot, `split` the report of the split.
    """
    classes = audit.objects_by_class
    return render(
        "audit.html.j2",
        title=title,
        audit=audit,
        buckets=BUCKETS,
        facts=_facts(audit, classes),
        sizes=list(_size_figures(audit)),
        cells=list(cell_figures(audit)),
        imbalance=next(map(learning.imbalance, audit.coverage.configurations), None),
        improvement=learning.improvement(audit.coverage),
        configuration_head=CONFIGURATION_HEAD,
        configurations=configuration_rows(audit.coverage.configurations) if audit.objects >= LEAST else [],
        labels=list(_label_figures(audit, classes)),
        shapes=list(box_figures(audit)),
        class_heat=class_heat_table(audit),
        quality=[image_size_figure(audit), *_quality_figures(audit.quality)],
        size_table=size_rows_by_class(audit.sizes_network_by_class),
        size_head=SIZE_HEAD,
        class_head=["class", *_used_splits(audit), "all"],
        class_table=split_rows_by_class(audit.classes, _used_splits(audit)),
        source_median="none" if audit.source is None else _pixels(audit.source.length_percentiles[50]),
        source=[] if audit.source is None else list(_source_tables(audit, audit.source)),
        thumbnails=list(thumbnails),
        pictures=pictures,
        examples=list(examples.items()),
        open_examples=_OPEN_EXAMPLES,
        used_classes=sum(boxes > 0 for boxes in classes.values()),
        split=split,
        split_tables=[] if split is None else list(_split_tables(split)),
        resolution_table=list(_resolution_rows(audit)) if audit.objects >= LEAST else [],
        drift=audit.since.drift,
        drift_head=DRIFT_HEAD,
        least=LEAST,
        drift_table=[] if audit.since.drift is None else drift_rows(audit.since.drift),
        drift_plots=[] if audit.since.drift is None else list(drift_figures(audit.since.drift)),
        changes=[] if before is None else _changes(before, audit),
    )


def _split_tables(split: SplitReport) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield caption and rows of each table of the split; the first row names the columns."""
    caption = (
        "Images and trained boxes of each split, by size in source pixels as evaluation counts them: not cut at the "
        "image border, and from 16 px on by the area that a label states."
    )
    yield caption, size_rows(split)
    if split.left_out:
        yield "Images that are in no split, by reason.", left_out_rows(split)
    yield _describe_groups(split), group_rows(split, _MOST_GROUPS)


def _describe_groups(split: SplitReport) -> str:
    """Return what the table of groups holds, and that no group is divided if none is."""
    is_cut = split.group_count > _MOST_GROUPS
    shown = f"The {_MOST_GROUPS} largest of {count_of(split.group_count, 'group')}" if is_cut else "Every group"
    divided = any(len({*group.splits} - {LEFT_OUT}) > 1 for group in split.groups)
    return f"{shown}." if divided else f"{shown}; none is in two splits."


def _resolution_rows(audit: Audit) -> Iterator[list[str]]:
    """Yield what takes 19 in 20 boxes to 8 and to 16 px; the settings that are, where they suffice."""
    size = audit.image_size
    for goal, row in ((8, audit.resolution.px_8), (16, audit.resolution.px_16)):
        sizes = {"tiled": max(row.tiled or 0, size), "full_image": max(row.full_image or 0, size)}
        yield _resolution(goal, row.model_copy(update=sizes))


def _resolution(goal: int, row: Resolution) -> list[str]:
    if row.factor is None:
        return [f"{goal} px at the network", *["none"] * 5]
    return [
        f"{goal} px at the network", count(row.tiled), count(row.full_image), count(row.tile_size),
        f"{row.factor:g} times", f"{row.cost:g} times",
    ]  # fmt: skip


def _changes(before: Audit, now: Audit) -> list[tuple[str, str, str]]:
    """Return what differs from the audit of the last snapshot: name, before, now.

    An audit by an earlier version is of the boxes of the source, so that only those are compared with it.
    """
    rows = [
        ("images", count(before.images), count(now.images)),
        ("boxes in the label files", count(before.annotations), count(now.annotations)),
    ]
    if before.source is not None and now.source is not None:
        old, new = ({row.code: row.count for row in one.findings} for one in (before, now))
        rows += [
            ("boxes as trained", count(before.objects), count(now.objects)),
            ("under 16 px, tiled", percent(before.tiny.network.under_16), percent(now.tiny.network.under_16)),
            *((code, count(old.get(code)), count(new.get(code))) for code in sorted({*old, *new})),
        ]
    return [row for row in rows if row[1] != row[2]]


def _source_tables(audit: Audit, source: SourceView) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Yield caption, head and rows of each table of the source view."""
    taken = [[rule, count(number)] for rule, number in source.untrained.items()]
    if taken:
        yield "Boxes that are no trained objects, by the rule that takes them.", ["rule", "boxes"], taken
    caption = (
        "What becomes of the valid boxes of each class: a class that is dropped has none trained; the boxes of the "
        "others are trained, under ontology.min_side, ignored (crowds and ignore regions) or left out of every split."
    )
    yield caption, ONTOLOGY_HEAD, [ontology_row(row) for row in source.ontology]
    splits = list(audit.images_by_split)
    rows = split_rows_by_class(source.classes, splits)
    yield (
        "Valid boxes of each class of the source by split, without crowds and ignore regions.",
        ["class", *splits, "all"],
        rows,
    )
    rows = size_rows_by_class(source.sizes_by_class)
    yield "The same boxes by size in source pixels, not cut at the image border.", SIZE_HEAD, rows


def _facts(audit: Audit, classes: Mapping[str, int]) -> list[tuple[str, str, str]]:
    images = audit.images_by_split
    splits = ", ".join(f"{name.replace('_', ' ')} {count(number)}" for name, number in images.items())
    declared = len(classes) if audit.source is None else len(audit.source.classes)
    median, at_network = audit.length_percentiles.source[50], audit.length_percentiles.network[50]
    return [
        ("Images", count(audit.images), splits),
        ("Boxes", count(audit.objects), f"as trained, of {count(audit.annotations)} in the label files"),
        (
            "Classes",
            count(len(classes)),
            f"as trained, {sum(number > 0 for number in classes.values())} in use; {count(declared)} in the source",
        ),
        ("Median side", _pixels(median), f"√(w·h) in source pixels, {_pixels(at_network)} at the network"),
        ("Under 16 px", percent(audit.tiny.network.under_16), "of the boxes, at the network in tiles at scale 1"),
        ("Untiled", percent(audit.tiny.full_image.under_16), "under 16 px, if whole images are resized to the input"),
    ]


def _pixels(value: float | None) -> str:
    return "none" if value is None else f"{value:.0f} px"


def _size_figures(audit: Audit) -> Iterator[Figure]:
    size, tile = audit.image_size, audit.tile_size
    spaces = {"source": audit.sizes, "tiles": audit.sizes_network, "whole image": audit.sizes_full_image}
    yield stacked_bars(
        "Object sizes with and without tiles",
        f"Boxes by √(w·h) in source pixels, in {tile} px tiles at network size {size}, and in whole images "
        f"resized to {size}.",
        {name: _by_bucket(sizes) for name, sizes in spaces.items()},
        [f"{px} px" for px in SIZE_RANGES],
        ordered=True,
    )
    yield _lengths(audit)
    dataset, coco = audit.coco.dataset.to_dict(), audit.coco.coco.to_dict()
    yield grouped_bars(
        "Compared with COCO",
        "Per cent of the boxes that are small (under 32 px), medium (under 96 px) and large in source "
        "pixels, here and in "
        "COCO, on which the usual models and their settings were tuned.",
        {name: [hundred(dataset[name]), hundred(coco[name])] for name in coco},
        ["this dataset", "COCO"],
    )
    yield width_height_figure(audit)
    splits = {name: row.values() for name, row in audit.sizes_network.items() if sum(row.values()) >= LEAST}
    if len(splits) > 1:
        yield stacked_bars(
            "Are the splits alike?",
            f"Boxes by size at the network in each split of {LEAST} boxes or more: if these differ, val does not "
            "represent the training data.",
            {name.replace("_", " "): row for name, row in splits.items()},
            [f"{px} px" for px in SIZE_RANGES],
            ordered=True,
        )


def _by_bucket(sizes: SizeTable) -> list[int]:
    return [sum(row[name] for row in sizes.values()) for name in BUCKETS]


def _lengths(audit: Audit) -> Figure:
    bins = audit.histograms.length.network
    first, last = _filled(bins.counts)
    edges = bins.edges[first : last + 2]
    marks = {f"{edge:.0f} px": edge for edge in BUCKET_EDGES[:2] if edges[0] < edge < edges[-1]}
    input_size = audit.resolution.px_8.tiled if audit.objects >= LEAST else None
    needed = "" if input_size is None else f" 19 in 20 boxes reach 8 px from network size {input_size} on."
    return histogram(
        "Box sizes at the network",
        "Boxes by √(w·h) in network pixels, every bar half an octave wide; boxes below 8 px are hard to detect."
        f"{needed}",
        edges,
        bins.counts[first : last + 1],
        unit="network px",
        marks=marks,
    )


def _filled(counts: Sequence[int]) -> tuple[int, int]:
    """Return the first and the last bin that is not empty; the first bin alone when all are."""
    filled = [index for index, number in enumerate(counts) if number]
    return (filled[0], filled[-1]) if filled else (0, 0)


def _label_figures(audit: Audit, classes: Mapping[str, int]) -> Iterator[Figure]:
    ranked = sorted(classes.items(), key=lambda item: (-item[1], item[0]))
    bars, others = dict(ranked[:_MOST_CLASSES]), [boxes for _, boxes in ranked[_MOST_CLASSES:]]
    if others:
        bars[count_of(len(others), "other")] = sum(others)
    more = f" The last bar holds the {count(len(others))} rarest together." if others else ""
    texts = {name: count(boxes) for name, boxes in bars.items()}
    yield bar_chart("Boxes by class", f"Boxes of each trained class.{more}", bars, texts=texts)
    total = [0] * len(_PER_IMAGE)
    for split in audit.boxes_per_image.histogram.values():
        for boxes, images in split.items():
            total[sum(boxes >= edge for edge in _PER_IMAGE) - 1] += images
    _, last = _filled(total)
    most = audit.boxes_per_image.percentiles[100]
    least = min((boxes for split in audit.boxes_per_image.histogram.values() for boxes in split), default=0)
    bounds = count(most) if least == most else f"{count(least)} to {count(most)}"
    ends = [*_PER_IMAGE[1:], max(2000, (most or 0) + 1)]
    yield histogram(
        "Boxes per image",
        f"Images by their number of trained boxes ({bounds}); the ranges of the bars "
        "widen, and each ends below the number on its right.",
        [0, *ends[: last + 1]],
        total[: last + 1],
        unit="boxes",
        whole=True,
    )


def _quality_figures(quality: ImageQuality) -> Iterator[Figure]:
    if not quality.images:
        return
    contrast = "difference of mean luma between a box and the ring around it, of 255 levels"
    sharpness = "mean absolute Laplacian of the luma in a box, low where it is blurred"
    for percentiles, title, caption in (
        (quality.contrast, "Contrast of the objects", contrast),
        (quality.sharpness, "Sharpness of the objects", sharpness),
    ):
        yield grouped_bars(
            title,
            f"The {caption}: lower quartile and median of the objects by size in source pixels, over "
            f"{count_of(quality.images, 'image')} measured at full size. Sizes of fewer than {LEAST} objects are "
            "left out.",
            {
                f"{px} px": [None if (row := percentiles[size]) is None else row[percentile] for percentile in (25, 50)]
                for size, px in zip(BUCKETS, SIZE_RANGES, strict=True)
            },
            ["lower quartile", "median"],
        )


def anchor_figures(content: Mapping[str, Any]) -> Iterator[Figure]:
    """Yield how recall grows with the number of anchors, and what they reach by size, from an anchors.json."""
    fitted = content.get("fitted_anchors", content)
    chosen = len(fitted["anchors"][0])
    if fitted["bpr_curve"]:
        yield grouped_bars(
            "How many anchors",
            f"Best possible recall in per cent by anchors a level: {chosen} were taken, for one more would add less "
            "than 0.1 %.",
            {str(number): [hundred(bpr)] for number, bpr in fitted["bpr_curve"]},
            ["best possible recall"],
            digits=2,
        )
    if content["by_size"]:
        compared = {"coco": "COCO's", "fitted": "fitted", "preset": "preset"}
        shown = [key for key in compared if key in content["by_size"][0]]
        yield grouped_bars(
            "What the anchors reach",
            f"Best possible recall in per cent by size in network pixels, of {count_of(len(shown), 'set')} of anchors.",
            {row["size"].replace("_", " "): [hundred(row[key]) for key in shown] for row in content["by_size"]},
            [compared[key] for key in shown],
            digits=1,
        )


def _used_splits(audit: Audit) -> list[str]:
    return [split for split in audit.images_by_split if split != LEFT_OUT]
