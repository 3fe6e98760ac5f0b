"""Ultralytics' trainer on a snapshot's shards, with resumable runs and a time budget that is kept to the step."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from etl.errors import SpeckError
from etl.numbers import count, count_of
from etl.snapshots.samples import ShardReader
from train import compat
from train.engine import checkpoint, clock, history, loading, tracking
from train.engine.batch import divide_step
from train.engine.dataset import ShardDataset
from train.engine.precision import computes_in_float16
from train.engine.sampler import EpochSampler
from train.engine.schedule import is_save_due, learning_rate_factor
from train.engine.spec import TrainingSpec
from train.models import model, weights
from train.models.half import decode_in_float32
from train.models.losses import class_balanced_weights

compat.install()
clock.install()

from ultralytics.models.yolo.detect import DetectionTrainer  # noqa: E402 - after compat.install()

log = logging.getLogger("speck")

_HALVED = "halved, because memory ran out"
_PROGRESS_SECONDS = 10.0
_VALIDATION_SHARE = 0.1  # of the run's time
_WARMUP_SHARE = 0.05  # of a time budget, at most
_COUNTERS = {"best_epoch": "best_epoch", "_validated": "_validated_epoch", "_steps": "batches"}
_NUMBERS = {  # name in the saved state: attribute of the trainer
    **_COUNTERS, "_validating": "_validation_seconds", "before": "seconds_before", "best_fitness": "best_fitness",
    "fitness": "fitness",
}  # fmt: skip


class Trainer(DetectionTrainer):
    """Ultralytics' trainer on shards; keeps the best weights in memory and saves its state at `run_uri`."""

    def __init__(self, spec: TrainingSpec, folder: Path, run_uri: str, *, seconds_before: float = 0.0) -> None:
        self.spec = spec
        self._created = time.monotonic()
        self._run_uri = run_uri
        self._state = checkpoint.load_state(run_uri)
        self._largest_batch = checkpoint.load_largest_batch(run_uri)
        self._batch_reason = spec.batch_reason
        self.precision = spec.precision
        self.best_epoch = 0
        self.history: list[history.EpochRow] = []
        self._best: dict[str, torch.Tensor] = {}
        self._validated_epoch = -1
        self._validation_seconds = 0.0
        self._last_report = -math.inf  # time
        self.batches = 0  # of all epochs
        self._batch = 0  # within the epoch, from 1
        self.seconds_before = seconds_before  # of the run until it was killed or its memory ran out
        self._sampler: EpochSampler | None = None
        self._trackers: list[tracking.Tracker] = []
        self._workers = 0  # processes that load samples
        self._last_saved = self._save_seconds = 0.0
        settings = {
            **spec.settings, "warmup_epochs": 0.0 if spec.budget else spec.warmup_epochs, "model": "speck.yaml",
            "data": "speck.yaml", "save_dir": str(folder), "plots": False, "verbose": False, "task": "detect",
        }  # fmt: skip
        if self._state is not None:
            settings["batch"], settings["nbs"] = self._state["batch"], self._state.get("nbs", settings["nbs"])
            self._state["numbers"]["before"] = max(self._state["numbers"]["before"], seconds_before)
        if self._largest_batch is not None and settings["batch"] >= self._largest_batch:  # equal: it was halved before
            settings["nbs"] = max(settings["nbs"], settings["batch"])  # a step keeps its samples, the run its optimizer
            settings["batch"] = self._largest_batch
            self._batch_reason = _HALVED
        threads = torch.get_num_threads()
        super().__init__(overrides=settings)
        torch.set_num_threads(threads)  # Ultralytics leaves one core idle
        self.model: Any = model.build_detector(spec.architecture, spec.categories)
        if spec.weights is not None:
            log.info("loaded %d tensors from %s", weights.load_weights(self.model, spec.weights), spec.weights)
        decode_in_float32(self.model)  # the validation on a GPU computes in float16
        self.model.loss_settings = spec.loss
        self.model.to(memory_format=torch.channels_last)  # 1.5 times as fast, also on CPUs
        self.add_callback("on_train_start", Trainer._count_time_before)
        self.add_callback("on_train_start", Trainer._log_batch)
        self.add_callback("on_train_epoch_start", Trainer._start_epoch)
        self.add_callback("on_train_batch_start", Trainer._start_batch)
        self.add_callback("on_train_batch_end", Trainer._step_when_due)
        self.add_callback("on_train_batch_end", Trainer._report_step)
        self.add_callback("on_fit_epoch_end", Trainer._keep_epoch_count)
        self.add_callback("on_fit_epoch_end", Trainer._save_state)
        self.add_callback("on_val_batch_end", _validation_reporter(self))
        self.add_callback("on_train_start", Trainer._start_trackers)
        self.add_callback("on_train_epoch_end", Trainer._track_losses)
        self.add_callback("teardown", Trainer._close_trackers)

    def _start_trackers(self) -> None:
        self._trackers = tracking.start_trackers(self._run_uri, self.spec.dataset, self.spec.settings, self.start_epoch)

    def _track_losses(self) -> None:
        losses = self.label_loss_items(self.tloss, "train")
        self._track({**losses, **self.lr})
        history.add_losses(
            self.history, self.epoch + 1, {name.removeprefix("train/"): value for name, value in losses.items()}
        )

    def _track(self, scalars: Mapping[str, Any]) -> None:
        for tracker in self._trackers:
            tracker.write({name: float(value) for name, value in scalars.items()}, self.epoch + 1)

    def _close_trackers(self) -> None:
        for tracker in self._trackers:
            tracker.close(finished=bool(self.stop))

    @property
    def seconds(self) -> float:
        """Duration of the run so far, with the time before it was killed or its memory ran out."""
        return time.monotonic() - self._created + self.seconds_before

    @property
    def _is_on_gpu(self) -> bool:
        return bool(self.device.type == "cuda")

    def get_dataset(self) -> dict[str, Any]:
        """Return the split names; `build_dataset` resolves them."""
        names = dict(enumerate(self.spec.categories))
        return {"train": "train", "val": "val", "nc": len(names), "names": names, "channels": 3}

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> ShardDataset:
        """Return the dataset of a split."""
        training = mode == "train"
        return ShardDataset(
            self.spec.train if training else self.spec.val, ShardReader(self.spec.home), self.spec.categories,
            scale=self.spec.scale, imgsz=self.args.imgsz, batch_size=batch, augment=training, hyp=self.args,
            prefix=f"{mode}: ", stride=32, cache_bytes=loading.cache_bytes() if training and self._is_on_gpu else 0,
        )  # fmt: skip

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """Return a loader; the order of the training samples is a function of seed and epoch."""
        dataset = self.build_dataset(dataset_path, mode, batch_size)
        if mode != "train":
            return loading.validation_loader(dataset, batch_size, self._workers, self.device)
        self._workers = self.args.workers  # 0 on a CPU
        if self._is_on_gpu:
            if "workers" not in self.spec.settings:
                self._workers = loading.choose_workers(min(batch_size, len(dataset)) * 3 * self.args.imgsz**2)
            log.info(
                "samples: loaded in %s; %s of %s are kept in memory once decoded",
                count_of(self._workers, "process"), count(dataset.sample_cache.samples), count(len(dataset)),
            )  # fmt: skip
        rarity = loading.sampling_weights(dataset) if self.spec.weighted else None
        self._sampler = EpochSampler(len(dataset), self.args.seed, weights=rarity)
        self._sampler.set_epoch(self.start_epoch)
        return loading.training_loader(dataset, self._sampler, batch_size, self._workers, pinned=self._is_on_gpu)

    def auto_batch(self) -> int:
        """Return the batch for `train.batch: auto` on a GPU and set the samples per optimizer step to a multiple."""
        fits = super().auto_batch()
        largest = min(fits, self._largest_batch or fits)
        batch, batches = divide_step(self.args.nbs, largest)
        if batches > 1:
            self._batch_reason = "as large as the GPU's memory allows" if largest == fits else _HALVED
        self.args.nbs = batch * batches
        return batch

    def resume_training(self, ckpt: Any) -> None:
        """Resume from the saved state of this run, if there is one."""
        self._use_float16()
        state, self._state = self._state, None
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        self.ema.ema.load_state_dict(state["ema"])
        self.ema.updates = state["updates"]
        for saved, new in zip(state["optimizer"]["param_groups"], self.optimizer.param_groups, strict=True):
            saved["fused"] = new.get("fused")  # it depends on this device, not on that of the saved state
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # of a training in float16
            self.scaler.load_state_dict(state["scaler"])
        self.stopper.__dict__.update(state["stopper"])
        for name, value in state["numbers"].items():
            setattr(self, _NUMBERS[name], value)
        self._best = state["best"]
        self.metrics = state["metrics"]
        self.history = list(state.get("history", []))
        self.start_epoch = state["epoch"] + 1
        self.batches = self.start_epoch * len(self.train_loader)  # the batches may be smaller than those of the state
        self.epochs = self.args.epochs = state["epochs"]
        if getattr(self.model.model[-1], "one2one_cv2", None) is not None:  # its loss weights depend on the epoch
            self.model.criterion = self.model.init_criterion()
            self.model.criterion.updates = self.start_epoch - 1
            self.model.criterion.update()
        if self._sampler is not None:
            self._sampler.set_epoch(self.start_epoch)
        log.info("resuming after epoch %d", self.start_epoch)

    def _use_float16(self) -> None:
        """Train in float16 if the run asks for it; Ultralytics' own switch downloads a model to test the GPU with."""
        if self.spec.precision != "fp16":
            return
        if not computes_in_float16(self.model, self.device):
            log.warning("training in float32: this GPU does not compute in float16 correctly")
            self.precision = "fp32"
            return
        self.amp = True
        self.scaler = torch.amp.GradScaler(self.device.type)

    def restore_finished(self) -> bool:
        """Return whether all epochs were trained before; if so, restore the best weights, so that they can be saved."""
        state = self._state
        if state is None or not state["done"] or not state["best"]:
            return False
        self.epoch, self._best = state["epoch"], state["best"]
        self.history, self.batches = list(state.get("history", [])), state["numbers"]["_steps"]
        self.best_epoch, self.seconds_before = state["numbers"]["best_epoch"], state["numbers"]["before"]
        log.info("nothing left to train after %s", count_of(self.epoch + 1, "epoch"))
        return True

    def _save_state(self) -> None:
        """Save everything that the next epoch depends on, unless that would take too much of the run's time."""
        start = time.monotonic()
        due = is_save_due(start - self._last_saved, self._save_seconds) or not self._is_on_gpu
        if not (due or self.stop):
            return
        numbers = {name: getattr(self, attribute) for name, attribute in _NUMBERS.items()}
        numbers["before"] = clock.now() - self.train_time_start
        state: checkpoint.TrainingState = {
            "epoch": self.epoch,
            "epochs": self.epochs,
            "done": bool(self.stop),
            "batch": self.batch_size,
            "nbs": self.args.nbs,
            "model": self.model.state_dict(),
            "ema": self.ema.ema.state_dict(),
            "updates": self.ema.updates,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "stopper": {name: getattr(self.stopper, name) for name in ("best_fitness", "best_epoch", "possible_stop")},
            "best": self._best,
            "history": self.history,
            "metrics": {name: float(value) for name, value in self.metrics.items()},
            "numbers": {name: None if value is None else float(value) for name, value in numbers.items()},
        }
        for name in _COUNTERS:
            state["numbers"][name] = int(state["numbers"][name])
        checkpoint.save_state(self._run_uri, state)
        self._last_saved = time.monotonic()
        self._save_seconds = self._last_saved - start

    def _log_batch(self) -> None:
        steps = math.ceil(len(self.train_loader) / self.accumulate)
        log.info("batch %d: %s; %s an epoch", self.batch_size, self._batch_reason, count_of(steps, "optimizer step"))

    def _count_time_before(self) -> None:
        self.train_time_start -= self.seconds_before

    def _start_epoch(self) -> None:
        self.start_epoch = 0  # Ultralytics now uses it only for the mean time of an epoch
        self._batch = 0
        self._oom_retries = 3  # as many as Ultralytics makes: `run` retries, with half the batch, whatever the epoch

    def _start_batch(self) -> None:
        self._batch += 1
        self._set_learning_rates()

    def optimizer_step(self) -> None:
        """Do nothing: `_step_when_due` steps; Ultralytics' count of batches restarts when a run is resumed."""

    def _step_when_due(self) -> None:
        """Step so that an epoch's batches are spread evenly over its optimizer steps, the last step at its end.

        Ultralytics clips the gradient; a last step of a single batch would otherwise be as large as one of many.
        """
        batches = len(self.train_loader)
        steps = math.ceil(batches / self.accumulate)
        if self._batch * steps // batches > (self._batch - 1) * steps // batches:
            super().optimizer_step()

    def _close_dataloader_mosaic(self) -> None:
        super()._close_dataloader_mosaic()
        assert self._sampler is not None
        self._sampler.set_epoch(self.epoch)  # the loader restarts, after it had prefetched

    def compute_class_weights(self, class_counts: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the class weights; Ultralytics normalises their mean to 1."""
        if self.spec.loss.class_weights == "none":  # then train.options.cls_pw decides
            weights: NDArray[np.float32] = super().compute_class_weights(class_counts)
            return weights
        return class_balanced_weights(class_counts)

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch on the device, pixels in [0, 1], in the model's memory format."""
        batch = super().preprocess_batch(batch)
        batch["img"] = batch["img"].contiguous(memory_format=torch.channels_last)
        return batch

    def validate(self) -> tuple[dict[str, float], float | None]:
        """Return metrics and fitness; those of an earlier epoch if validation has used its share of the run's time."""
        elapsed = clock.now() - self.train_time_start
        last = self.stop or self.epoch + 1 >= self.epochs
        if self._validation_seconds > _VALIDATION_SHARE * elapsed and not last:
            return self.metrics, self.fitness
        start = clock.now()
        metrics, fitness = super().validate()
        self._validation_seconds += clock.now() - start
        self._validated_epoch = self.epoch
        log.info(
            "epoch %d: AP50 %.3f, AP %.3f on %s", self.epoch + 1, metrics["metrics/mAP50(B)"],
            metrics["metrics/mAP50-95(B)"], count_of(len(self.spec.val), "tile"),
        )  # fmt: skip
        self._track(metrics)
        history.add_metrics(self.history, metrics)
        return metrics, fitness

    def save_model(self) -> bool:
        """Keep the averaged weights in memory if this epoch's validation is the best so far."""
        if self._validated_epoch == self.epoch and self.fitness == self.best_fitness:
            self.best_epoch = self.epoch + 1
            self._best = {name: value.detach().cpu().clone() for name, value in self.ema.ema.state_dict().items()}
        return False

    def save_metrics(self, metrics: Mapping[str, float]) -> None:
        """Write no file: the log has the metrics."""

    def final_eval(self) -> None:
        """Validate the last epoch if it was not validated."""
        if self._validated_epoch != self.epoch:
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

    def _set_learning_rates(self) -> None:
        """Set the learning rates by the share of the time budget spent; without a budget Ultralytics sets them."""
        budget = self.spec.budget
        if budget is None:
            return
        seconds = (clock.now() - self.train_time_start) / budget
        spent = max(seconds, self.batches / (self.spec.epochs * len(self.train_loader)))
        warmup_steps = self.spec.warmup_epochs * len(self.train_loader)
        warmup = max((self.batches + 1) / max(warmup_steps, 1), spent / _WARMUP_SHARE)
        factor = learning_rate_factor(spent, warmup, final=self.args.lrf, cosine=self.args.cos_lr)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    def _keep_epoch_count(self) -> None:
        """End a run with a budget at its last epoch; Ultralytics re-estimates the number of epochs after each.

        The remaining epochs decide when the mosaic closes and how an NMS-free detector weights its two losses.
        """
        if self.spec.budget is not None:
            self.epochs = self.args.epochs = min(self.epochs, self.spec.epochs)
            self.stop |= self.epoch + 1 >= self.spec.epochs

    def _report_step(self) -> None:
        self.batches += 1
        now = clock.now()
        if now - self._last_report < _PROGRESS_SECONDS:
            return
        self._last_report = now
        elapsed = now - self.train_time_start
        steps = len(self.train_loader)
        remaining = elapsed / self.batches * (steps * self.spec.epochs - self.batches)
        if self.spec.budget is not None:
            remaining = min(remaining, self.spec.budget - elapsed)
        log.info(
            "epoch %d, step %d of %d, loss %.3f, %.0f s left", self.epoch + 1, (self.batches - 1) % steps + 1, steps,
            float(sum(self.tloss.values())), max(remaining, 0.0),
        )  # fmt: skip


def _validation_reporter(trainer: Trainer) -> Any:
    """Return a callback that logs the progress of a long validation."""

    def report(validator: Any) -> None:
        now = clock.now()
        if now - trainer._last_report >= _PROGRESS_SECONDS:
            trainer._last_report = now
            log.info("validating: %d of %d batches", validator.batch_i + 1, len(validator.dataloader))

    return report
