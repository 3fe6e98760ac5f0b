"""Images a second of a training from shards beside Ultralytics' own training on the exported folder, cached in RAM."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from etl.config import load
from etl.snapshots.export import export
from etl.snapshots.snapshot import Snapshot
from tests.gpu.record import Record
from tests.gpu.utilisation import Utilisation
from train import compat
from train.engine.run import prepare_run
from train.engine.spec import TrainingSpec
from train.engine.trainer import Trainer

compat.install()

from ultralytics.models.yolo.detect import DetectionTrainer  # noqa: E402 - after compat.install()

SAME = ("imgsz", "epochs", "batch", "nbs", "seed", "amp")  # arguments that both trainers share
# Neither side changes the geometry of an image, and neither validates before its end.
COMMON = {"mosaic": 0.0, "scale": 0.0, "translate": 0.0, "close_mosaic": 0, "val": False, "plots": False}


@dataclass(frozen=True)
class Size:
    """The network, the batch, the epochs of one training, and the batches before its first rate is taken."""

    model: str
    batch: int
    epochs: int
    warmup: int  # more than the loaders fetch ahead
    pairs: int


FULL = Size("yolo26n", 64, 3, 33, 3)
QUICK = Size("yolo26n", 8, 2, 3, 1)


class Meter:
    """Takes the rates of a training from its callbacks: in the first epoch, and in the later ones."""

    def __init__(self, trainer: Any, warmup: int) -> None:
        self._warmup, self._start, self._images = warmup, 0.0, 0
        self._utilisation = Utilisation()
        self.first = self.later = 0.0  # images a second
        self.memory = 0.0  # GiB
        self.settings: dict[str, Any] = {}
        trainer.add_callback("on_train_start", self._note_settings)
        trainer.add_callback("on_train_batch_end", self._count)
        trainer.add_callback("on_train_epoch_end", self._end_epoch)

    @property
    def busy(self) -> float | None:
        """Share of the time of the later epochs in which the GPU computed."""
        return self._utilisation.share

    def _note_settings(self, trainer: Any) -> None:
        self.settings = {name: getattr(trainer.args, name) for name in SAME}
        self.settings["workers"] = trainer.train_loader.num_workers

    def _count(self, trainer: Any) -> None:
        self._images += trainer.batch_size
        if trainer.epoch == 0 and self._images == self._warmup * trainer.batch_size:
            self._restart()

    def _end_epoch(self, trainer: Any) -> None:
        if trainer.epoch == 0:
            self.first = self._restart()
            self._utilisation.__enter__()
        elif trainer.epoch + 1 == trainer.epochs:
            self.later = self._restart()
            self._utilisation.__exit__()
            self.memory = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0

    def _restart(self) -> float:
        """Return the images a second since the last call."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        rate = self._images / (now - self._start)
        self._start, self._images = now, 0
        return rate


class FolderTrainer(DetectionTrainer):  # type: ignore[misc]
    """Ultralytics' trainer without the table of results, which needs polars."""

    def read_results_csv(self) -> dict[str, list[Any]]:
        return {}


def run(record: Record) -> None:
    """The shards are no slower, and keep the GPU busy."""
    size = QUICK if record.quick else FULL
    data = record.load("large")
    config = load(data["config"], {"train.model": size.model, "train.batch": size.batch, "train.epochs": size.epochs})
    snapshot = Snapshot.open(data["snapshot"])
    spec = prepare_run(config, snapshot)
    record.fact("train tiles", len(spec.train))
    folder = record.work / "exported"
    export(snapshot, "yolo", folder, raw=True)
    meters: dict[str, list[Meter]] = defaultdict(list)
    device = spec.settings["device"]
    start = time.monotonic()
    for pair in range(size.pairs):
        if pair and (time.monotonic() - start) / pair * 1.1 > record.seconds_left:
            break
        ours = _shard_trainer(spec, record.work / f"shards-{pair}")
        meters["shards"].append(_train(ours, size))
        settings = {**meters["shards"][0].settings, "device": device}
        theirs = _folder_trainer(size, settings, folder / "data.yaml", record.work / f"folder-{pair}")
        meters["folder"].append(_train(theirs, size))
    record.fact("settings of both", meters["shards"][0].settings)
    record.fact("workers of the folder's loader", meters["folder"][0].settings["workers"])
    _report(record, meters)


def _train(trainer: Any, size: Size) -> Meter:
    meter = Meter(trainer, size.warmup)
    trainer.train()
    print(
        f"{type(trainer).__name__}: {meter.first:.1f}, then {meter.later:.1f} images/s, busy {meter.busy}", flush=True
    )
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    return meter


def _shard_trainer(spec: TrainingSpec, out: Path) -> Trainer:
    return Trainer(replace(spec, settings={**spec.settings, **COMMON}), out, str(out / "state"))


def _folder_trainer(size: Size, settings: Mapping[str, Any], data: Path, out: Path) -> FolderTrainer:
    """Return Ultralytics' trainer of the same network with the same settings."""
    overrides = {"model": f"{size.model}.yaml", "data": str(data), "cache": "ram", "pretrained": False}
    return FolderTrainer(overrides={**overrides, "save_dir": str(out), "verbose": False, **settings, **COMMON})


def _report(record: Record, meters: Mapping[str, list[Meter]]) -> None:
    for name, measured in meters.items():
        record.figure(f"{name}: images/s in the first epoch", statistics.median(meter.first for meter in measured))
        record.figure(f"{name}: images/s", statistics.median(meter.later for meter in measured))
        record.figure(f"{name}: peak GPU memory", max(meter.memory for meter in measured), "GiB")
        busy = [meter.busy for meter in measured if meter.busy is not None]
        if not busy:
            record.skip(f"{name}: GPU busy", "nvidia-ml-py is not installed" if record.gpu else "no GPU")
        elif name == "shards":
            record.figure(f"{name}: GPU busy", statistics.median(busy), at_least=0.9)
        else:
            record.figure(f"{name}: GPU busy", statistics.median(busy))
    pairs = list(zip(meters["shards"], meters["folder"], strict=True))
    record.fact("pairs", [round(ours.later / theirs.later, 3) for ours, theirs in pairs])
    record.figure("shards / folder, first epoch", statistics.median(a.first / b.first for a, b in pairs))
    record.figure("shards / folder", statistics.median(a.later / b.later for a, b in pairs), at_least=1.0)
