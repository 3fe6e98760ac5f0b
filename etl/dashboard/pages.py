"""The pages inside Airflow: all datasets, one dataset, one model, and a short notice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from math import ceil, floor, log10
from pathlib import Path

from etl.boxes import BUCKETS, SIZE_RANGES, SMALL
from etl.config import Config
from etl.dashboard.overview import ModelSummary, Overview
from etl.enumeration import enumerate_first
from etl.reports import page
from etl.reports.charts import line_chart
from etl.reports.svg import Figure

_render = partial(page.render, folder=Path(__file__).parent / "templates")
_LABELS = {name: f"{name.replace('_', ' ')}, {px} px" for name, px in zip(BUCKETS, SIZE_RANGES, strict=True)}
_AP_LABELS = _LABELS | {"small": f"small, < {SMALL:.0f} px"}  # COCO's size, which includes the two smallest


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run of one of a dataset's DAGs."""

    id: str
    state: str
    time: datetime | None
    href: str  # of its page in Airflow


@dataclass(frozen=True, slots=True)
class DagSummary:
    """One of a dataset's DAGs, newest run first."""

    kind: str  # build, train or evaluate
    href: str  # of its page in Airflow
    paused: bool
    next_run: datetime | None
    runs: tuple[RunSummary, ...]


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """A dataset in the list: its overview, or the error that prevented reading its store."""

    name: str
    overview: Overview | None
    error: str
    dags: tuple[DagSummary, ...]


def datasets_page(entries: Sequence[DatasetEntry], file_errors: Mapping[str, str], root: str) -> str:
    """Return the page of all datasets.

    `file_errors` maps the names of invalid dataset files to their errors; `root` is the URL path of the pages.
    """
    return _render("datasets.html.j2", entries=entries, file_errors=file_errors, root=root, labels=_AP_LABELS)


def dataset_page(config: Config, overview: Overview, dags: Sequence[DagSummary], root: str) -> str:
    """Return the page of one dataset."""
    return _render(
        "dataset.html.j2",
        config=config,
        overview=overview,
        dags=dags,
        root=root,
        labels=_AP_LABELS,
        trends=list(_trends(overview)),
    )


def model_page(overview: Overview, model: ModelSummary, root: str) -> str:
    """Return the page of one model: its training and, once it is evaluated, its metrics."""
    facts = _training_facts(model)
    return _render("model.html.j2", overview=overview, model=model, root=root, labels=_AP_LABELS, facts=facts)


def notice_page(
    heading: str, text: str, *, details: str = "", links: Mapping[str, str] | None = None, reload_seconds: int = 0
) -> str:
    """Return a page with one message and links (text to URL); it reloads itself unless `reload_seconds` is 0."""
    return _render(
        "notice.html.j2", heading=heading, text=text, details=details, links=links or {}, reload_seconds=reload_seconds
    )


def _trends(overview: Overview) -> Iterator[Figure]:
    """Yield the charts of boxes and AP by size over time."""
    audits = {row.sequence: row.audit for row in overview.publications if row.audit is not None}
    sizes = [(sequence, audit.sizes) for sequence, audit in audits.items()]
    if sizes:
        kinds = _name_kinds(
            {sequence: "trained" if audit.as_trained else "labelled" for sequence, audit in audits.items()}
        )
        yield line_chart(
            "Boxes by size",
            f"Boxes of all splits as {kinds}, by √(w·h) in source pixels, per publication; deleted snapshots are left "
            "out.",
            {_LABELS[name]: [(sequence, row[name]) for sequence, row in sizes] for name in BUCKETS},
            x_label="publication",
            y_label="boxes",
            x_range=_integer_range([sequence for sequence, _ in sizes]),
            y_range=(0, _axis_maximum(max(max(row.values()) for _, row in sizes))),
        )
    rows = list(enumerate((evaluation.metrics for _, evaluation in overview.evaluations), start=1))
    lines = {
        label: [(number, value) for number, metrics in rows if (value := metrics[name]) is not None]
        for label, name in [*((_AP_LABELS[name], f"AP_{name}") for name in BUCKETS), ("all sizes", "AP")]
    }
    if values := [value for points in lines.values() for _, value in points]:
        evaluations = enumerate((evaluation for _, evaluation in overview.evaluations), start=1)
        references = _name_kinds({number: f"{evaluation.size_reference} pixels" for number, evaluation in evaluations})
        yield line_chart(
            "AP by size",
            "Combined average precision of each evaluated model, in the order of evaluation. Sizes are in "
            f"{references}. The validation images may differ between evaluations.",
            lines,
            x_label="evaluation",
            y_label="AP",
            x_range=_integer_range([1, len(rows)]),
            y_range=(0, _axis_maximum(max(values))),
        )


def _name_kinds(kinds: Mapping[int, str]) -> str:
    """Return the kind of the numbered points of a chart, each with its points where there are several kinds."""
    if len(distinct := list(dict.fromkeys(kinds.values()))) == 1:
        return distinct[0]
    numbers = {kind: [str(number) for number, other in kinds.items() if other == kind] for kind in distinct}
    return " and ".join(f"{kind} ({enumerate_first(of_kind)})" for kind, of_kind in numbers.items())


def _axis_maximum(value: float) -> float:
    """Return the smallest 4 × {1, 2, 2.5, 5, 10} × 10^n that is not below the value; 1 for a value of 0."""
    if value <= 0:
        return 1.0
    unit = 10.0 ** floor(log10(value / 4))
    return next(4 * factor * unit for factor in (1, 2, 2.5, 5, 10) if 4 * factor * unit >= value * 0.999)


def _integer_range(values: Sequence[int]) -> tuple[float, float]:
    """Return a range that includes ascending values and has integers at its quarters."""
    return values[0], values[0] + 4 * max(1, ceil((values[-1] - values[0]) / 4))


def _training_facts(model: ModelSummary) -> list[tuple[str, str, str]]:
    """Return label, value and note of each fact about a model's training."""
    training, missing = model.training, "\u2013"
    best = f"best epoch: {training['best_epoch']}" if "best_epoch" in training else ""
    minutes = f"{training['seconds'] / 60:.1f}" if "seconds" in training else missing
    return [
        ("Architecture", model.architecture, f"network size {model.image_size} px"),
        ("Epochs", str(training.get("epochs", missing)), best),
        ("Minutes", minutes, f"on {training.get('device', 'an unknown device')}"),
        ("Initial weights", str(training.get("weights", missing)), ""),
    ]
