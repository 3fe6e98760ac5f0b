"""Repeated detections of a file: they are counted, and what they cost is measured without them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from etl.evaluation import Evaluation
from etl.numbers import count
from tests.train.evaluation.foreign import Made, make, on_val
from train.evaluation import run
from train.evaluation.basis import describe_basis


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("repeats"))


def evaluate(made: Made, folder: Path, rows: list[dict[str, Any]]) -> Evaluation:
    file = folder / "results.json"
    file.write_text(json.dumps(rows))
    return run.evaluate(made.config, made.snapshot, detections=str(file), out=str(folder))


def test_every_detection_twice_is_suspicious_and_costs_what_it_gains_to_drop_them(made: Made, tmp_path: Path) -> None:
    own = on_val(made)
    once = evaluate(made, tmp_path, made.results)
    twice = evaluate(made, tmp_path, [*made.results, *({**row, "score": 0.9 * row["score"]} for row in made.results)])
    assert once.reading is not None and once.reading.repeated == 0 and once.reading.AP_without_repeats is None
    assert twice.reading is not None and twice.reading.repeated == len(own)
    assert twice.reading.AP_without_repeats == pytest.approx(once.combined.AP, abs=1e-12)
    assert (
        twice.combined.AP is not None and once.combined.AP is not None and twice.combined.AP < once.combined.AP - 0.01
    )
    text = " ".join(describe_basis(twice))
    assert f"Suspicious: {count(len(own))} of {count(2 * len(own))} detections repeat another one" in text
    assert f"AP is {twice.combined.AP:.3f}, without them {once.combined.AP:.3f}. Was the file" in text
    assert "repeat another" not in " ".join(describe_basis(once))


def test_few_repeats_and_boxes_of_another_category_or_place_are_not_suspicious(made: Made, tmp_path: Path) -> None:
    own = on_val(made)
    shifted = [{**row, "bbox": [row["bbox"][0] + 0.25, *row["bbox"][1:]]} for row in own]
    kinds = sorted({row["category_id"] for row in own})
    renamed = [{**row, "category_id": kinds[kinds.index(row["category_id"]) - 1]} for row in own]
    found = evaluate(made, tmp_path, [*own, *shifted, *renamed, own[0]])
    assert found.reading is not None and found.reading.repeated == 1
    assert "repeat another" not in " ".join(describe_basis(found))
