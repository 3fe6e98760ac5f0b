"""What a dataset's part of the store has to tell: publications, models, promotions, from its small files only.

A store is listed anew each time, but a file is read again only when its stamp has changed: most never do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from etl.boxes import BUCKETS
from etl.codes import SEVERITIES
from etl.config import Config
from etl.errors import StoreError
from etl.storage import store
from etl.storage.paths import (
    AUDIT_HTML,
    AUDIT_JSON,
    EVALUATION_HTML,
    EVALUATION_JSON,
    MANIFEST,
    MODEL_JSON,
    MODELS,
    SAMPLES_HTML,
    SNAPSHOTS,
    WEIGHTS,
    DatasetPaths,
    ModelPaths,
    split_uri,
)

NEWEST = 30  # publications and promotions that are told of
FIGURES = ("AP", "AP50", *(f"AP_{name}" for name in BUCKETS))

PAGES = {SNAPSHOTS: (AUDIT_HTML, SAMPLES_HTML), MODELS: (EVALUATION_HTML,)}  # by the folder in whose entries they lie
_ID = re.compile(r"[0-9a-f]{16}")
_CACHED = 4096  # small values; a dataset has about a hundred
_STAGE = re.compile(r"[a-z]+")
_KEPT_PAGES = 16  # whole pages, up to a few MB each


@dataclass(frozen=True, slots=True)
class Audited:
    """What an audit found: findings without their files, boxes of all splits by size in source pixels."""

    findings: tuple[dict[str, Any], ...]
    sizes: dict[str, int]

    @property
    def severities(self) -> dict[str, int]:
        """The number of findings of each severity, the gravest first."""
        found = Counter(finding["severity"] for finding in self.findings)
        return {name: found[name] for name in SEVERITIES}


@dataclass(frozen=True, slots=True)
class Publication:
    """A snapshot made the newest; `audited` is None and `pages` empty when it is gone since."""

    snapshot: str
    sequence: int
    time: datetime
    images: int
    boxes: int
    change: dict[str, Any] | None  # images and boxes: {added, removed}; boxes: share too
    audited: Audited | None
    pages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A model's figures: the combined ones and, where it was asked, what the gate said."""

    time: datetime
    figures: dict[str, float | None]  # of FIGURES
    images: int
    gate: dict[str, Any] | None  # champion, promoted, reasons, warnings

    @property
    def promoted(self) -> bool | None:
        """Whether the model became the champion, None when nobody asked."""
        return None if self.gate is None else bool(self.gate["promoted"])


@dataclass(frozen=True, slots=True)
class Model:
    """A trained model, and its evaluation once it was judged."""

    id: str
    time: datetime
    said: dict[str, Any]  # of model.json: model, snapshot, image_size, trained, recipe
    evaluated: Evaluated | None
    pages: tuple[str, ...]

    @property
    def snapshot(self) -> str:
        """The id of the snapshot it was trained on."""
        return split_uri(self.said["snapshot"]).id


@dataclass(frozen=True, slots=True)
class Overview:
    """A dataset as its store tells it; all lists begin with the oldest."""

    name: str
    publications: tuple[Publication, ...]
    models: tuple[Model, ...]
    promotions: tuple[dict[str, Any], ...]  # sequence, model, predecessor, reason, time

    @property
    def newest(self) -> Publication | None:
        """The newest publication, None before the first."""
        return self.publications[-1] if self.publications else None

    @property
    def champion(self) -> str | None:
        """The id of the champion, None before the first promotion."""
        return str(self.promotions[-1]["model"]) if self.promotions else None

    @property
    def judged(self) -> list[tuple[Model, Evaluated]]:
        """The models with figures, in the order in which they got them."""
        found = [(model, model.evaluated) for model in self.models if model.evaluated is not None]
        return sorted(found, key=lambda pair: pair[1].time)

    def model(self, name: str | None) -> Model | None:
        """Return the model of an id, None when the dataset has no such model."""
        return next((model for model in self.models if model.id == name), None)


def overview(config: Config) -> Overview:
    """Return what a dataset's part of the store has to tell, empty before the first build."""
    paths = DatasetPaths(config.home)
    snapshots = _folders(paths.snapshots)
    publications = [_publication(paths, uri, stamp, snapshots) for uri, stamp in _newest(paths.log)]
    models = [_model(paths.model(name), files) for name, files in _folders(paths.models).items()]
    return Overview(
        name=config.name,
        publications=tuple(publications),
        models=tuple(sorted((found for found in models if found), key=lambda one: (one.time, one.id))),
        promotions=tuple(_entry(uri, stamp) for uri, stamp in _newest(paths.promotions)),
    )


