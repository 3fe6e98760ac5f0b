"""The record of a model's training, from its model.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etl.diagnosis import TrainingRecord
from etl.storage import store
from etl.storage.paths import ModelPaths
from train.engine import history


def load_training(model_uri: str) -> TrainingRecord | None:
    """Return how a model was trained; None if its model.json does not hold it.

    What earlier versions did not record comes from the model's configuration; there is then no history.
    """
    path = ModelPaths(model_uri).model_json
    meta = store.read_json(path)
    if "trained" not in meta:
        return None
    trained = {**_from_configuration(meta), **meta["trained"]}
    planned, limit = trained.get("planned_epochs"), trained.get("time_limit")
    if planned is not None:
        trained.setdefault("ended", history.find_end(trained["epochs"], planned, trained["seconds"], limit))
    return TrainingRecord.from_dict(path, trained)


def _from_configuration(meta: Mapping[str, Any]) -> dict[str, Any]:
    train = meta.get("config", {}).get("train", {})
    keys = {"planned_epochs": "epochs", "time_limit": "max_seconds"}
    return {name: train[key] for name, key in keys.items() if key in train}
