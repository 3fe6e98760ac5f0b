"""The contract of evaluation.json: today's files and those of 0.1 round-trip, a bad key is named."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from typing import Any

import pytest

from etl.boxes import BUCKETS
from etl.errors import StoreError
from etl.evaluation import METRICS, Evaluation
from tests.test_store_of_0_1 import ARCHIVE, MODEL


def evaluation(values: dict[str, Any] | None = None, **keys: Any) -> Evaluation:
    """An evaluation whose combined metrics are these values, else None; `keys` are further keys of the file."""
    metrics: dict[str, Any] = {
        **dict.fromkeys(METRICS),
        "categories": {}, "boxes": 0, "buckets": dict.fromkeys(BUCKETS, 0), "max_detections": 100,
        "seconds_per_image": 0.0,
    }  # fmt: skip
    point = dict.fromkeys(("confidence", "precision", "recall", "F1"))
    counts = ("objects", "found", "localisation", "class", "both", "duplicate", "background", "missed")
    document = {
        "dataset": "made", "snapshot": "/snapshot", "model": None, "detections": "truth", "html": "/evaluation.html",
        "full_image": metrics, "tiled": metrics, "combined": {**metrics, "intervals": {}, **(values or {})},
        "seconds_per_image": 0.0, "images": 4, "size_reference": "source",
        "nwd": {"scale": 12.7, "thresholds": [0.7]},
        "merge": {"method": "nms", "metric": "iou", "threshold": 0.5},
        "best_f1": point, "thresholds": {}, "curve": None, "curves": {},
        "calibration": {"error": None, "bins": [None] * 10},
        "mistakes": {name: dict.fromkeys(counts, 0) for name in BUCKETS},
        "confusion": [[0]], "centre_recall": dict.fromkeys(BUCKETS),
        "seams": {name: {"objects": 0, "recall": None} for name in ("interior", "seam")},
        **keys,
    }  # fmt: skip
    return Evaluation.from_json("evaluation.json", json.dumps(document))


def gate(**keys: Any) -> dict[str, Any]:
    """The gate's part of evaluation.json."""
    return {"champion": None, "passed": True, "promoted": True, "reasons": [], "warnings": [], **keys}


def test_a_file_of_0_1_loads_and_is_written_back_with_the_same_keys_and_values() -> None:
    with tarfile.open(ARCHIVE) as archive:
        name = next(name for name in archive.getnames() if name.endswith(f"{MODEL}/evaluation.json"))
        file = archive.extractfile(name)
        assert file is not None
        content = file.read()
    loaded = Evaluation.from_json(name, content)
    assert loaded.to_dict() == json.loads(content)
    assert loaded.combined["AP50"] == pytest.approx(0.986, abs=1e-3)
    assert loaded.error_types["tiny"].duplicate == 1
    assert loaded.gate is None


def test_keys_that_the_file_does_not_have_are_not_written() -> None:
    assert "gate" not in evaluation().to_dict()
    assert evaluation(gate=gate()).to_dict()["gate"] == gate()
    gains = {"AP": {"median": 0.1, "interval": [0.0, 0.2]}, "AP_large": {"median": None, "interval": None}}
    assert evaluation(gate=gate(gains=gains)).to_dict()["gate"]["gains"] == gains


def test_an_unknown_key_of_a_later_version_is_ignored() -> None:
    assert "later" not in evaluation(later=1).to_dict()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: d.pop("images"), "images: found nothing, expected a value"),
        (lambda d: d.update(images="4"), "images: found '4', expected a valid integer"),
        (lambda d: d["combined"].pop("AP"), r"combined\.AP: found nothing, expected a value"),
        (lambda d: d["tiled"].update(AP_tiny="high"), r"tiled\.AP_tiny: found 'high', expected a valid number"),
        (lambda d: d["mistakes"]["tiny"].pop("class"), r"mistakes\.tiny\.class: found nothing, expected a value"),
        (lambda d: d["gate"].update(promoted=1), r"gate\.promoted: found 1, expected a valid boolean"),
        (lambda d: d.update(nwd=[], merge=[]), r"nwd: found \[\], expected an object \(and 1 more\)"),
    ],
)
def test_a_missing_key_or_a_wrong_value_is_an_error_with_file_key_found_and_expected(
    spoil: Callable[[dict[str, Any]], Any], message: str
) -> None:
    document = evaluation(gate=gate()).to_dict()
    spoil(document)
    with pytest.raises(StoreError, match=f"^a/evaluation.json: {message}$"):
        Evaluation.from_json("a/evaluation.json", json.dumps(document))


@pytest.mark.parametrize(
    ("content", "message"), [(b"{", "not a valid JSON file"), (b"[]", "found .., expected an obj")]
)
def test_what_is_no_json_object_is_an_error_with_the_file(content: bytes, message: str) -> None:
    with pytest.raises(StoreError, match=f"^a/evaluation.json: {message}"):
        Evaluation.from_json("a/evaluation.json", content)


def test_a_metric_is_found_by_its_name_alone() -> None:
    assert evaluation({"AP_small": 0.5}).combined["AP_small"] == 0.5
    with pytest.raises(KeyError, match="boxes"):
        evaluation().combined["boxes"]
