"""Promotions change the champion one at a time, also back to an earlier model."""

from __future__ import annotations

from pathlib import Path

import pytest

from etl.errors import ConfigError, StoreError
from etl.lifecycle import champion
from etl.storage import store
from tests.etl.test_evaluation import evaluation


def test_promotions_are_logged_in_order_with_their_reasons(tmp_path: Path) -> None:
    home = str(tmp_path)
    assert champion.current_champion(home) is None
    champion.promote(home, "a", "the first", over=None)
    champion.promote(home, "b", "better", over="a")
    rollback = champion.promote(home, "a", "rollback", over="b")
    assert champion.current_champion(home) == "a"
    assert [entry["model"] for entry in champion.history(home)] == ["a", "b", "a"]
    assert store.read_json(f"{home}/champion.json") == rollback
    assert (rollback["sequence"], rollback["predecessor"], rollback["reason"]) == (3, "b", "rollback")


def test_one_of_two_promotions_over_the_same_champion_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = str(tmp_path)
    champion.promote(home, "a", "the first", over=None)
    before = champion.history(home)
    champion.promote(home, "b", "better", over="a")
    with pytest.raises(StoreError, match="the champion changed from a to b"):
        champion.promote(home, "c", "better", over="a")
    monkeypatch.setattr(champion, "history", lambda _: before)  # as read just before the other promotion
    with pytest.raises(StoreError, match="another promotion came first"):
        champion.promote(home, "c", "better", over="a")


def test_models_are_listed_with_their_metrics_and_the_champion(tmp_path: Path) -> None:
    home = str(tmp_path)
    for name, evaluated in (("a", True), ("b", False)):
        model = {"id": name, "model": "yolo26n", "snapshot": "s"}
        store.write_bytes(f"{home}/models/{name}/weights.safetensors", b"")
        store.write_json(f"{home}/models/{name}/model.json", model)
        if evaluated:
            metrics = {"AP": 0.5, "AP50": 0.7, "AP_small": None}
            store.write_json(f"{home}/models/{name}/evaluation.json", evaluation(metrics).to_dict())
    champion.promote(home, "b", "the first", over=None)
    rows = champion.list_models(home)
    assert [(row["id"], row["AP50"], row["champion"]) for row in rows] == [("a", 0.7, False), ("b", None, True)]


def test_only_the_uri_of_a_model_is_resolved(tmp_path: Path) -> None:
    store.write_json(f"{tmp_path}/d/models/a/model.json", {})
    assert champion.resolve_model(f"{tmp_path}/d/models/a/") == (f"{tmp_path}/d", "a")
    with pytest.raises(ConfigError, match=r"no model\.json"):
        champion.resolve_model(f"{tmp_path}/d/models/b")


def test_an_evaluation_without_a_key_is_an_error_with_file_and_key(tmp_path: Path) -> None:
    home = str(tmp_path)
    store.write_bytes(f"{home}/models/a/weights.safetensors", b"")
    store.write_json(f"{home}/models/a/model.json", {"id": "a", "model": "yolo26n", "snapshot": "s"})
    store.write_json(f"{home}/models/a/evaluation.json", evaluation().to_dict() | {"combined": {}})
    with pytest.raises(StoreError, match=r"models/a/evaluation\.json: combined\.AP: found nothing, expected a value"):
        champion.list_models(home)
