"""The reasons to train on a new snapshot."""

from __future__ import annotations

import time

import pytest

from etl.config import Config
from etl.lifecycle import champion
from etl.lifecycle.retrain import changed_share, decide, reason_to_train
from etl.schema import ANNOTATIONS, table
from etl.storage import store

CONFIG = Config.model_validate(
    {"name": "d", "source": {"format": "yolo", "images": "i"}, "retrain": {"min_change": 0.1}}
)


def boxes(*pairs: str):
    """Return a table of boxes, each given as `image/box`."""
    rows = [dict(zip(("image_id", "annotation_id"), pair.split("/"), strict=True)) for pair in pairs]
    return table(ANNOTATIONS, rows)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (["a/1", "a/2"], ["a/1", "a/2"], 0.0),
        (["a/1", "a/2"], ["a/1", "a/2", "b/3"], 0.5),
        (["a/1", "a/2"], ["a/1"], 0.5),
        (["a/1", "a/2"], ["a/1", "a/3"], 0.5),  # a moved box is one change
        (["a/1", "a/2"], ["a/1", "b/3"], 1.0),  # one removed and one added in different images
        ([], ["a/1"], 1.0),
    ],
)
def test_change_is_the_share_of_boxes_added_changed_or_removed(before, after, expected):
    assert changed_share(boxes(*before), boxes(*after)) == expected


def test_a_small_change_with_equal_settings_is_no_reason():
    assert decide(CONFIG, CONFIG.resolved(), 0.09) is None


def test_a_large_change_is_a_reason():
    assert decide(CONFIG, CONFIG.resolved(), 0.1) == "10.0% of the boxes changed"


def test_new_training_settings_are_a_reason_and_a_new_schedule_is_none():
    other = CONFIG.model_copy(update={"train": CONFIG.train.model_copy(update={"epochs": 7})})
    assert decide(other, CONFIG.resolved(), 0.0) == "new settings: train"
    night = CONFIG.model_copy(update={"schedule": CONFIG.schedule.model_copy(update={"cron": "0 3 * * *"})})
    assert decide(night, CONFIG.resolved(), 0.0) is None


def test_a_model_rejected_by_the_gate_is_not_trained_again(dataset, tmp_path):
    config = dataset.config(tmp_path / "store")
    snapshot = dataset.build(config)["snapshot"]
    for name in ("a", "b"):
        model = {"id": name, "model": "m", "snapshot": snapshot.rsplit("/", 1)[1], "config": config.resolved()}
        store.write_bytes(f"{config.home}/models/{name}/weights.safetensors", b"")
        store.write_json(f"{config.home}/models/{name}/model.json", model)
        time.sleep(0.01)
    assert reason_to_train(config, snapshot) is None
    champion.promote(config.home, "a", "the first", over=None)  # b was trained later, evaluated and rejected
    assert reason_to_train(config, snapshot) is None
    dataset.put("n_1", dataset.boxes(40) + [(0, 10, 10, 20, 20)] * 3, 40)
    assert "boxes changed" in str(reason_to_train(config, dataset.build(config)["snapshot"]))


def test_models_of_trials_are_ignored(dataset, tmp_path):
    config = dataset.config(tmp_path / "store")
    snapshot = dataset.build(config)["snapshot"]
    trial = f"{config.home}/trials/12345678/grown/snapshots/abc"
    for name, trained_on in (("a", snapshot.rsplit("/", 1)[1]), ("b", trial)):
        model = {"id": name, "model": "m", "snapshot": trained_on, "config": config.resolved()}
        store.write_bytes(f"{config.home}/models/{name}/weights.safetensors", b"")
        store.write_json(f"{config.home}/models/{name}/model.json", model)
        time.sleep(0.01)
    assert reason_to_train(config, snapshot) is None
    store.delete(f"{config.home}/models/a")
    assert reason_to_train(config, snapshot) == "no model yet"


def with_train_and_anchors(model: str, **anchors) -> Config:
    values = {**CONFIG.resolved(), "anchors": anchors, "train": {"model": model}}
    return Config.model_validate(values)


@pytest.mark.parametrize("model", ["speck-micro", "yolo26n-p2"])
def test_new_anchors_are_a_reason_only_for_a_model_that_has_anchors(model):
    old, new = with_train_and_anchors(model, per_level=3), with_train_and_anchors(model, per_level=4)
    assert decide(new, old.resolved(), 0.0) is None
    name = f"{model}-anchors"
    old, new = with_train_and_anchors(name, per_level=3), with_train_and_anchors(name, per_level=4)
    assert decide(new, old.resolved(), 0.0) == "new settings: anchors"
    assert decide(new, new.resolved(), 0.0) is None


def test_a_key_that_the_last_model_did_not_know_is_no_reason():
    trained = with_train_and_anchors("speck-micro-anchors").resolved()
    for section, key in (("train", "sampling"), ("anchors", "seed"), ("tile", "negatives")):
        trained[section].pop(key)
    assert decide(with_train_and_anchors("speck-micro-anchors"), trained, 0.0) is None
    trained["anchors"]["seed"] = "wrong"
    assert decide(with_train_and_anchors("speck-micro-anchors"), trained, 0.0) == "new settings: anchors"


@pytest.mark.parametrize(("model", "reason"), [("yolo26n", None), ("yolo26n-anchors", "new settings: anchors")])
def test_a_build_with_other_anchors_retrains_a_model_that_has_them(dataset, tmp_path, model, reason):
    def build(**anchors):
        config = dataset.config(tmp_path / "store", train={"model": model}, anchors=anchors)
        return config, dataset.build(config)

    config, first = build()
    record = {"id": "a", "model": model, "snapshot": first["snapshot"].rsplit("/", 1)[1], "config": config.resolved()}
    store.write_bytes(f"{config.home}/models/a/weights.safetensors", b"")
    store.write_json(f"{config.home}/models/a/model.json", record)
    assert reason_to_train(config, first["snapshot"]) is None
    config, second = build(per_level=2)
    assert second["published"] and second["change"]["share"] == 0
    assert reason_to_train(config, second["snapshot"]) == reason


def test_settings_that_the_snapshot_was_not_built_with_are_no_reason(dataset, tmp_path):
    config = dataset.config(tmp_path / "store")
    snapshot = dataset.build(config)["snapshot"]
    model = {"id": "a", "model": "m", "snapshot": snapshot.rsplit("/", 1)[1], "config": config.resolved()}
    store.write_bytes(f"{config.home}/models/a/weights.safetensors", b"")
    store.write_json(f"{config.home}/models/a/model.json", model)
    edited = dataset.config(tmp_path / "store", augment={"copies": 0})
    assert reason_to_train(edited, snapshot) is None  # another training would be the same
    assert reason_to_train(edited, dataset.build(edited)["snapshot"]) == "new settings: augment"
