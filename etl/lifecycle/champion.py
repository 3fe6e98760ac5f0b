"""The champion: which of a dataset's models stands for it, how it came to, and what stood before."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from etl.errors import ConfigError, StoreError
from etl.evaluation import CombinedMetrics, Evaluation
from etl.storage import store
from etl.storage.paths import MODEL_JSON, DatasetPaths, ModelPaths, split_uri


def current_champion(home: str) -> str | None:
    """Return the id of the dataset's champion, None before the first."""
    entries = history(home)
    return str(entries[-1]["model"]) if entries else None


def champion_and_previous(home: str) -> list[str]:
    """Return the ids of the champion and its predecessor, those that there are."""
    entries = history(home)[-1:]
    return [str(entry[key]) for entry in entries for key in ("model", "predecessor") if entry[key] is not None]


def history(home: str) -> list[dict[str, Any]]:
    """Return every promotion, oldest first: sequence, model, predecessor, reason and time."""
    folder = DatasetPaths(home).promotions
    if not store.exists(folder):
        return []
    return [store.read_json(f"{folder}/{file.path}") for file in store.list_files(folder)]


def promote(home: str, model: str, reason: str, *, over: str | None) -> dict[str, Any]:
    """Make a model the champion in place of the one it was compared with, and return the entry.

    A promotion exists when its entry in the log does, which only one of two can write: StoreError when the champion is
    no longer the one it was compared with. champion.json repeats the newest entry.
    """
    paths, entries = DatasetPaths(home), history(home)
    now = str(entries[-1]["model"]) if entries else None
    if now != over:
        raise StoreError(
            f"{home}: the champion changed from {over or 'none'} to {now or 'none'} during the evaluation; "
            "evaluate again"
        )
    if now == model:
        raise StoreError(f"{home}: {model} is already the champion")
    sequence = len(entries) + 1
    entry = {
        "sequence": sequence,
        "model": model,
        "predecessor": now,
        "reason": reason,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if not store.create_if_absent(paths.promotion(sequence), store.to_json(entry)):
        raise StoreError(f"{home}: another promotion came first; evaluate again")
    store.write_json(paths.champion, entry)
    return entry


def list_models(home: str) -> list[dict[str, Any]]:
    """Return the dataset's models, oldest first: id, snapshot, figures where it was judged, whether it is champion."""
    best = current_champion(home)
    found = []
    for uri in store.glob(DatasetPaths(home).model("*").model_json):
        said, paths = store.read_json(uri), ModelPaths(uri.removesuffix(MODEL_JSON))
        metrics = _combined_metrics(paths)
        found.append(
            {
                "id": said["id"],
                "uri": paths.uri,
                "written": store.modified_time(paths.weights).isoformat(),
                "model": said["model"],
                "snapshot": said["snapshot"],
                "run": said.get("run"),
                **{key: None if metrics is None else metrics[key] for key in ("AP", "AP50", "AP_small")},
                "champion": said["id"] == best,
            }
        )
    return sorted(found, key=lambda row: (row["written"], row["id"]))


def _combined_metrics(model: ModelPaths) -> CombinedMetrics | None:
    """Return the metrics of a model's evaluation; None before there is one."""
    if not store.exists(model.evaluation_json):
        return None
    return Evaluation.from_json(model.evaluation_json, store.read_bytes(model.evaluation_json)).combined


def resolve_model(model: str) -> tuple[str, str]:
    """Return the dataset's part of the store and the id of a model's URI; ConfigError when no model is there."""
    home, name = split_uri(model)
    if not home or not store.exists(ModelPaths(model).model_json):
        raise ConfigError("speck promote", "MODEL", f"{model}, which has no model.json", "a model's URI")
    return home, name
