"""The state of a dataset's part of the store: publications, models and promotions, from its small files only.

The folders are listed at every call; a file is read again only when its stamp has changed.
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
from etl.evaluation import Evaluation
from etl.findings import Finding
from etl.snapshots.answer import BuildAnswer, SnapshotChange
from etl.snapshots.publications import LogEntry, publication_counts, read_document
from etl.stages.audit.model import Audit
from etl.storage import store
from etl.storage.paths import (
    AUDIT_HTML,
    AUDIT_JSON,
    EVALUATION_HTML,
    EVALUATION_JSON,
    EVALUATIONS,
    LABEL_ERRORS,
    MANIFEST,
    MODEL_JSON,
    MODELS,
    SAMPLES_HTML,
    SNAPSHOTS,
    SUSPECTS_HTML,
    WEIGHTS,
    DatasetPaths,
    ModelPaths,
    split_uri,
)

NEWEST = 30  # publications and promotions that are read
METRICS = ("AP", "AP50", *(f"AP_{name}" for name in BUCKETS))

PAGES = {  # pages in each folder of these folders
    SNAPSHOTS: (AUDIT_HTML, SAMPLES_HTML),
    MODELS: (EVALUATION_HTML,),
    EVALUATIONS: (EVALUATION_HTML,),
    LABEL_ERRORS: (SUSPECTS_HTML,),
}
_ID = re.compile(r"[0-9a-f]{16}(-[a-z]+)?")
_NAME = re.compile(r"\w[\w.-]*")  # of an evaluation
_CACHED_FILES = 4096  # small files; a dataset has about a hundred
_STAGE = re.compile(r"[a-z]+")
_CACHED_PAGES = 16  # up to a few MB each


@dataclass(frozen=True, slots=True)
class AuditSummary:
    """The findings of an audit without their files, and the boxes of all splits by size in source pixels."""

    findings: tuple[Finding, ...]
    sizes: dict[str, int]
    as_trained: bool  # the boxes, after the ontology; else as labelled, in audits by earlier versions

    @property
    def severities(self) -> dict[str, int]:
        """The number of findings of each severity, most severe first."""
        counts = Counter(finding.severity for finding in self.findings)
        return {name: counts[name] for name in SEVERITIES}


@dataclass(frozen=True, slots=True)
class Publication:
    """An entry of the publication log; `audit` is None and `pages` empty once the snapshot was deleted.

    A log entry that was restored has no `change`, and no numbers if its snapshot was deleted before.
    """

    snapshot: str
    sequence: int
    time: datetime
    images: int | None
    boxes: int | None
    change: SnapshotChange | None
    audit: AuditSummary | None
    pages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Promotion:
    """An entry of the promotion log."""

    model: str
    predecessor: str | None
    reason: str
    time: datetime


@dataclass(frozen=True, slots=True)
class EvaluationSummary:
    """The metrics of the combined detections, and the gate's decision if it was asked."""

    time: datetime
    metrics: dict[str, float | None]  # METRICS
    size_reference: str  # the pixels that sizes are measured in, `source` or `network`
    images: int
    promoted: bool | None  # None: evaluated without the gate
    reasons: tuple[str, ...]  # against a promotion


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """A trained model, and its evaluation if there is one."""

    id: str
    time: datetime
    architecture: str
    snapshot: str  # the id of the snapshot it was trained on
    image_size: int
    training: dict[str, Any]  # `trained` of model.json: epochs, best_epoch, seconds, device, weights
    recipe: tuple[str, ...]  # settings chosen from the audit, with reasons
    evaluation: EvaluationSummary | None
    pages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """The state of a dataset; all lists are oldest first."""

    name: str
    publications: tuple[Publication, ...]
    models: tuple[ModelSummary, ...]
    promotions: tuple[Promotion, ...]
    suspects: str | None = None  # the newest folder of suspected label errors

    @property
    def newest(self) -> Publication | None:
        """The newest publication, None before the first."""
        return self.publications[-1] if self.publications else None

    @property
    def champion(self) -> str | None:
        """The id of the champion, None before the first promotion."""
        return self.promotions[-1].model if self.promotions else None

    @property
    def evaluations(self) -> list[tuple[ModelSummary, EvaluationSummary]]:
        """The evaluated models with their evaluations, in the order of evaluation."""
        pairs = [(model, model.evaluation) for model in self.models if model.evaluation is not None]
        return sorted(pairs, key=lambda pair: pair[1].time)

    def model(self, name: str | None) -> ModelSummary | None:
        """Return the model with an id, None if the dataset has no such model."""
        return next((model for model in self.models if model.id == name), None)


def load_overview(config: Config) -> Overview:
    """Return the state of a dataset, empty before the first build."""
    paths = DatasetPaths(config.home)
    snapshots = _stamps_by_folder(paths.snapshots)
    publications = [_publication(paths, uri, stamp, snapshots) for uri, stamp in _newest_entries(paths.log)]
    models = [_model(paths.model(name), stamps) for name, stamps in _stamps_by_folder(paths.models).items()]
    return Overview(
        name=config.name,
        publications=tuple(publications),
        models=tuple(sorted((model for model in models if model), key=lambda model: (model.time, model.id))),
        promotions=tuple(_load_promotion(uri, stamp) for uri, stamp in _newest_entries(paths.promotions)),
        suspects=newest_suspects(config),
    )


def newest_suspects(config: Config) -> str | None:
    """Return the name of the folder with the newest page of suspected label errors, None if there is none."""
    folders = _stamps_by_folder(f"{config.home}/{LABEL_ERRORS}")
    times = [
        (_modified(DatasetPaths(config.home).label_errors(name).html, stamps[SUSPECTS_HTML]), name)
        for name, stamps in folders.items()
        if SUSPECTS_HTML in stamps and _ID.fullmatch(name)
    ]
    return max(times)[1] if times else None


