"""Promotions change the champion one at a time, also back to an earlier model."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from etl.errors import ConfigError, StoreError
from etl.lifecycle import champion
from etl.storage import store
from tests.etl.test_evaluation import evaluation, gate


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


@pytest.mark.parametrize("before", [[], ["a"]])
def test_a_promotion_that_was_killed_before_champion_json_is_completed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: list[str]
) -> None:
    home = str(tmp_path)
    for model in before:
        champion.promote(home, model, "first", over=None)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(store, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        champion.promote(home, "b", "better", over=(before or [None])[-1])
    assert champion.current_champion(home) == "b"
    with pytest.raises(StoreError, match="already the champion"):
        champion.promote(home, "b", "better", over="b")
    assert store.read_json(f"{home}/champion.json") == champion.history(home)[-1]


def entry_of(model: str, day: int, by: str | None = "gate") -> dict[str, Any]:
    time = (datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=day)).isoformat()
    return {"model": model, "predecessor": None, "reason": "", "time": time, **({} if by is None else {"by": by})}


@pytest.mark.parametrize(
    ("entries", "day", "expected"),
    [
        ([], 0, []),
        ([("a", 0, "gate")], 900, ["a"]),
        ([("a", 0, "gate"), ("b", 10, "gate"), ("c", 20, "gate")], 30, ["a", "b", "c"]),
        ([("a", 0, "gate"), ("b", 10, "gate"), ("c", 20, "gate")], 376, ["b", "c"]),  # b was champion a year ago
        ([("a", 0, "gate"), ("b", 10, "gate"), ("c", 20, "gate")], 386, ["c"]),
        ([("a", 0, "gate"), ("b", 10, "gate"), ("a", 20, "hand")], 30, ["a"]),  # a person took b back
        ([("a", 0, None), ("b", 10, None)], 30, ["a", "b"]),  # entries of older versions
        ([("a", 0, "gate"), ("b", 10, "gate"), ("a", 20, "gate"), ("c", 25, "gate")], 30, ["a", "b", "c"]),
    ],
)
def test_the_champions_of_a_year_are_those_that_no_person_replaced(
    monkeypatch: pytest.MonkeyPatch, entries: list[tuple[str, int, str | None]], day: int, expected: list[str]
) -> None:
    monkeypatch.setattr(champion, "history", lambda _: [entry_of(*entry) for entry in entries])
    now = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(days=day)
    assert champion.champions_of_year("", now) == expected


def test_what_speaks_against_a_promotion_is_named(tmp_path: Path) -> None:
    uri = f"{tmp_path}/models/a"

    def concerns_of(values: dict[str, Any], **keys: Any) -> list[str]:
        store.write_json(f"{uri}/evaluation.json", evaluation(values, **keys).to_dict())
        return champion.concerns(uri)

    store.write_json(f"{uri}/model.json", {"id": "a", "snapshot": "s1"})
    assert champion.concerns(uri) == ["it was not evaluated"]
    assert concerns_of({"AP": 0.5, "boxes": 9}) == []
    assert concerns_of({"AP": 0.0, "boxes": 9}) == ["its AP is 0: no correct detection in val"]
    assert concerns_of({"AP": None}) == ["its val has no object to judge by"]
    refused = gate(passed=False, promoted=False, reasons=["AP falls", "AP_tiny falls"])
    assert concerns_of({"AP": 0.5, "boxes": 9}, gate=refused) == [
        "the gate decided against it: AP falls",
        "the gate decided against it: AP_tiny falls",
    ]
    trial = f"{tmp_path}/trials/t/d/snapshots/s2"
    store.write_json(f"{uri}/model.json", {"id": "a", "snapshot": trial})
    of_trial = f"it was trained on a snapshot of a trial or of another dataset, which may have val images: {trial}"
    assert concerns_of({"AP": 0.5, "boxes": 9}) == [of_trial]


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


def test_a_promotion_follows_the_last_entry_also_when_earlier_ones_were_deleted(tmp_path: Path) -> None:
    home = str(tmp_path)
    champion.promote(home, "a", "the first", over=None)
    champion.promote(home, "b", "better", over="a")
    store.delete(f"{home}/promotions/00000001.json")
    assert champion.promote(home, "c", "better", over="b")["sequence"] == 3
    assert champion.current_champion(home) == "c"


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
