"""What a detector can learn and find, as charts and a table: cells, candidates, NMS, and labelling errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from etl.boxes import BUCKETS, SIZE_RANGES
from etl.numbers import DASH, decimal, hundred, percent
from etl.reports.charts import grouped_bars
from etl.reports.svg import Figure
from etl.stages.audit.model import Audit, Configuration
from etl.stages.audit.sample_size import LEAST

CONFIGURATION_HEAD = ["", "computing", *(f"{px} px" for px in SIZE_RANGES), "with a cell", "contested"]


def configuration_rows(configurations: Sequence[Configuration]) -> list[list[str]]:
    """Return what boxes get to learn from under each configuration, of the sizes of LEAST boxes or more."""
    return [
        [
            row.name,
            f"{row.cost:g} times",
            *(
                f"{decimal(one.positives, 1)} · {decimal(one.iou, 2)}" if one.boxes >= LEAST else DASH
                for one in row.by_size.values()
            ),
            percent(row.all.taught),
            percent(row.all.contested),
        ]
        for row in configurations
    ]


def cell_figures(audit: Audit) -> Iterator[Figure]:
    """Yield the charts of cells, candidates, NMS and labelling errors."""
    assigner, network = audit.coverage.assigner, audit.coverage.network
    yield grouped_bars(
        "Boxes with a candidate cell",
        "Per cent of the boxes expected to get a candidate from each assigner, over all positions, in tiles. This "
        f"model's is {assigner}; anchors are fitted to these boxes, three per level.",
        {name: [hundred(row.p3_p5.covered), hundred(row.p2_p5.covered)] for name, row in network.items()},
        ["P3 to P5", "P2 to P5"],
        digits=1,
    )
    configured = network[assigner]
    boxes = {name: sum(row[name] for row in audit.sizes_network.values()) for name in BUCKETS}
    yield grouped_bars(
        "Candidate cells of a box",
        f"Average number of cells that {assigner} can assign to a box, by size in network pixels, from sizes in bins "
        f"of 9 %: few cells mean little to learn from. Sizes of fewer than {LEAST} boxes are left out.",
        {
            f"{px} px": [
                levels.by_size[name].candidates if boxes[name] >= LEAST else None
                for levels in (configured.p3_p5, configured.p2_p5)
            ]
            for name, px in zip(BUCKETS, SIZE_RANGES, strict=True)
        },
        ["P3 to P5", "P2 to P5"],
    )
    yield grouped_bars(
        "Boxes that share a cell",
        "Per cent of the boxes whose centre lies in the same feature cell as another box's centre, by stride: one "
        "cell must then predict two objects.",
        {
            f"stride {stride}": [hundred(row.share), hundred(audit.crowding.full_image[stride].share)]
            for stride, row in audit.crowding.network.items()
        },
        ["tiles", "whole image"],
        digits=1,
    )
    yield grouped_bars(
        "Labelled boxes that NMS keeps",
        "Per cent of the labelled boxes kept by greedy NMS within each class, all scores equal, by IoU threshold: "
        "the recall that a detector with NMS can reach.",
        {f"IoU {at}": [hundred(kept)] for at, kept in audit.neighbours.nms_recall.items()},
        ["kept"],
        digits=2,
    )
    yield grouped_bars(
        "Cost of a labelling error",
        "Mean IoU of a box with itself, in per cent, after a shift along both axes in source pixels, by size: AP50 "
        f"counts a box with less than 50 as missed. Sizes of fewer than {LEAST} boxes are left out.",
        {
            f"{px} px": [hundred(audit.localisation[name][shift].iou) for shift in (1, 2, 5)]
            for name, px in zip(BUCKETS, SIZE_RANGES, strict=True)
        },
        ["1 px", "2 px", "5 px"],
    )