def report(config: Config, folder: str, name: str, file: str) -> bytes:
    """Return a page of a snapshot or a model as it was written; StoreError when there is none of this name."""
    uri = f"{config.home}/{folder}/{name}"
    allowed = file in PAGES.get(folder, ()) and _ID.fullmatch(name)
    stamps = {found.path: found.stamp for found in store.listing(uri)} if allowed else {}
    if file not in stamps:
        raise StoreError(f"{config.name}: no page {folder}/{name}/{file}")
    return _content(f"{uri}/{file}", stamps[file])


def performance_report(config: Config, stage: str) -> bytes:
    """Return the page of what Dask did in the newest run of a stage in Airflow; StoreError when there is none."""
    if not _STAGE.fullmatch(stage):
        raise StoreError(f"{config.name}: no stage {stage}")
    return store.read_bytes(DatasetPaths(config.home).performance(stage))


def _newest(uri: str) -> list[tuple[str, str]]:
    """Return URI and stamp of the last entries of a log, oldest first."""
    return [(f"{uri}/{file.path}", file.stamp) for file in store.listing(uri)[-NEWEST:]]


def _folders(uri: str) -> dict[str, dict[str, str]]:
    """Return the stamp of each file, by name, of each folder below a URI."""
    found: dict[str, dict[str, str]] = {}
    for file in store.listing(uri):
        folder, _, name = file.path.partition("/")
        found.setdefault(folder, {})[name] = file.stamp
    return found


def _pages(folder: str, there: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(name for name in PAGES[folder] if name in there)


def _publication(paths: DatasetPaths, uri: str, stamp: str, snapshots: Mapping[str, Mapping[str, str]]) -> Publication:
    entry = _entry(uri, stamp)
    there = snapshots.get(entry["snapshot"], {})
    if MANIFEST not in there:  # being removed, or gone
        there = {}
    audit = paths.snapshot(entry["snapshot"]).audit_json
    return Publication(
        snapshot=entry["snapshot"],
        sequence=entry["sequence"],
        time=_written(uri, stamp),
        images=entry["images"],
        boxes=entry["boxes"],
        change=entry["change"],
        audited=_audited(audit, there[AUDIT_JSON]) if AUDIT_JSON in there else None,
        pages=_pages(SNAPSHOTS, there),
    )


def _model(paths: ModelPaths, there: Mapping[str, str]) -> Model | None:
    """Return a model, None for what is half written or half removed."""
    if not {MODEL_JSON, WEIGHTS} <= there.keys():
        return None
    judged = there.get(EVALUATION_JSON)
    return Model(
        id=split_uri(paths.uri).id,
        time=_written(paths.weights, there[WEIGHTS]),
        said=_said(paths.model_json, there[MODEL_JSON]),
        evaluated=None if judged is None else _evaluated(paths.evaluation_json, judged),
        pages=_pages(MODELS, there),
    )


@lru_cache(_KEPT_PAGES)
def _content(uri: str, stamp: str) -> bytes:
    return store.read_bytes(uri)


@lru_cache(_CACHED)
def _written(uri: str, stamp: str) -> datetime:
    return store.modified(uri)


@lru_cache(_CACHED)
def _entry(uri: str, stamp: str) -> dict[str, Any]:
    """Return an entry of a log; of a publication's answer only what is shown."""
    entry = dict(store.read_json(uri))
    answer = entry.pop("answer", None)
    if answer is not None:
        entry |= {"images": answer["images"], "boxes": answer["annotations"], "change": answer.get("change")}
    return entry


@lru_cache(_CACHED)
def _audited(uri: str, stamp: str) -> Audited:
    audit = store.read_json(uri)
    kept = ("code", "severity", "count", "advice")
    sizes = {name: sum(row[name] for row in audit["sizes"].values()) for name in BUCKETS}
    return Audited(tuple({key: row[key] for key in kept} | {"files": []} for row in audit["findings"]), sizes)


@lru_cache(_CACHED)
def _said(uri: str, stamp: str) -> dict[str, Any]:
    said = store.read_json(uri)
    return {key: said[key] for key in ("model", "snapshot", "image_size", "trained", "recipe") if key in said}


@lru_cache(_CACHED)
def _evaluated(uri: str, stamp: str) -> Evaluated:
    said = store.read_json(uri)
    figures = {name: said["combined"].get(name) for name in FIGURES}
    gate = said.get("gate")
    kept = ("champion", "promoted", "reasons", "warnings")
    return Evaluated(
        time=_written(uri, stamp),
        figures=figures,
        images=said["images"],
        gate=None if gate is None else {key: gate[key] for key in kept},
    )
