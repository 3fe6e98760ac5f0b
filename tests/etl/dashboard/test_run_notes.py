from __future__ import annotations

from pathlib import Path

import pytest

from etl.dashboard import run_notes
from etl.snapshots.answer import BuildAnswer
from tests.etl.test_evaluation import evaluation, gate


def test_the_note_of_a_build_has_changes_and_new_findings(dataset, tmp_path: Path) -> None:
    config = dataset.config(tmp_path / "store")

    def build_note() -> str:
        return run_notes.describe_build(BuildAnswer.from_dict("answer", dataset.build(config)))

    first = build_note()
    assert first.startswith("+10 images, +")
    assert "new finding" in first
    dataset.put("k_5", [(0, 1, 1, 20, 20)], 11)
    dataset.put("l_5", [(0, 1, 1, 20, 20)], 11)  # identical pixels
    dataset.remove("a_5")
    assert build_note().startswith("+2 -1 image, +2")
    assert build_note() == "no change"


def test_the_note_of_a_training_has_model_and_reason() -> None:
    answer = {"model": "s3://b/lake/models/12ab", "epochs": 20, "device": "cpu"}
    assert run_notes.describe_training(answer, "no model yet") == "model 12ab: 20 epochs on cpu, reason: no model yet"


@pytest.mark.parametrize(
    ("verdict", "note"),
    [
        (None, "AP_small 41.2"),
        (gate(), "AP_small 41.2, promoted"),
        (
            gate(gains={"AP_small": {"median": 0.0134, "interval": [0.0, 0.02]}}),
            "AP_small 41.2 (+1.3 vs champion), promoted",
        ),
        (
            gate(
                passed=False,
                promoted=False,
                reasons=["AP_tiny falls by 0.02"],
                gains={"AP_small": {"median": -0.01, "interval": [-0.02, 0.0]}},
            ),
            "AP_small 41.2 (-1.0 vs champion), not promoted: AP_tiny falls by 0.02",
        ),
    ],
)
def test_the_note_of_an_evaluation_has_metric_gain_and_decision(verdict, note) -> None:
    evaluated = evaluation({"AP_small": 0.4123}, **({} if verdict is None else {"gate": verdict}))
    assert run_notes.describe_evaluation(evaluated) == note


@pytest.mark.parametrize(("value", "text"), [(None, "none"), (0.0, "0.0"), (0.0004, "below 0.1"), (0.0006, "0.1")])
def test_a_note_distinguishes_a_metric_without_value_of_0_and_close_to_0(value: float | None, text: str) -> None:
    assert run_notes.describe_evaluation(evaluation({"AP_small": value})) == f"AP_small {text}"


def test_a_model_with_an_ap_of_0_is_not_promoted_and_the_note_says_why() -> None:
    verdict = gate(passed=False, promoted=False, reasons=["AP_small is 0: no correct detection in val"])
    assert run_notes.describe_evaluation(evaluation({"AP_small": 0.0}, gate=verdict)) == (
        "AP_small 0.0, not promoted: AP_small is 0: no correct detection in val"
    )


def test_the_note_of_an_evaluation_of_the_champion_does_not_call_it_rejected() -> None:
    """An evaluation that is repeated after it has promoted the model finds it the champion."""
    verdict = gate(passed=True, promoted=False, reasons=["it is the champion"])
    assert (
        run_notes.describe_evaluation(evaluation({"AP_small": 0.5}, gate=verdict))
        == "AP_small 50.0, it is the champion"
    )
