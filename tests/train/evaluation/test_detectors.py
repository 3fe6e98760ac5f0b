"""The detector of an evaluation reads ahead, starts its device before the clock runs, and takes the precision asked."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from etl.errors import SourceError
from etl.snapshots.ground_truth import load_ground_truth
from tests.train.evaluation.test_run import built
from tests.train.prediction.threads import running_threads
from train.evaluation import detectors
from train.evaluation.images import build_eval_images
from train.models import load
from train.models.model import Model

START = 0.6  # seconds that the first call takes


class SlowStart(torch.nn.Module):
    """Finds nothing; its first call takes long, as on a GPU that has not started yet."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
        self.calls = 0

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        time.sleep(0 if self.calls else START)
        self.calls += 1
        return torch.zeros(len(batch), 1, 6)


@pytest.fixture
def evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A dataset with two val images, and a function that loads its detector with a configuration."""
    config, snapshot = built(tmp_path)
    asked: list[Any] = []

    def load_model(*arguments: Any) -> Model:
        asked.append(arguments)
        tile = snapshot.plan.tile
        return Model("slow", "", SlowStart(), tuple(snapshot.categories), tile.size, tile, 32, True, {})  # type: ignore[arg-type]

    monkeypatch.setattr(load, "load_model", load_model)
    images = build_eval_images(*load_ground_truth(snapshot, "val"), snapshot.categories)
    return config, snapshot, images, asked


def test_the_seconds_do_not_contain_the_start_of_the_device(evaluated: Any) -> None:
    config, snapshot, images, _ = evaluated
    detected = detectors.detect_all(images, detectors.load_detector(config, snapshot, "slow"))
    assert len(detected.detections["combined"]) == len(images) == 2
    assert 0 < detected.seconds["combined"] < START


def test_the_precision_of_the_dataset_file_is_used(evaluated: Any) -> None:
    config, snapshot, _, asked = evaluated
    precise = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"precision": "float32"})})
    for settings in (config, precise):
        detectors.load_detector(settings, snapshot, "slow")
    assert [arguments[2] for arguments in asked] == ["auto", "float32"]


def test_an_automatic_device_is_chosen_for_the_kind_of_model(evaluated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config, snapshot, _, asked = evaluated
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    automatic = config.model_copy(update={"train": config.train.model_copy(update={"device": "auto"})})
    detectors.load_detector(automatic, snapshot, "model.onnx")
    assert asked[-1][1] == "auto", "ONNX Runtime may have no CUDA where Torch has"


def test_an_image_that_cannot_be_read_stops_the_evaluation_and_its_threads(evaluated: Any, tmp_path: Path) -> None:
    config, snapshot, images, _ = evaluated
    (tmp_path / images[1].path).write_bytes(b"no image")
    detector = detectors.load_detector(config, snapshot, "slow")
    with pytest.raises(SourceError, match=images[1].path):
        detectors.detect_all(images, detector)
    assert not running_threads()
