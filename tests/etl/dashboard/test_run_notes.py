from __future__ import annotations

from pathlib import Path

import pytest

from etl.dashboard import run_notes


def test_a_build_tells_what_came_and_what_its_audit_found(dataset, tmp_path: Path) -> None:
    config = dataset.config(tmp_path / "store")
    first = run_notes.of_build(dataset.build(config))
    assert first.startswith("+10 images, +")
    assert "new finding" in first
    dataset.put("k_5", [(0, 1, 1, 20, 20)], 11)
    dataset.put("l_5", [(0, 1, 1, 20, 20)], 11)  # the very same pixels
    dataset.remove("a_5")
    grown = dataset.build(config)
    assert run_notes.of_build(grown).startswith("+2 -1 images, +2")
    assert run_notes.of_build(dataset.build(config)) == "nothing new"


def test_a_training_tells_its_model_and_its_reason() -> None:
    answer = {"model": "s3://b/lake/models/12ab", "epochs": 20, "device": "cpu"}
    assert run_notes.of_training(answer, "no model yet") == "model 12ab: 20 epochs on cpu, as no model yet"


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        (None, "AP_small 41.2"),
        ({"promoted": True, "reasons": []}, "AP_small 41.2, promoted"),
        (
            {"promoted": True, "reasons": [], "gains": {"AP_small": {"median": 0.0134}}},
            "AP_small 41.2 (+1.3 on the champion), promoted",
        ),
        (
            {"promoted": False, "reasons": ["AP_tiny falls by 0.02"], "gains": {"AP_small": {"median": -0.01}}},
            "AP_small 41.2 (-1.0 on the champion), not promoted: AP_tiny falls by 0.02",
        ),
    ],
)
def test_an_evaluation_tells_its_figure_and_what_became_of_the_model(gate, said) -> None:
    answer = {"combined": {"AP_small": 0.4123}} | ({} if gate is None else {"gate": gate})
    assert run_notes.of_evaluation(answer, "AP_small") == said


@pytest.mark.parametrize(("value", "said"), [(None, "none"), (0.0, "0.0"), (0.0004, "below 0.1"), (0.0006, "0.1")])
def test_a_note_tells_apart_a_metric_without_value_of_0_and_close_to_0(value: float | None, said: str) -> None:
    assert run_notes.of_evaluation({"combined": {"AP_small": value}}, "AP_small") == f"AP_small {said}"


def test_a_model_with_an_ap_of_0_is_not_promoted_and_the_note_says_why() -> None:
    verdict = {"champion": None, "promoted": False, "reasons": ["AP_small is 0: no correct detection in val"]}
    assert run_notes.of_evaluation({"combined": {"AP_small": 0.0}, "gate": verdict}, "AP_small") == (
        "AP_small 0.0, not promoted: AP_small is 0: no correct detection in val"
    )
