"""Decide whether to train on a new snapshot: what has changed since the snapshot of the last model."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from etl.config import Config, network
from etl.errors import StoreError
from etl.lifecycle import champion
from etl.lifecycle.training_config import portable, portable_train, training_config
from etl.snapshots.box_pairs import changed_share, labelled_boxes
from etl.snapshots.snapshot import Snapshot
from etl.storage import store
from etl.storage.paths import DatasetPaths, ModelPaths, split_uri

_SETTINGS = ("ontology", "tile", "augment", "train")  # a change of these changes the model


def reason_to_train(config: Config, snapshot: str) -> str | None:
    """Return the reason to train on the snapshot at this URI, None if there is none."""
    own_models = [row["uri"] for row in champion.list_models(config.home) if "/" not in row["snapshot"]]
    if not own_models:  # models of trials and of other datasets do not count
        return "no model yet"
    model = own_models[-1]
    last = store.read_json(ModelPaths(model).model_json)
    try:
        before = labelled_boxes(Snapshot.open(snapshot_of(model)))
    except StoreError:
        return "the snapshot of the last model no longer exists"
    now = Snapshot.open(snapshot)
    share = changed_share(before, labelled_boxes(now))
    return decide(training_config(config, now), last["config"], share)


def decide(config: Config, trained: dict[str, Any], changed: float) -> str | None:
    """Return the reason to train, given the configuration of the last model and the share of boxes changed since.

    Changed anchors are a reason for a model that has anchors.
    """
    names = (*_SETTINGS, "anchors") if config.train.model.endswith(network.WITH_ANCHORS) else _SETTINGS
    own = portable(config.resolved())
    before = {**trained, "train": portable_train(trained.get("train", {}))}  # earlier versions kept its paths
    if different := [name for name in names if not _is_same(type(getattr(config, name)), own[name], before.get(name))]:
        return f"new settings: {', '.join(different)}"
    if changed >= config.retrain.min_change:
        return f"{changed:.1%} of the boxes changed"
    return None


def _is_same(section: type[BaseModel], now: dict[str, Any], trained: dict[str, Any] | None) -> bool:
    """Return whether a section has the values it had for a model; keys of later versions then had their defaults."""
    try:
        return trained is not None and section.model_validate(trained) == section.model_validate(now)
    except ValidationError:
        return False


def newest_model(config: Config) -> str | None:
    """Return the URI of the newest model of the dataset, None before the first."""
    models = champion.list_models(config.home)
    return str(models[-1]["uri"]) if models else None


def snapshot_of(model: str) -> str:
    """Return the URI of the snapshot a model was trained on."""
    return DatasetPaths(split_uri(model).home).snapshot(trained_on(model)).uri


def trained_on(model: str) -> str:
    """Return the id of the snapshot a model was trained on; its URI if it is not one of the dataset."""
    return str(store.read_json(ModelPaths(model).model_json)["snapshot"])
