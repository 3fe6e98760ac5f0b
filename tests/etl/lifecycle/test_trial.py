"""Trial builds with other settings or fewer images, and full builds."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from etl.config import changes, load
from etl.errors import ConfigError
from etl.execution import cluster
from etl.jobs import build as jobs
from etl.lifecycle import retention, trial
from etl.snapshots import snapshot
from etl.storage import store


@pytest.fixture
def file(dataset, tmp_path: Path) -> Path:
    path = tmp_path / "grown.yaml"
    path.write_text(yaml.safe_dump(dataset.config(tmp_path / "store").resolved()))
    return path


def build(config, **options):
    with cluster.serial() as here:
        return jobs.build(config, here, **options).to_dict()


def test_without_changes_the_configuration_is_that_of_the_file(file: Path) -> None:
    assert trial.load_trial_config(file, {}) == load(file)


def test_a_trial_is_stored_separately_and_does_not_change_the_dataset(file: Path) -> None:
    config = load(file)
    build(config)
    before = snapshot.head(config)
    answer = build(trial.load_trial_config(file, {"tile.size": 96, "source.sample": 4}))
    assert answer["images"] == 4
    assert answer["snapshot"].startswith(f"{config.home}/trials/")
    assert snapshot.Snapshot.open(answer["snapshot"]).plan.tile.size == 96
    assert (snapshot.head(config), len(snapshot.history(config.home))) == (before, 1)


def test_a_larger_sample_contains_the_images_of_a_smaller_one(file: Path) -> None:
    def names(number: int) -> set[str]:
        answer = build(trial.load_trial_config(file, {"source.sample": number}))
        return set(snapshot.Snapshot.open(answer["snapshot"]).table("images")["path"].to_pylist())

    assert names(3) < names(6)


def test_a_sample_larger_than_the_source_uses_all_images(file: Path) -> None:
    assert build(trial.load_trial_config(file, {"source.sample": 1000}))["images"] == 10


def test_a_full_build_uses_no_cache_and_gives_the_same_snapshot(file: Path) -> None:
    config = load(file)
    first, again, full = build(config), build(config), build(config, full=True)
    assert (first["reused_samples"], again["reused_samples"] > 0, full["reused_samples"]) == (0, True, 0)
    assert full["snapshot"] == first["snapshot"]
    assert not full["published"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tile.size=800", {"tile.size": 800}),
        ("tile.size=auto", {"tile.size": "auto"}),
        ("train.max_seconds=null", {"train.max_seconds": None}),
        ("ontology.drop=[0, no, 1.50]", {"ontology.drop": ["0", "no", "1.50"]}),
        ("ontology.min_side=2", {"ontology.min_side": 2}),
        ("ontology={drop: [no], min_side: 2}", {"ontology": {"drop": ["no"], "min_side": 2}}),
    ],
)
def test_a_change_is_parsed_as_yaml(text: str, expected: dict) -> None:
    assert changes([text]) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tile.size", "found 'tile.size', expected KEY=VALUE"),
        ("tile.sizes=3", "tile.sizes: found an unknown key"),
        ("tile.size=[", "a value in YAML"),
        ("name.first=a", "a section of settings"),
        ("source.sample=0", "source.sample: found 0"),
    ],
)
def test_the_error_of_an_invalid_change_names_its_key(file: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(file, changes([text]))
    assert message in str(caught.value)


def test_gc_removes_trials(file: Path) -> None:
    config = load(file)
    build(config)
    answer = build(trial.load_trial_config(file, {"source.sample": 4}))
    assert retention.collect_garbage(config)["removed"]["trials"] == 1
    assert not store.exists(answer["snapshot"])
    assert store.exists(snapshot.head(config))
