"""Trials: builds with other settings or fewer images, stored separately from the snapshots of the dataset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etl.config import Config, load
from etl.ids import digest
from etl.storage.paths import DatasetPaths


def load_trial_config(path: str | Path, changes: Mapping[str, Any]) -> Config:
    """Return the configuration of a dataset file with changed settings, by dotted key.

    With changes the store is `<store>/<dataset>/trials/<digest of the changes>`: a build there does not change the
    newest snapshot, triggers no training and does not block builds of the dataset. ConfigError as for the file itself.
    """
    config = load(path, changes)
    return with_trial_store(config, digest(dict(changes))[:8]) if changes else config


def with_trial_store(config: Config, name: str) -> Config:
    """Return the configuration of a dataset with its store replaced by that of the trial of this name."""
    return config.model_copy(update={"store": DatasetPaths(config.home).trial(name)})
