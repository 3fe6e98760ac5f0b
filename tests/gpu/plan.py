"""The steps of the GPU suite in the order of their value, and the time that each may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

QUICK_SECONDS = 120  # of each step on a CPU


@dataclass(frozen=True)
class Step:
    """One step; `run` of its module gets the arguments."""

    name: str
    module: str  # in tests.gpu.steps
    seconds: int  # on a GPU; time that earlier steps did not use is added
    arguments: Mapping[str, Any] = field(default_factory=dict)
    beside: bool = False  # starts beside the following steps, and ends before the first one that is timed
    timed: bool = False  # measures speed, so nothing may run beside it


STEPS = (
    Step("environment", "environment", 10),
    Step("data for training", "dataset", 180, {"name": "large"}, beside=True),
    Step("data for correctness", "dataset", 35, {"name": "small"}),
    Step("train yolo26n", "train_model", 45, {"model": "yolo26n", "epochs": 12, "keep": True}),
    Step("train yolo26n-p2", "train_model", 25, {"model": "yolo26n-p2"}),
    Step("train yolo26n-anchors", "train_model", 25, {"model": "yolo26n-anchors"}),
    Step("kill and resume", "resume", 35),
    Step("half precision", "half_precision", 20),
    Step("evaluate", "evaluate", 25),
    Step("ONNX", "onnx_file", 20),
    Step("tests of train", "unit_tests", 50),
    Step("training speed", "training_speed", 85, timed=True),
    Step("prediction speed", "prediction_speed", 75, timed=True),
    Step("synchronisations", "synchronisations", 15),
    # The ablation of losses and models comes here.
)
