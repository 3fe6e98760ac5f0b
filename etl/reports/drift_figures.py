"""Charts and table of how far the images that are new since a snapshot differ from those it holds."""

from __future__ import annotations

from collections.abc import Iterator

from etl.numbers import count_of, decimal
from etl.reports.charts import grouped_bars
from etl.reports.svg import Figure
from etl.stages.audit.model import Drift, DriftMeasure

DRIFT_HEAD = ["measure", "trained on", "new", "distance", "limit", ""]
_MOST_CLASSES = 8  # with the largest differences
_NAMES = {
    "size": ("Object sizes", "object", "√(w·h) in source pixels; bars are half an octave wide"),
    "class": ("Classes", "object", "class"),
    "brightness": ("Brightness", "image", "mean luma"),
    "contrast": ("Contrast", "image", "standard deviation of luma"),
}


def drift_rows(drift: Drift) -> list[list[str]]:
    """Return a row of each measure: numbers of objects or images, distance, limit, and whether it has drifted."""
    return [
        [
            _NAMES[row.name][0],
            *(count_of(sum(counts), _NAMES[row.name][1]) for counts in (row.trained, row.new)),
            decimal(row.distance, 2),
            decimal(row.limit, 2),
            "drift" if row.has_drifted else "no drift",
        ]
        for row in drift.measures
    ]


def drift_figures(drift: Drift) -> Iterator[Figure]:
    """Yield the distribution of each measure over the images trained on and over the new ones."""
    for row in drift.measures:
        title, counted, axis = _NAMES[row.name]
        groups = {name: [100 * trained, 100 * new] for name, trained, new in _shares(row)}
        lower = ", each bar named by its lower edge" if row.edges else ""
        some = f" The {count_of(len(groups), 'class')} that differ most." if len(row.classes) > len(groups) else ""
        yield grouped_bars(
            f"New images: {title.lower()}",
            f"Per cent of the {counted}s, by {axis}{lower}: distance {decimal(row.distance, 2)}, "
            f"limit {decimal(row.limit, 2)}.{some}",
            groups,
            ["trained on", "new"],
            digits=1,
        )


def _shares(row: DriftMeasure) -> list[tuple[str, float, float]]:
    """Return name and shares of the bins from the first to the last filled one, or of the classes that differ most."""
    labels = row.classes or tuple(f"{edge:.0f}" for edge in (0.0, *row.edges))
    trained, new = ([number / sum(counts) for number in counts] for counts in (row.trained, row.new))
    rows = list(zip(labels, trained, new, strict=True))
    if row.classes:
        return sorted(rows, key=lambda one: (-abs(one[1] - one[2]), one[0]))[:_MOST_CLASSES]
    filled = [index for index, (_, *shares) in enumerate(rows) if any(shares)]
    return rows[filled[0] : filled[-1] + 1]
