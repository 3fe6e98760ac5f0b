"""Ultralytics' trainer on shards: samples by offset, a time budget to the step, and a run that can be gone on with."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from etl import boxes
from etl.config import Loss
from etl.errors import ConfigError, SpeckError
from etl.snapshots.samples import ShardReader
from train import compat
from train.engine import checkpoint, tracking
from train.engine.dataset import ShardDataset
from train.engine.sampler import EpochSampler, rarity
from train.models import model, weights
from train.models.architecture import Architecture
from train.models.losses import balanced

compat.install()

from ultralytics.data.build import InfiniteDataLoader, seed_worker  # noqa: E402 - after the operators are there
from ultralytics.models.yolo.detect import DetectionTrainer  # noqa: E402

log = logging.getLogger("speck")

_PROGRESS_SECONDS = 10.0
_VALIDATION_SHARE = 0.1  # of the run's time
_WARMUP_SHARE = 0.05  # of a time budget, at most
_WHOLE = ("best_epoch", "_validated", "_steps")
_NUMBERS = (*_WHOLE, "_validating", "best_fitness", "fitness")  # of the trainer, that the next epoch depends on


@dataclass(frozen=True)
class Run:
    """Everything one training run needs, read and checked."""

    dataset: str  # its name
    train: pa.Table  # samples
    val: pa.Table
    home: str  # of the snapshot's shards
    categories: tuple[str, ...]
    architecture: Architecture
    weights: str | None
    image_size: int
    tile_size: int
    epochs: int
    budget: float | None  # seconds, if the run may end before its epochs do
    settings: dict[str, Any]  # of the Ultralytics trainer
    warmup_epochs: float
    nms_free: bool
    loss: Loss
    weighted: bool  # samples of rare categories and sizes more often

    @property
    def scale(self) -> float:
        """Network pixels per sample pixel."""
        return self.image_size / self.tile_size


def rate(spent: float, warmth: float, *, final: float, cosine: bool) -> float:
    """Return the share of the learning rate when this share of the budget is spent: up with warmth, down to `final`."""
    spent = min(spent, 1.0)
    fall = (1 + math.cos(math.pi * spent)) / 2 if cosine else 1 - spent
    return min(warmth, 1.0) * (final + (1 - final) * fall)


class Trainer(DetectionTrainer):
    """Ultralytics' trainer on shards: the best weights in memory, the state after each epoch at `kept`."""

    def __init__(self, run: Run, folder: Path, kept: str) -> None:
        self.run = run
        self._kept = kept
        self._state = checkpoint.read(kept)
        self.best_epoch = 0
        self._best: dict[str, torch.Tensor] = {}
        self._validated = -1  # epoch
        self._validating = 0.0  # seconds
        self._progress = 0.0  # when last reported
        self._steps = 0
        self._batch = 0  # of the epoch, from 1
        self.before = 0.0  # seconds of the run before it was killed
        self._sampler: EpochSampler | None = None
        self._trackers: list[tracking.Tracker] = []
        settings = {
            **run.settings, "warmup_epochs": 0.0 if run.budget else run.warmup_epochs, "model": "speck.yaml",
            "data": "speck.yaml", "save_dir": str(folder), "plots": False, "verbose": False, "task": "detect",
        }  # fmt: skip
        if self._state is not None:
            settings["batch"] = self._state["batch"]  # it may have been halved for want of memory
        threads = torch.get_num_threads()
        try:
            super().__init__(overrides=settings)
        except ValueError as error:  # an impossible device, in many words
            raise ConfigError("the training", "train.device", repr(settings["device"]), str(error).strip()) from error
        torch.set_num_threads(threads)  # Ultralytics leaves one core idle, on a small machine half of them
        self.model: Any = model.build(run.architecture, run.categories)
        if run.weights is not None:
            log.info("%d tensors taken from %s", weights.load_weights(self.model, run.weights), run.weights)
        self.model.loss_settings = run.loss
        self.model.to(memory_format=torch.channels_last)  # 1.5 times as fast, on CPUs too
        self.add_callback("on_train_start", Trainer._count_time_before)
        self.add_callback("on_train_epoch_start", Trainer._start_epoch)
        self.add_callback("on_train_batch_start", Trainer._start_batch)
        self.add_callback("on_train_batch_end", Trainer._step_when_due)
        self.add_callback("on_train_batch_end", Trainer._report_step)
        self.add_callback("on_fit_epoch_end", Trainer._stop_in_time)
        self.add_callback("on_fit_epoch_end", Trainer._keep)
        self.add_callback("on_val_batch_end", _report_validation(self))
        self.add_callback("on_train_start", Trainer._start_tracking)
        self.add_callback("on_train_epoch_end", Trainer._write_losses)
        self.add_callback("teardown", Trainer._end_tracking)

    def _start_tracking(self) -> None:
        self._trackers = tracking.trackers(self._kept, self.run.dataset, self.run.settings, self.start_epoch)

    def _write_losses(self) -> None:
        self._write({**self.label_loss_items(self.tloss, "train"), **self.lr})

    def _write(self, scalars: Mapping[str, Any]) -> None:
        for tracker in self._trackers:
            tracker.write({name: float(value) for name, value in scalars.items()}, self.epoch + 1)

    def _end_tracking(self) -> None:
        for tracker in self._trackers:
            tracker.close(finished=bool(self.stop))

    def get_dataset(self) -> dict[str, Any]:
        """Return the names of the splits, which `build_dataset` knows."""
        names = dict(enumerate(self.run.categories))
        return {"train": "train", "val": "val", "nc": len(names), "names": names, "channels": 3}

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> ShardDataset:
        """Return the dataset of a split."""
        return ShardDataset(
            self.run.train if mode == "train" else self.run.val, ShardReader(self.run.home), self.run.categories,
            scale=self.run.scale, imgsz=self.args.imgsz, batch_size=batch, augment=mode == "train", hyp=self.args,
            prefix=f"{mode}: ", stride=32,
        )  # fmt: skip

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """Return a loader whose order is a function of seed and epoch; Ultralytics' own to validate."""
        if mode != "train":
            return super().get_dataloader(dataset_path, batch_size, rank, mode)
        dataset = self.build_dataset(dataset_path, mode, batch_size)
        self._sampler = EpochSampler(
            len(dataset), self.args.seed, weights=_weights(dataset) if self.run.weighted else None
        )
        self._sampler.set_epoch(self.start_epoch)
        batch = min(batch_size, len(dataset))
        workers = min(os.cpu_count() or 1, self.args.workers, len(dataset) // batch if len(dataset) > batch else 0)
        return InfiniteDataLoader(
            dataset=dataset, batch_size=batch, sampler=self._sampler, num_workers=workers,
            prefetch_factor=4 if workers else None, pin_memory=self.device.type == "cuda",
            collate_fn=dataset.collate_fn, worker_init_fn=seed_worker,
        )  # fmt: skip

    def resume_training(self, ckpt: Any) -> None:
        """Go on with what an earlier process of this run left; nothing happens where there is none."""
        state, self._state = self._state, None
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        self.ema.ema.load_state_dict(state["ema"])
        self.ema.updates = state["updates"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.stopper.__dict__.update(state["stopper"])
        for name, value in state["numbers"].items():
            setattr(self, name, value)
        self._best = state["best"]
        self.metrics = state["metrics"]
        self.start_epoch = state["epoch"] + 1
        self.epochs = self.args.epochs = state["epochs"]
        if getattr(self.model.model[-1], "one2one_cv2", None) is not None:  # its two losses change with the epochs
            self.model.criterion = self.model.init_criterion()
            self.model.criterion.updates = self.start_epoch - 1
            self.model.criterion.update()
        if self._sampler is not None:
            self._sampler.set_epoch(self.start_epoch)
        log.info("going on after epoch %d of an earlier try", self.start_epoch)

    def was_finished(self) -> bool:
        """Return whether an earlier try trained to the end and could not save its model; its weights are then here."""
        state = self._state
        if state is None or not state["done"] or not state["best"]:
            return False
        self.epoch, self._best = state["epoch"], state["best"]
        self.best_epoch, self.before = state["numbers"]["best_epoch"], state["numbers"]["before"]
        log.info("an earlier try trained all %d epochs", self.epoch + 1)
        return True

    def _keep(self) -> None:
        """Keep all that the next epoch depends on."""
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        numbers["before"] = time.time() - self.train_time_start
        state = {
            "epoch": self.epoch,
            "epochs": self.epochs,  # as many as the budget is thought to allow
            "done": bool(self.stop),
            "batch": self.batch_size,
            "model": self.model.state_dict(),
            "ema": self.ema.ema.state_dict(),
            "updates": self.ema.updates,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "stopper": {name: getattr(self.stopper, name) for name in ("best_fitness", "best_epoch", "possible_stop")},
            "best": self._best,
            "metrics": {name: float(value) for name, value in self.metrics.items()},
            "numbers": {name: None if value is None else float(value) for name, value in numbers.items()},
        }
        for name in _WHOLE:
            state["numbers"][name] = int(state["numbers"][name])
        checkpoint.write(self._kept, state)

    def _count_time_before(self) -> None:
        self.train_time_start -= self.before

    def _start_epoch(self) -> None:
        self.start_epoch = 0  # from here on Ultralytics only reckons the mean time of an epoch by it
        self._batch = 0

    def _start_batch(self) -> None:
        self._batch += 1
        self._set_rates()

    def optimizer_step(self) -> None:
        """Do nothing: Ultralytics counts batches from the first of the process, whatever was before it."""

    def _step_when_due(self) -> None:
        """Step when an epoch's batches are spread evenly over its steps: the last step is at its end, and no smaller.

        Ultralytics clips the gradient, so that a step of one batch left over would be as long as one of many.
        """
        batches = len(self.train_loader)
        steps = math.ceil(batches / self.accumulate)
        if self._batch * steps // batches > (self._batch - 1) * steps // batches:
            super().optimizer_step()

    def _close_dataloader_mosaic(self) -> None:
        super()._close_dataloader_mosaic()
        assert self._sampler is not None
        self._sampler.set_epoch(self.epoch)  # the loader starts anew, and had gone ahead

    def compute_class_weights(self, class_counts: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return how much each category's scores count; Ultralytics brings their mean to 1."""
        if self.run.loss.class_weights == "none":  # then it is train.options.cls_pw that asks for weights
            weights: NDArray[np.float32] = super().compute_class_weights(class_counts)
            return weights
        return balanced(class_counts)

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch on the device, pixels in [0, 1], in the model's memory format."""
        batch = super().preprocess_batch(batch)
        batch["img"] = batch["img"].contiguous(memory_format=torch.channels_last)
        return batch

    def validate(self) -> tuple[dict[str, float], float | None]:
        """Return metrics and fitness, of an earlier epoch while validating has had its share of the run's time."""
        elapsed = time.time() - self.train_time_start
        last = self.stop or self.epoch + 1 >= self.epochs
        if self._validating > _VALIDATION_SHARE * elapsed and not last:
            return self.metrics, self.fitness
        start = time.time()
        metrics, fitness = super().validate()
        self._validating += time.time() - start
        self._validated = self.epoch
        log.info(
            "epoch %d: AP50 %.3f, AP %.3f on %d tiles", self.epoch + 1, metrics["metrics/mAP50(B)"],
            metrics["metrics/mAP50-95(B)"], len(self.run.val),
        )  # fmt: skip
        self._write(metrics)
        return metrics, fitness

    def save_model(self) -> bool:
        """Keep the averaged weights if this epoch's validation was the best so far; no file is written."""
        if self._validated == self.epoch and self.fitness == self.best_fitness:
            self.best_epoch = self.epoch + 1
            self._best = {name: value.detach().cpu().clone() for name, value in self.ema.ema.state_dict().items()}
        return False

    def save_metrics(self, metrics: Mapping[str, float]) -> None:
        """Write no file: the log has the figures."""

    def final_eval(self) -> None:
        """Validate the last epoch if its turn had not come."""
        if self._validated != self.epoch:
            self.stop = True
            self.metrics, self.fitness = self.validate()
            self.save_model()

    def best_module(self) -> torch.nn.Module:
        """Return the detector with the best weights."""
        module: torch.nn.Module = self.model if self.ema is None else self.ema.ema
        module.load_state_dict(self._best)
        return module

    def _handle_nan_recovery(self, epoch: int) -> bool:
        if self.loss is not None and not self.loss.isfinite():
            raise SpeckError(f"the loss is {self.loss.item()} in epoch {epoch + 1}: try a lower train.options.lr0")
        return False

    def _set_rates(self) -> None:
        """Set this step's learning rates by the share of the budget spent; without a budget Ultralytics sets them."""
        budget = self.run.budget
        if budget is None:
            return
        seconds = (time.time() - self.train_time_start) / budget
        spent = max(seconds, self._steps / (self.run.epochs * len(self.train_loader)))
        warm_steps = self.run.warmup_epochs * len(self.train_loader)
        warmth = max((self._steps + 1) / max(warm_steps, 1), spent / _WARMUP_SHARE)
        share = rate(spent, warmth, final=self.args.lrf, cosine=self.args.cos_lr)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * share

    def _stop_in_time(self) -> None:
        """End a run with a budget at its last epoch; Ultralytics reckons anew after each how many fit the time.

        By the epochs left it closes the mosaic, and shifts an NMS-free detector's weight from one loss to the other.
        """
        if self.run.budget is not None:
            self.epochs = self.args.epochs = min(self.epochs, self.run.epochs)
            self.stop |= self.epoch + 1 >= self.run.epochs

    def _report_step(self) -> None:
        self._steps += 1
        now = time.time()
        if now - self._progress < _PROGRESS_SECONDS:
            return
        self._progress = now
        elapsed = now - self.train_time_start
        steps = len(self.train_loader)
        pace = elapsed / self._steps
        left = pace * (steps * self.run.epochs - self._steps)
        left = left if self.run.budget is None else min(left, self.run.budget - elapsed)
        log.info(
            "epoch %d, step %d of %d, loss %.3f, %.0f s left", self.epoch + 1, (self._steps - 1) % steps + 1, steps,
            float(sum(self.tloss.values())), max(left, 0.0),
        )  # fmt: skip


def _report_validation(trainer: Trainer) -> Any:
    """Return a callback that keeps the log alive through a long validation."""

    def report(validator: Any) -> None:
        now = time.time()
        if now - trainer._progress >= _PROGRESS_SECONDS:
            trainer._progress = now
            log.info("validating: %d of %d batches", validator.batch_i + 1, len(validator.dataloader))

    return report


def _weights(dataset: ShardDataset) -> Any:
    """Return how often each sample is drawn beside others, by its categories and the sizes of its boxes."""
    labels = []
    for label in dataset.labels:
        sizes = boxes.bucket(np.sqrt(label["bboxes"].prod(axis=1)) * dataset.imgsz)
        labels.append(np.concatenate([label["cls"][:, 0].astype(np.int64) + len(boxes.BUCKETS), sizes]))
    return rarity(labels)
