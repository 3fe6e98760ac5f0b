"""Detectors: training on a snapshot, tiled prediction, evaluation.

The names in `__all__` are the public API; everything else may change without notice. They are loaded on first use, so
that `import train` loads neither Torch nor Ultralytics.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train.detections import Detections
    from train.engine.snapshot_dataset import SnapshotDataset
    from train.evaluation.run import evaluate
    from train.models.load import load_model
    from train.prediction.tiled import predict

__all__ = ["Detections", "SnapshotDataset", "evaluate", "load_model", "predict"]

_MODULES = {
    "Detections": "train.detections",
    "SnapshotDataset": "train.engine.snapshot_dataset",
    "evaluate": "train.evaluation.run",
    "load_model": "train.models.load",
    "predict": "train.prediction.tiled",
}

# Torch's idle threads spin by default. On a machine with other busy processes that makes a step up to ten times slower;
# passive waiting costs a few percent. Torch reads the variable when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