def read_report(config: Config, folder: str, name: str, file: str) -> bytes:
    """Return a page of a snapshot, a model or an evaluation as written; StoreError if there is no such page."""
    uri = f"{config.home}/{folder}/{name}"
    allowed = file in PAGES.get(folder, ()) and (_NAME if folder == EVALUATIONS else _ID).fullmatch(name)
    stamps = {entry.path: entry.stamp for entry in store.list_files(uri)} if allowed else {}
    if file not in stamps:
        raise StoreError(f"{config.name}: no page {folder}/{name}/{file}")
    return _read_page(f"{uri}/{file}", stamps[file])


def read_performance_report(config: Config, stage: str) -> bytes:
    """Return Dask's performance report of the newest Airflow run of a stage; StoreError if there is none."""
    if not _STAGE.fullmatch(stage):
        raise StoreError(f"{config.name}: no stage {stage}")
    return store.read_bytes(DatasetPaths(config.home).performance(stage))


def _newest_entries(uri: str) -> list[tuple[str, str]]:
    """Return URI and stamp of the newest entries of a log, oldest first."""
    return [(f"{uri}/{file.path}", file.stamp) for file in store.list_files(uri)[-NEWEST:]]


def _stamps_by_folder(uri: str) -> dict[str, dict[str, str]]:
    """Return the stamp of each file, by name, of each folder below a URI."""
    stamps: dict[str, dict[str, str]] = {}
    for file in store.list_files(uri):
        folder, _, name = file.path.partition("/")
        stamps.setdefault(folder, {})[name] = file.stamp
    return stamps


def _pages(folder: str, stamps: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(name for name in PAGES[folder] if name in stamps)


def _publication(paths: DatasetPaths, uri: str, stamp: str, snapshots: Mapping[str, Mapping[str, str]]) -> Publication:
    entry = _load_publication(uri, stamp)
    stamps = snapshots.get(entry["snapshot"], {})
    if MANIFEST not in stamps:  # deleted, or about to be
        stamps = {}
    audit = paths.snapshot(entry["snapshot"]).audit_json
    return Publication(
        **entry,
        audit=_load_audit(audit, stamps[AUDIT_JSON]) if AUDIT_JSON in stamps else None,
        pages=_pages(SNAPSHOTS, stamps),
    )


def _model(paths: ModelPaths, stamps: Mapping[str, str]) -> ModelSummary | None:
    """Return a model, None if it is incomplete: still being written, or deleted."""
    if not {MODEL_JSON, WEIGHTS} <= stamps.keys():
        return None
    record = _load_model(paths.model_json, stamps[MODEL_JSON])
    evaluation = stamps.get(EVALUATION_JSON)
    return ModelSummary(
        id=split_uri(paths.uri).id,
        time=_modified(paths.weights, stamps[WEIGHTS]),
        architecture=record["model"],
        snapshot=split_uri(record["snapshot"]).id,
        image_size=record["image_size"],
        training=record.get("trained", {}),
        recipe=tuple(record.get("recipe", ())),
        evaluation=None if evaluation is None else _load_evaluation(paths.evaluation_json, evaluation),
        pages=_pages(MODELS, stamps),
    )


@lru_cache(_CACHED_PAGES)
def _read_page(uri: str, stamp: str) -> bytes:
    return store.read_bytes(uri)


@lru_cache(_CACHED_FILES)
def _modified(uri: str, stamp: str) -> datetime:
    return store.modified_time(uri)


@lru_cache(_CACHED_FILES)
def _load_publication(uri: str, stamp: str) -> dict[str, Any]:
    """Return the fields of a Publication that its log entry holds."""
    entry = read_document(uri, LogEntry)
    counts, answer = publication_counts(entry), entry.get("answer")
    return {
        "snapshot": entry["snapshot"],
        "sequence": entry["sequence"],
        "time": _modified(uri, stamp),
        "images": counts and counts.images,
        "boxes": counts and counts.annotations,
        "change": None if answer is None else BuildAnswer.from_dict(uri, answer).change,
    }


@lru_cache(_CACHED_FILES)
def _load_promotion(uri: str, stamp: str) -> Promotion:
    entry = store.read_json(uri)
    return Promotion(entry["model"], entry["predecessor"], entry["reason"], datetime.fromisoformat(entry["time"]))


@lru_cache(_CACHED_FILES)
def _load_audit(uri: str, stamp: str) -> AuditSummary:
    audit = Audit.from_json(uri, store.read_start(uri, Audit.most_bytes + 1))
    sizes = {name: sum(row[name] for row in audit.sizes.values()) for name in BUCKETS}
    findings = tuple(row.model_copy(update={"files": ()}) for row in audit.findings)
    return AuditSummary(findings, sizes, as_trained=audit.source is not None)


@lru_cache(_CACHED_FILES)
def _load_model(uri: str, stamp: str) -> dict[str, Any]:
    record = store.read_json(uri)
    return {key: record[key] for key in ("model", "snapshot", "image_size", "trained", "recipe") if key in record}


@lru_cache(_CACHED_FILES)
def _load_evaluation(uri: str, stamp: str) -> EvaluationSummary:
    evaluation = Evaluation.from_json(uri, store.read_start(uri, Evaluation.most_bytes + 1))
    gate = evaluation.gate
    return EvaluationSummary(
        time=_modified(uri, stamp),
        metrics={name: evaluation.combined[name] for name in METRICS},
        size_reference=evaluation.size_reference,
        images=evaluation.images,
        promoted=None if gate is None else gate.promoted,
        reasons=() if gate is None else gate.reasons,
    )
