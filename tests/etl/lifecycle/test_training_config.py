"""Settings of the build are those of the snapshot; an override that training cannot act on is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from etl.config import Config
from etl.errors import ConfigError
from etl.lifecycle.training_config import changed_sections, check_overrides, training_config
from etl.snapshots.snapshot import Snapshot


@pytest.mark.parametrize(
    "key",
    ["source.sample", "ontology.drop", "tile.size", "augment.copies", "shard.quality", "anchors.per_level", "anchors"],
)
def test_a_setting_of_the_build_is_refused_with_the_command_that_builds_a_trial(key: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_overrides(["train.batch", key])
    assert error.value.exit_code == 2
    assert f"found {key}, expected a setting that training can change" in str(error.value)
    assert f"`speck build CONFIG --set {key}=VALUE`" in str(error.value)


@pytest.mark.parametrize("key", ["gate.metric", "retrain.min_change", "schedule.cron", "cluster.workers"])
def test_a_setting_of_another_command_is_refused(key: str) -> None:
    with pytest.raises(
        ConfigError, match=f"found {key}, expected a setting that acts in training: one of train or eval"
    ):
        check_overrides([key])


def test_every_section_is_either_refused_or_acts() -> None:
    accepted = []
    for section in Config.model_fields:
        try:
            check_overrides([f"{section}.x"])
        except ConfigError:
            continue
        accepted.append(section)
    assert accepted == ["name", "store", "train", "evaluate"]


def test_a_training_takes_the_sections_of_the_build_from_its_snapshot(dataset: Any, tmp_path: Path) -> None:
    built = dataset.config(tmp_path / "store", anchors={"per_level": 2})
    snapshot = Snapshot.open(dataset.build(built)["snapshot"])
    values = {"tile": {"size": 96}, "augment": {"copies": 0}, "train": {"batch": 4}, "gate": {"metric": "AP"}}
    settings = training_config(dataset.config(tmp_path / "store", **values), snapshot)
    assert (settings.tile, settings.augment, settings.anchors) == (built.tile, built.augment, built.anchors)
    assert (settings.source, settings.shard, settings.ontology) == (built.source, built.shard, built.ontology)
    assert changed_sections(settings, snapshot) == changed_sections(built, snapshot) == []
    assert changed_sections(dataset.config(tmp_path / "store", **values), snapshot) == ["tile", "augment", "anchors"]
    assert (settings.train.batch, settings.gate.metric, settings.store) == (4, "AP", built.store)
