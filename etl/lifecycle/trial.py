"""A build tried out with other settings or a few images: published apart, never taken for the dataset's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etl.config import Config, load
from etl.ids import digest
from etl.storage.paths import DatasetPaths


def load_trial_config(path: str | Path, changes: Mapping[str, Any]) -> Config:
    """Return a dataset file's configuration with some settings changed, by dotted key.

    With a change its snapshots lie below `<store>/<dataset>/trials/<digest of the changes>`: neither the dataset's
    newest, nor announced, nor in the way of its next build. ConfigError as for the file itself.
    """
    config = load(path, changes)
    return with_trial_store(config, digest(dict(changes))[:8]) if changes else config


def with_trial_store(config: Config, name: str) -> Config:
    """Return a dataset's configuration with the trial of this name in place of the dataset's own part of the store."""
    return config.model_copy(update={"store": DatasetPaths(config.home).trial(name)})
