"""Figures of the audit page: where boxes lie, what shapes they have, and their classes by size and split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from etl.boxes import BUCKETS, SIZE_RANGES
from etl.numbers import count, count_of
from etl.reports.charts import bar_chart, heat_map
from etl.reports.dot_chart import Estimate, dot_chart
from etl.reports.svg import Figure
from etl.schema import LEFT_OUT
from etl.stages.audit.model import Audit
from etl.stages.audit.sample_size import LEAST

_MOST_CLASSES = 20


def box_figures(audit: Audit) -> Iterator[Figure]:
    """Yield where the boxes lie and the shapes of the classes; nothing of fewer than LEAST boxes."""
    total = sum(map(sum, audit.centres))
    if total >= LEAST:
        yield _centres(audit.centres, total)
    if audit.aspects:
        yield _aspects(audit)


def _centres(rows: Sequence[Sequence[int]], total: int) -> Figure:
    most, y, x = max((number, -y, -x) for y, row in enumerate(rows) for x, number in enumerate(row))
    step = 100 // len(rows)
    equal = sum(row.count(most) for row in rows)
    fullest = "The fullest holds" if equal == 1 else f"One of the {equal} fullest, of equal numbers, holds"
    edges = [str(step * place) for place in range(len(rows))]
    return heat_map(
        "Where boxes lie",
        f"Boxes by the place of their centre, in per cent of the width and height of the image; cells are named by "
        f"their left and upper edges. {fullest} {count(most)} of {count_of(total, 'box')}: {-step * x} to "
        f"{step - step * x} % from the left, {-step * y} to {step - step * y} % from the top.",
        edges,
        edges,
        rows,
        x_label="from the left, % of the width",
        y_label="from the top, % of the height",
    )


def _aspects(audit: Audit) -> Figure:
    ranked = sorted(audit.aspects.items(), key=lambda item: (-item[1].boxes, item[0]))
    shown = ranked[:_MOST_CLASSES]
    some = f" The {len(shown)} with the most boxes of {count(len(ranked))}." if len(ranked) > len(shown) else ""
    return dot_chart(
        "Shapes by class",
        "Log2 of width over height: 0 is square, 1 twice as wide as high, -1 twice as high as wide. The dot is the "
        f"median of a class, the line reaches from its 10th to its 90th percentile; classes of {LEAST} boxes or "
        f"more.{some}",
        {name: [Estimate(row.log2[50], (row.log2[10], row.log2[90]))] for name, row in shown},
        ["median"],
        x_label="log2 of width over height",
        digits=1,
    )


def width_height_figure(audit: Audit) -> Figure:
    """Return the boxes by width and height, both axes over one range: square boxes lie on the diagonal."""
    bins = audit.histograms.wh
    cells = np.argwhere(np.array(bins.counts)).ravel()  # rows and columns of those with a box
    first, last = int(cells.min(initial=len(bins.edges))), int(cells.max(initial=0))
    edges = [f"{edge:.3g}" for edge in (0.0, *bins.edges)][first : last + 1]
    return heat_map(
        "Width and height",
        "Boxes by width and height in source pixels; each cell is half an octave wide and named by its lower edge. "
        "Square boxes lie on the diagonal.",
        edges,
        edges[::-1],
        [row[first : last + 1] for row in bins.counts[first : last + 1]][::-1],
        x_label="width, px",
        y_label="height, px",
    )


def image_size_figure(audit: Audit) -> Figure:
    """Return the images by their size, the most frequent first, all others together last."""
    bars = dict(audit.image_sizes)
    others = audit.images - sum(bars.values())
    if others:
        bars["other sizes"] = others
    more = f" The last bar holds the {count_of(others, 'image')} of rarer sizes." if others else ""
    texts = {name: count(number) for name, number in bars.items()}
    return bar_chart("Image sizes", f"Images by width x height in pixels, upright.{more}", bars, texts=texts)


class HeatCell(NamedTuple):
    """The text of a cell, and how strong its colour is, 0 to 1."""

    text: str
    depth: float


class HeatTable(NamedTuple):
    """Rows of shaded cells below columns that are grouped."""

    groups: list[str]
    columns: list[str]  # of each group
    rows: list[tuple[str, list[HeatCell]]]
    caption: str


def class_heat_table(audit: Audit) -> HeatTable | None:
    """Return boxes by class, split and size at the network; None for fewer than LEAST, and for earlier audits."""
    splits = [name for name in audit.images_by_split if name in audit.class_sizes and name != LEFT_OUT]
    table: dict[str, list[int]] = {}
    for place, split in enumerate(splits):
        for name, sizes in audit.class_sizes[split].items():
            row = table.setdefault(name, [0] * len(splits) * len(BUCKETS))
            row[place * len(BUCKETS) : (place + 1) * len(BUCKETS)] = sizes.values()
    if sum(map(sum, table.values())) < LEAST:
        return None
    ranked = sorted(table.items(), key=lambda item: (-sum(item[1]), item[0]))
    rows, others = ranked[:_MOST_CLASSES], [row for _, row in ranked[_MOST_CLASSES:]]
    highest = max(number for _, row in rows for number in row)
    cells = [(name, [HeatCell(count(number), (number / highest) ** 0.5) for number in row]) for name, row in rows]
    if others:
        together = [HeatCell(count(sum(one)), 0.0) for one in zip(*others, strict=True)]
        cells.append((count_of(len(others), "other"), together))
    more = f" The last row, not shaded, holds the {count(len(others))} rarest together." if others else ""
    return HeatTable(
        groups=splits,
        columns=[f"{px} px" for px in SIZE_RANGES],
        rows=cells,
        caption="Boxes of each class by split and size at the network, tiled; the stronger the colour, the more boxes "
        f"(by square root).{more}",
    )
