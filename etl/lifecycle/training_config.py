"""The settings of a training: those of the build come from its snapshot, the others from the dataset file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from etl.config import Config
from etl.errors import ConfigError
from etl.snapshots.snapshot import Snapshot

OF_BUILD = ("source", "ontology", "tile", "augment", "shard", "anchors")  # they decide what a snapshot holds
_PATHS = ("images", "annotations", "categories")  # of the section source
_OF_TRAINING = ("name", "store", "train", "evaluate")  # `evaluate` is stored in the model, for its predictions


def training_config(config: Config, snapshot: Snapshot) -> Config:
    """Return the configuration of a dataset with the sections of the build as they were for the snapshot."""
    return config.model_copy(update={section: getattr(snapshot.config, section) for section in OF_BUILD})


def portable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration as a model keeps it: without the paths of the machine that trained it.

    `train` keeps the last part of a path to a model YAML or to weights.
    """
    kept = {key: value for key, value in values.items() if key != "store"}
    source = {key: value for key, value in values.get("source", {}).items() if key not in _PATHS}
    if isinstance(split := source.get("split"), dict) and "train" in split:
        del source["split"]
    if ":" in source.get("format", ""):
        source["format"] = last_part(source["format"])
    return {**kept, "source": source, "train": portable_train(values["train"])}


def portable_train(train: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section `train` with the last part of each path in it."""
    return {**train, **{key: last_part(train[key]) for key in ("model", "weights") if key in train}}


def last_part(path: str) -> str:
    """Return what a path or URI ends in."""
    return path.rstrip("/").rpartition("/")[2]


def changed_sections(config: Config, snapshot: Snapshot) -> list[str]:
    """Return the sections of the build that are not as they were for the snapshot; they take effect in the next one."""
    return [section for section in OF_BUILD if getattr(config, section) != getattr(snapshot.config, section)]


def check_overrides(keys: Iterable[str]) -> None:
    """Raise ConfigError for a setting, by dotted key, that has no effect on a training."""
    for key in keys:
        section = key.partition(".")[0]
        if section in OF_BUILD:
            expected = (
                "a setting that training can change: a snapshot fixes those of its build. Make a trial with "
                f"`speck build CONFIG --set {key}=VALUE` and train on it with --snapshot"
            )
            raise ConfigError("speck train", "--set", key, expected)
        if section in Config.model_fields and section not in _OF_TRAINING:
            expected = f"a setting that acts in training: one of {' or '.join(_OF_TRAINING[2:])}"
            raise ConfigError("speck train", "--set", key, expected)
