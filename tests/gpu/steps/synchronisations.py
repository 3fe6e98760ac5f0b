"""How often a training step waits for the GPU."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from etl.config import load
from etl.snapshots.snapshot import Snapshot
from tests.gpu.record import Record, SkippedError
from train.engine.run import prepare_run
from train.engine.trainer import Trainer

MODELS = ("yolo26n", "yolo26n-anchors")


def run(record: Record) -> None:
    """Count the synchronising operations of an epoch; for information."""
    if not record.gpu:
        raise SkippedError("no GPU")
    data = record.load("small")
    snapshot = Snapshot.open(data["snapshot"])
    for model in MODELS:
        config = load(data["config"], {"train.model": model, "train.epochs": 1, "train.batch": 16})
        folder = record.work / f"synchronisations-{model}"
        trainer = Trainer(prepare_run(config, snapshot), folder, str(folder / "state"))
        steps = 0

        def start(_: Any) -> None:
            torch.cuda.set_sync_debug_mode("warn")

        def count(_: Any) -> None:
            nonlocal steps
            steps += 1

        def stop(_: Any) -> None:
            torch.cuda.set_sync_debug_mode("default")

        trainer.add_callback("on_train_epoch_start", start)
        trainer.add_callback("on_train_batch_end", count)
        trainer.add_callback("on_train_epoch_end", stop)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer.train()
        waits = [warning for warning in caught if "called a synchronizing" in str(warning.message)]
        places = [f"{warning.filename.rsplit('/', 1)[-1]}:{warning.lineno}" for warning in waits]
        record.figure(f"{model}: synchronisations per step", len(places) / max(steps, 1))
        often = sorted({place: places.count(place) for place in places}.items(), key=lambda item: -item[1])
        record.fact(f"{model}: where", dict(often[:12]))
