"""The dataset file: every setting of a dataset's build, training and evaluation, checked before any work."""

from __future__ import annotations

from etl.config.building import Anchors, Augment, Ontology, Shard, Tile
from etl.config.dataset import Config
from etl.config.load import changes, load
from etl.config.operation import Retention, Retrain, Schedule, Watch, Workers
from etl.config.source import Every, Source, SplitLists, SplitRatios
from etl.config.training import Evaluate, Gate, Loss, Merge, PredictionPrecision, Train
from etl.errors import ConfigError

__all__ = [
    "Anchors",
    "Augment",
    "Config",
    "ConfigError",
    "Evaluate",
    "Every",
    "Gate",
    "Loss",
    "Merge",
    "Ontology",
    "PredictionPrecision",
    "Retention",
    "Retrain",
    "Schedule",
    "Shard",
    "Source",
    "SplitLists",
    "SplitRatios",
    "Tile",
    "Train",
    "Watch",
    "Workers",
    "changes",
    "load",
]
