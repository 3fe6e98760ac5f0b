"""One dataset file: every setting of its build, training and evaluation, checked before any work."""

from __future__ import annotations

from etl.config.load import changes, load
from etl.config.sections import (
    Anchors,
    Augment,
    Config,
    Evaluate,
    Gate,
    Loss,
    Merge,
    Ontology,
    Retention,
    Retrain,
    Schedule,
    Shard,
    Source,
    SplitLists,
    SplitRatios,
    Tile,
    Train,
    Watch,
    Workers,
)
from etl.errors import ConfigError

__all__ = [
    "Anchors",
    "Augment",
    "Config",
    "ConfigError",
    "Evaluate",
    "Gate",
    "Loss",
    "Merge",
    "Ontology",
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
