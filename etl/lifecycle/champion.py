"""The champion: the promoted model of a dataset, and the history of promotions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Literal

from etl.document import Document
from etl.errors import ConfigError, StoreError
from etl.evaluation import CombinedMetrics, Evaluation
from etl.lifecycle.promotion_log import read_promotions, restore_copy
from etl.storage import store
from etl.storage.paths import MODEL_JSON, DatasetPaths, ModelPaths, split_uri

YEAR = timedelta(days=365)  # for so long the gate compares a new model with former champions


class _ModelRecord(Document):
    """What the list of models needs of a model.json."""

    id: str
    model: str  # architecture
    snapshot: str
    run: str | None = None


def current_champion(home: str) -> str | None:
    """Return the id of the champion of the dataset at `home`, None before the first promotion."""
    entries = history(home)
    return str(entries[-1]["model"]) if entries else None


def champion_and_previous(home: str) -> list[str]:
    """Return the ids of the champion and its predecessor, as far as they exist."""
    entries = history(home)[-1:]
    return [str(entry[key]) for entry in entries for key in ("model", "predecessor") if entry[key] is not None]


def champions_of_year(home: str, now: datetime) -> list[str]:
    """Return the ids of the champion and of those of the last year, oldest first.

    The champion at the start of the year is one of them. Those that a person replaced are not.
    """
    entries = history(home)
    start = now - YEAR
    champion = [str(entry["model"]) for entry in entries[-1:]]
    former = [
        str(entry["model"])
        for entry, after in pairwise(entries)
        if datetime.fromisoformat(after["time"]) > start and after.get("by") != "hand"
    ]
    return [*dict.fromkeys(model for model in former if model not in champion), *champion]


def history(home: str) -> list[dict[str, Any]]:
    """Return every promotion, oldest first: sequence, model, predecessor, reason, time, and by whom.

    Entries of older versions do not tell by whom.
    """
    return read_promotions(home)


def promote(
    home: str, model: str, reason: str, *, over: str | None, by: Literal["gate", "hand"] = "hand"
) -> dict[str, Any]:
    """Make a model the champion in place of `over`, the champion it was compared with, and return the log entry.

    The log entry makes the promotion valid, and only one of two concurrent promotions can create it; champion.json is a
    copy of the newest entry. StoreError if `over` is no longer the champion or if the model already is.
    """
    paths, entries = DatasetPaths(home), history(home)
    champion = str(entries[-1]["model"]) if entries else None
    if champion != over:
        raise StoreError(
            f"{home}: the champion changed from {over or 'none'} to {champion or 'none'} during the evaluation; "
            "evaluate again"
        )
    if champion == model:
        restore_copy(home)
        raise StoreError(f"{home}: {model} is already the champion")
    sequence = int(entries[-1]["sequence"]) + 1 if entries else 1  # the first entries may have been deleted
    entry = {
        "sequence": sequence,
        "model": model,
        "predecessor": champion,
        "reason": reason,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "by": by,
    }
    if not store.create_if_absent(paths.promotion(sequence), store.to_json(entry)):
        raise StoreError(f"{home}: another promotion came first; evaluate again")
    store.write_json(paths.champion, entry)
    return entry


def concerns(model: str) -> list[str]:
    """Return what speaks against promoting a model (its URI): its training, its evaluation, the gate's decision."""
    foreign = foreign_training(model)
    return [*([] if foreign is None else [foreign]), *_concerns_of_evaluation(ModelPaths(model))]


def foreign_training(model: str) -> str | None:
    """Return as a reason that a model (its URI) was trained on a snapshot of a trial or of another dataset."""
    trained_on = str(store.read_json(ModelPaths(model).model_json)["snapshot"])
    if "/" not in trained_on:
        return None
    return f"it was trained on a snapshot of a trial or of another dataset, which may have val images: {trained_on}"


def _concerns_of_evaluation(paths: ModelPaths) -> list[str]:
    if not store.exists(paths.evaluation_json):
        return ["it was not evaluated"]
    evaluation = _read_evaluation(paths)
    if not evaluation.combined.boxes:
        return ["its val has no object to judge by"]
    if not evaluation.combined.AP:
        return ["its AP is 0: no correct detection in val"]
    gate = evaluation.gate
    return [] if gate is None or gate.passed else [f"the gate decided against it: {reason}" for reason in gate.reasons]


def list_models(home: str) -> list[dict[str, Any]]:
    """Return the models of a dataset, oldest first: id, snapshot, metrics (None if not evaluated), champion or not."""
    champion = current_champion(home)
    models = []
    for uri in store.glob(DatasetPaths(home).model("*").model_json):
        model, paths = _read_record(uri), ModelPaths(uri.removesuffix(MODEL_JSON))
        metrics = _combined_metrics(paths)
        models.append(
            {
                "id": model.id,
                "uri": paths.uri,
                "written": store.modified_time(paths.weights).isoformat(),
                "model": model.model,
                "snapshot": model.snapshot,
                "run": model.run,
                **{key: None if metrics is None else metrics[key] for key in ("AP", "AP50", "AP_small")},
                "champion": model.id == champion,
            }
        )
    return sorted(models, key=lambda row: (row["written"], row["id"]))


def _read_record(uri: str) -> _ModelRecord:
    try:
        return _ModelRecord.from_json(uri, store.read_bytes(uri))
    except StoreError as error:
        raise StoreError(f"{error}; restore the file from a backup, or delete the folder of the model") from error


def _combined_metrics(model: ModelPaths) -> CombinedMetrics | None:
    """Return the combined metrics of a model, None before its evaluation."""
    if not store.exists(model.evaluation_json):
        return None
    return _read_evaluation(model).combined


def _read_evaluation(model: ModelPaths) -> Evaluation:
    content = store.read_start(model.evaluation_json, Evaluation.most_bytes + 1)
    return Evaluation.from_json(model.evaluation_json, content)


def is_own_model(home: str, model: str) -> bool:
    """Return whether a model's URI, of a relative path, too, is one of the dataset at `home`."""
    return split_uri(_resolve(model)).home == _resolve(home)


def _resolve(uri: str) -> str:
    path = store.local_path(uri)
    return uri.rstrip("/") if path is None else str(path.resolve())


def resolve_model(model: str) -> tuple[str, str]:
    """Return the home of the dataset and the id of the model at a URI; ConfigError if there is no model."""
    home, name = split_uri(model)
    if not home or not store.exists(ModelPaths(model).model_json):
        raise ConfigError("speck promote", "MODEL", f"{model}, which has no model.json", "a model's URI")
    return home, name
