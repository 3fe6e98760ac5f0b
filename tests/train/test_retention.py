"""`speck gc` at every stage of a training and an evaluation on a snapshot that is older than those to keep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etl.config import Config, load
from etl.jobs import build
from etl.lifecycle import champion, retention
from etl.snapshots.snapshot import Snapshot
from etl.snapshots.verify import verify
from etl.storage import store
from tests.train.evaluation.random_model import save_random_model

pytest.importorskip("torch")

from train.engine import checkpoint, run as training
from train.evaluation import run as evaluation
from train.models import model as models

RETENTION = "retention: {snapshots: 1, models: 1}\n"


@pytest.fixture
def grown(tiny: Any, tmp_path: Path) -> tuple[Config, list[Snapshot]]:
    """A dataset with three snapshots of which one is to be kept."""
    file = tmp_path / "tiny.yaml"
    file.write_text(tiny.config(tmp_path / "store", tmp_path / "data", "0 2 * * *", RETENTION))
    config, snapshots = load(file), []
    for sites in ("abcdefgh", "abcdefghi", "abcdefghij"):
        tiny.write(tmp_path / "data", sites)
        snapshots.append(Snapshot.open(build.build(config).snapshot))
    return config, snapshots


class Collector:
    """Collects garbage before and after each call of functions, and checks that the snapshot stays whole."""

    def __init__(self, config: Config, snapshot: Snapshot, patch: pytest.MonkeyPatch) -> None:
        self.config, self.snapshot, self._patch = config, snapshot, patch
        self.stages: list[str] = []

    def watch(self, module: Any, name: str, *, before: bool = True) -> None:
        """Collect garbage around every call of a function of a module."""
        original: Callable[..., Any] = getattr(module, name)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            if before:
                self._collect(f"before {name}")
            result = original(*arguments, **options)
            self._collect(f"after {name}")
            return result

        self._patch.setattr(module, name, wrapped)

    def _collect(self, stage: str) -> None:
        retention.collect_garbage(self.config)
        assert verify(self.snapshot)["bad"] == [], stage
        self.stages.append(stage)


def kept(config: Config) -> set[str]:
    """The ids of the snapshots that are there."""
    return {path.parent.name for path in Path(config.home, "snapshots").glob("*/manifest.json")}


def test_a_training_keeps_what_it_needs_at_every_stage(
    grown: tuple[Config, list[Snapshot]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, (old, _, newest) = grown
    with monkeypatch.context() as patch:
        collector = Collector(config, old, patch)
        collector.watch(checkpoint, "mark_started", before=False)
        collector.watch(checkpoint, "save_state")
        collector.watch(training, "save_model")
        collector.watch(models, "_yaml")  # between the weights and model.json
        collector.watch(checkpoint, "delete_state")
        model = training.train(config, old)["model"]
    assert {stage.partition(" ")[2] for stage in collector.stages} == {
        "mark_started", "save_state", "save_model", "_yaml", "delete_state",
    }  # fmt: skip
    retention.collect_garbage(config)
    assert kept(config) == {old.id, newest.id}  # of the newest model
    assert models.load_saved_model(model).id == model.rpartition("/")[2]
    assert not list(Path(config.home).glob("runs/*/run.json"))


def test_an_evaluation_of_the_newest_model_keeps_what_it_needs_at_every_stage(
    grown: tuple[Config, list[Snapshot]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, (old, _, newest) = grown
    model = save_random_model(config, old, image_size=128)
    with monkeypatch.context() as patch:
        collector = Collector(config, old, patch)
        for name in ("_choose_detector", "detect_and_choose", "evaluate_detections", "_write", "_save_choices"):
            collector.watch(evaluation, name)
        collector.watch(evaluation.promotion, "promote_if_passed")
        result = evaluation.evaluate(config, old, model, promote=True)
    assert len(collector.stages) == 12
    assert result.gate is not None
    assert store.exists(f"{model}/evaluation.json") and store.exists(f"{model}/weights.safetensors")
    assert champion.current_champion(config.home) in (None, model.rpartition("/")[2])
    retention.collect_garbage(config)
    assert kept(config) == {old.id, newest.id}
