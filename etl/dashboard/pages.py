"""The pages about datasets that Airflow shows beside its own: all of them, one, a model, and what there is to say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from math import ceil, floor, log10
from pathlib import Path
from typing import Any

from etl.boxes import BUCKETS, SIZE_RANGES, SMALL
from etl.config import Config
from etl.dashboard.overview import Model, Overview
from etl.reports import page
from etl.reports.charts import Figure, line_chart

_render = partial(page.render, folder=Path(__file__).parent / "templates")
_LABELS = {name: f"{name.replace('_', ' ')}, {px} px" for name, px in zip(BUCKETS, SIZE_RANGES, strict=True)}
_AP_LABELS = _LABELS | {"small": f"small, < {SMALL:.0f} px"}  # COCO's, which holds the two smallest


@dataclass(frozen=True, slots=True)
class Run:
    """A run of one of a dataset's DAGs, as Airflow tells it."""

    id: str
    state: str
    time: datetime | None
    href: str  # of its page


@dataclass(frozen=True, slots=True)
class Dag:
    """One of a dataset's DAGs; its newest run comes first."""

    kind: str  # build, train or evaluate
    href: str
    paused: bool
    next_run: datetime | None
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """A good dataset file in the list; without an overview, the error that kept its store from being read."""

    name: str
    overview: Overview | None
    error: str
    dags: tuple[Dag, ...]


def datasets_page(entries: Sequence[Entry], wrong: Mapping[str, str], root: str) -> str:
    """Return the page of all datasets; `wrong` is the error of each bad file by its name, `root` where pages begin."""
    return _render("datasets.html.j2", entries=entries, wrong=wrong, root=root, labels=_AP_LABELS)


def dataset_page(config: Config, found: Overview, dags: Sequence[Dag], root: str) -> str:
    """Return the page of one dataset."""
    return _render(
        "dataset.html.j2",
        config=config,
        overview=found,
        dags=dags,
        root=root,
        labels=_AP_LABELS,
        trends=list(_trends(found)),
    )


def model_page(found: Overview, model: Model, root: str) -> str:
    """Return the page of one model: how it was trained and, once it was judged, its figures."""
    return _render("model.html.j2", overview=found, model=model, root=root, labels=_AP_LABELS, trained=_trained(model))


def notice_page(
    heading: str, text: str, *, details: str = "", links: Mapping[str, str] | None = None, again: int = 0
) -> str:
    """Return a page that says one thing, with links by their text; it loads itself again after `again` seconds."""
    return _render("notice.html.j2", heading=heading, text=text, details=details, links=links or {}, again=again)


def _trends(found: Overview) -> Iterator[Figure]:
    sizes = [(row.sequence, row.audited.sizes) for row in found.publications if row.audited is not None]
    if sizes:
        yield line_chart(
            "Boxes by size",
            "Boxes of all splits by √(w·h) in source pixels, over the publications whose snapshot is still there.",
            {_LABELS[name]: [(sequence, row[name]) for sequence, row in sizes] for name in BUCKETS},
            x_label="publication",
            y_label="boxes",
            x_range=_whole([sequence for sequence, _ in sizes]),
            y_range=(0, _above(max(max(row.values()) for _, row in sizes))),
        )
    judged = list(enumerate((evaluated.figures for _, evaluated in found.judged), start=1))
    lines = {
        label: [(number, value) for number, row in judged if (value := row[figure]) is not None]
        for label, figure in [*((_AP_LABELS[name], f"AP_{name}") for name in BUCKETS), ("all sizes", "AP")]
    }
    if reached := [value for points in lines.values() for _, value in points]:
        yield line_chart(
            "AP by size",
            "Average precision of each model that was judged, combined, in the order of judging. The validation images "
            "may have changed in between.",
            lines,
            x_label="model, in the order of judging",
            y_label="AP",
            x_range=_whole([1, len(judged)]),
            y_range=(0, _above(max(reached))),
        )


def _above(value: float) -> float:
    """Return four times the smallest round number such that it is not below the value; 1 where there is nothing."""
    if value <= 0:
        return 1.0
    unit = 10.0 ** floor(log10(value / 4))
    return next(4 * factor * unit for factor in (1, 2, 2.5, 5, 10) if 4 * factor * unit >= value * 0.999)


def _whole(places: Sequence[int]) -> tuple[float, float]:
    """Return a range that holds the places and has whole numbers at its quarters."""
    return places[0], places[0] + 4 * max(1, ceil((places[-1] - places[0]) / 4))


def _trained(model: Model) -> list[tuple[str, Any, str]]:
    """Return what is said of a training as facts: label, value, note."""
    said: Mapping[str, Any] = model.said.get("trained", {})
    best = f"the best was epoch {said['best_epoch']}" if "best_epoch" in said else ""
    return [
        ("Architecture", model.said["model"], f"network size {model.said['image_size']} px"),
        ("Epochs", said.get("epochs", "–"), best),  # noqa: RUF001 - a dash
        ("Minutes", "–" if "seconds" not in said else f"{said['seconds'] / 60:.1f}", f"on {said.get('device', '?')}"),  # noqa: RUF001
        ("From", said.get("weights", "–"), "weights"),  # noqa: RUF001
    ]
