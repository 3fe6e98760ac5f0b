"""One training run: a snapshot and a configuration in, a saved model out."""

from __future__ import annotations

import logging
import math
import multiprocessing
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

from etl import fitting, network, store
from etl.config import Config, Loss
from etl.errors import ConfigError, SpeckError
from etl.snapshot import Snapshot
from train import compat, model
from train.data import ShardDataset, ShardReader, of_split

compat.install()

from ultralytics.cfg import get_cfg  # noqa: E402 - after the operators are there
from ultralytics.models.yolo.detect import DetectionTrainer  # noqa: E402

log = logging.getLogger("speck")

OPTIONS = frozenset(
    {
        "agnostic_nms", "amp", "bgr", "box", "channels_last", "close_mosaic", "cls", "cls_pw", "cos_lr", "cutmix",
        "degrees", "deterministic", "dfl", "fliplr", "flipud", "freeze", "hsv_h", "hsv_s", "hsv_v", "iou", "lr0", "lrf",
        "max_det", "mixup", "momentum", "mosaic", "multi_scale", "nbs", "nms", "optimizer", "patience", "perspective",
        "scale", "shear", "translate", "warmup_bias_lr", "warmup_epochs", "warmup_momentum", "weight_decay", "workers",
    }
)  # fmt: skip
_OPTIMIZERS = ("auto", "SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "MuSGD")
# The shards hold the augmented geometry already, and tiles are never resampled unless asked for.
_DEFAULTS = {"scale": 0.0, "translate": 0.0, "patience": 100}
_CPU_BATCH = 16
_PROGRESS_SECONDS = 10.0
_VALIDATION_SHARE = 0.1  # of the run's time
_WARMUP_SHARE = 0.05  # of a time budget, at most
_MANY_EPOCHS = 1000  # Ultralytics' count in a run with a budget; ours ends it


@dataclass(frozen=True)
class Run:
    """Everything one training run needs, read and checked."""

    train: pa.Table  # samples
    val: pa.Table
    home: str  # of the snapshot's shards
    categories: tuple[str, ...]
    architecture: model.Architecture
    weights: str | None
    image_size: int
    tile_size: int
    epochs: int
    budget: float | None  # seconds, if the run may end before its epochs do
    settings: dict[str, Any]  # of the Ultralytics trainer
    warmup_epochs: float
    nms_free: bool
    loss: Loss  # of a detector with anchors

    @property
    def scale(self) -> float:
        """Network pixels per sample pixel."""
        return self.image_size / self.tile_size


def train(config: Config, snapshot: Snapshot, *, home: str | None = None) -> dict[str, Any]:
    """Return model (its URI below `home`), epochs, seconds and device of a finished training on the snapshot."""
    start = time.monotonic()
    run = prepare(config, snapshot)
    with tempfile.TemporaryDirectory(prefix="speck-train-") as folder:
        trainer = _Trainer(run, Path(folder))
        log.info(
            "training %s on %d samples (%d to validate), %d px, batch %s, %s, from %s",
            config.train.model, len(run.train), len(run.val), run.image_size, trainer.args.batch,
            _device_words(trainer.device), run.weights or "scratch",
        )  # fmt: skip
        trainer.train()
    seconds = round(time.monotonic() - start, 1)
    epochs, device = trainer.epoch + 1, trainer.device.type
    meta = {
        "dataset": config.name,
        "snapshot": snapshot.id,
        "categories": list(run.categories),
        "model": config.train.model,
        "image_size": run.image_size,
        "tile": snapshot.plan.tile.model_dump(mode="json"),
        "nms_free": run.nms_free,
        "config": config.resolved(),
        "trained": {
            "epochs": epochs, "best_epoch": trainer.best_epoch, "seconds": seconds, "device": device,
            "weights": run.weights or "scratch",
        },
    }  # fmt: skip
    uri = model.save(trainer.best_module(), home or config.home, meta)
    log.info("trained %d epochs in %.0f s, the best was epoch %d: %s", epochs, seconds, trainer.best_epoch, uri)
    return {"model": uri, "epochs": epochs, "seconds": seconds, "device": device}


def prepare(config: Config, snapshot: Snapshot) -> Run:
    """Return the checked run; ConfigError for a split without samples or a setting that cannot be met."""
    samples = snapshot.table("samples")
    train_rows, val_rows = of_split(samples, "train"), of_split(samples, "val")
    for name, rows in (("train", train_rows), ("val", val_rows)):
        if not len(rows):
            found = f"no {name} samples in snapshot {snapshot.id}"
            raise ConfigError(config.name, "source.split", found, "at least one")
    architecture = model.resolve(config.train.model)
    tile_size = snapshot.plan.tile.size
    image_size = config.train.image_size or tile_size
    mosaics = has_mosaics(samples)
    options = _options(config, mosaics)
    with_nms = options.pop("nms", None) is True
    nms_free = bool(architecture.get("end2end")) and not with_nms
    device = _device(config)
    budget = config.train.max_seconds
    settings = {
        **_DEFAULTS,
        "mosaic": 0.0 if mosaics else config.augment.mosaic,
        "imgsz": math.ceil(image_size / 32) * 32,
        "epochs": config.train.epochs if budget is None else _MANY_EPOCHS,
        "time": None if budget is None else budget / 3600,
        "batch": _batch(config, device),
        "device": device,
        "seed": config.train.seed,
        "nms": False if nms_free else None,
        "conf": 0.01,  # enough to choose the best epoch by, and far cheaper than 0.001
        "workers": 2,
        **options,
        "amp": _precision(device) if options.get("amp", True) else False,
    }
    if multiprocessing.current_process().daemon:
        settings["workers"] = 0  # daemons may not have children
    if "anchors" in architecture:
        architecture = _with_anchors(config, snapshot, architecture, settings["imgsz"])
    elif config.train.loss != Loss():
        raise ConfigError(
            config.name, "train.loss", config.train.loss.model_dump(),
            f"a model with anchors (train.model: {config.train.model}{network.WITH_ANCHORS}), whose loss it shapes",
        )  # fmt: skip
    return Run(
        train=train_rows, val=val_rows, home=snapshot.home, categories=tuple(snapshot.categories),
        architecture=architecture, weights=model.find_weights(config.train.weights, config.train.model),
        image_size=image_size, tile_size=tile_size, epochs=config.train.epochs, budget=budget, settings=settings,
        warmup_epochs=float(settings.get("warmup_epochs", 3.0)), nms_free=nms_free, loss=config.train.loss,
    )  # fmt: skip


def has_mosaics(samples: pa.Table) -> bool:
    """Return whether the shards hold mosaics, which excludes the trainer's own."""
    kinds = pc.struct_field(samples["recipe"], "kind")
    return bool(pc.any(pc.equal(kinds, "mosaic")).as_py())


def rate(spent: float, warmth: float, *, final: float, cosine: bool) -> float:
    """Return the share of the learning rate when this share of the budget is spent: up with warmth, down to `final`."""
    spent = min(spent, 1.0)
    fall = (1 + math.cos(math.pi * spent)) / 2 if cosine else 1 - spent
    return min(warmth, 1.0) * (final + (1 - final) * fall)


def _with_anchors(
    config: Config, snapshot: Snapshot, architecture: model.Architecture, image_size: int
) -> model.Architecture:
    """Return the architecture with the snapshot's anchors, fitted anew where they are for other levels or sizes."""
    strides = network.strides(config)
    found = store.read_json(store.join(snapshot.uri, "anchors.json"))
    if (tuple(found["strides"]), found["image_size"]) != (strides, image_size):
        log.info("anchors fitted anew, for strides %s and an input of %d px", strides, image_size)
        found = fitting.refit(snapshot, strides=strides, image_size=image_size)
    if not found["boxes"]:
        raise ConfigError(config.name, "train.model", "no train box to fit anchors to", "a snapshot with labels")
    log.info("anchors: %s", found["anchors"])
    return model.with_anchors(architecture, found["anchors"], strides)


def _options(config: Config, mosaics: bool) -> dict[str, Any]:
    options = dict(config.train.options)
    for name, value in options.items():
        key = f"train.options.{name}"
        if name not in OPTIONS:
            raise ConfigError(config.name, key, "an unknown option", f"one of {', '.join(sorted(OPTIONS))}")
        try:
            get_cfg(overrides={name: value})
        except (TypeError, ValueError) as error:
            raise ConfigError(config.name, key, repr(value), " ".join(str(error).split())) from error
    if (optimizer := options.get("optimizer", "auto")) not in _OPTIMIZERS:  # Ultralytics looks when training starts
        raise ConfigError(config.name, "train.options.optimizer", repr(optimizer), f"one of {', '.join(_OPTIMIZERS)}")
    if mosaics and options.get("mosaic"):
        expected = "0, as the shards hold mosaics already (or augment.mosaic 0)"
        raise ConfigError(config.name, "train.options.mosaic", options["mosaic"], expected)
    return options


def _device(config: Config) -> str:
    asked = config.train.device
    available = torch.cuda.is_available()
    if asked == "auto":
        if not available:
            log.info("no GPU here: training on the CPU")
        return "0" if available else "cpu"
    if asked != "cpu" and asked != "mps" and not available:
        raise ConfigError(config.name, "train.device", repr(asked), "auto or cpu: there is no GPU here")
    return asked


def _batch(config: Config, device: str) -> int:
    if config.train.batch != "auto":
        return config.train.batch
    return _CPU_BATCH if device == "cpu" else -1  # -1: Ultralytics fits it to the GPU's memory


def _precision(device: str) -> bool | str:
    """Return bfloat16 where the GPU has it; plain float16 would want Ultralytics' check, which downloads a model."""
    return "bf16" if device not in ("cpu", "mps") and torch.cuda.is_bf16_supported() else False


def _device_words(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({torch.get_num_threads()} threads)"


class _Trainer(DetectionTrainer):
    """Ultralytics' trainer on shards: no files of its own, the best weights in memory, a time budget to the step."""

    def __init__(self, run: Run, folder: Path) -> None:
        self.run = run
        self.best_epoch = 0
        self._best: dict[str, torch.Tensor] = {}
        self._validated = -1  # epoch
        self._validating = 0.0  # seconds
        self._progress = 0.0  # when last reported
        self._steps = 0
        settings = {
            **run.settings, "warmup_epochs": 0.0 if run.budget else run.warmup_epochs, "model": "speck.yaml",
            "data": "speck.yaml", "save_dir": str(folder), "plots": False, "verbose": False, "task": "detect",
        }  # fmt: skip
        threads = torch.get_num_threads()
        try:
            super().__init__(overrides=settings)
        except ValueError as error:  # an impossible device, in many words
            raise ConfigError("the training", "train.device", repr(settings["device"]), str(error).strip()) from error
        torch.set_num_threads(threads)  # Ultralytics leaves one core idle, on a small machine half of them
        self.model: Any = model.build(run.architecture, run.categories)
        if run.weights is not None:
            log.info("%d tensors taken from %s", model.load_weights(self.model, run.weights), run.weights)
        self.model.loss_settings = run.loss
        self.model.to(memory_format=torch.channels_last)  # 1.5 times as fast, on CPUs too
        self.add_callback("on_train_batch_start", _Trainer._set_rates)
        self.add_callback("on_train_batch_end", _Trainer._report_step)
        self.add_callback("on_fit_epoch_end", _Trainer._stop_in_time)
        self.add_callback("on_val_batch_end", _report_validation(self))

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
        module: torch.nn.Module = self.ema.ema
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
        """End a run with a budget at its last epoch; Ultralytics makes as many as fit the time."""
        if self.run.budget is not None and self.epoch + 1 >= self.run.epochs:
            self.stop = True

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


def _report_validation(trainer: _Trainer) -> Any:
    """Return a callback that keeps the log alive through a long validation."""

    def report(validator: Any) -> None:
        now = time.time()
        if now - trainer._progress >= _PROGRESS_SECONDS:
            trainer._progress = now
            log.info("validating: %d of %d batches", validator.batch_i + 1, len(validator.dataloader))

    return report
