"""One training run: a snapshot and a configuration in, a saved model out."""

from __future__ import annotations

import logging
import math
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

from etl.config import Config, network
from etl.errors import ConfigError
from etl.snapshots import anchors
from etl.snapshots.samples import of_split
from etl.snapshots.snapshot import Snapshot
from etl.storage.paths import split_uri
from train import compat
from train.engine import checkpoint, recipe
from train.engine.trainer import Run, Trainer
from train.models import model, weights
from train.models.architecture import Architecture, resolve, with_anchors

compat.install()

from ultralytics.cfg import get_cfg  # noqa: E402 - after the operators are there

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


def train(config: Config, snapshot: Snapshot, *, home: str | None = None) -> dict[str, Any]:
    """Return model (its URI below `home`), epochs, seconds and device of a finished training on the snapshot.

    After each epoch the run is kept below `<home>/runs`; the same training, asked for again after it was killed, goes
    on from there.
    """
    start = time.monotonic()
    written = config
    reasons: list[str] = []
    if config.train.recipe == "auto":
        config, reasons = recipe.choose(config, snapshot.audit)
        for reason in reasons or ["nothing to change"]:
            log.info("recipe: %s", reason)
    run = prepare(config, snapshot)
    home = home or config.home
    kept = checkpoint.folder(home, snapshot.id, config.train.model_dump(mode="json"), run.architecture)
    with tempfile.TemporaryDirectory(prefix="speck-train-") as folder:
        trainer = Trainer(run, Path(folder), kept)
        log.info(
            "training %s on %d samples (%d to validate), %d px, batch %s, %s, from %s",
            config.train.model, len(run.train), len(run.val), run.image_size, trainer.args.batch,
            _device_words(trainer.device), run.weights or "scratch",
        )  # fmt: skip
        if not trainer.was_finished():
            checkpoint.begin(kept, snapshot.uri)
            trainer.train()
    seconds = round(time.monotonic() - start + trainer.before, 1)
    epochs, device = trainer.epoch + 1, trainer.device.type
    meta = {
        "dataset": config.name,
        "run": split_uri(kept).id,
        "snapshot": snapshot.id if snapshot.home == config.home else snapshot.uri,
        "categories": list(run.categories),
        "model": config.train.model,
        "image_size": run.image_size,
        "tile": snapshot.plan.tile.model_dump(mode="json"),
        "nms_free": run.nms_free,
        "config": written.resolved(),
        "recipe": reasons,
        "trained": {
            "epochs": epochs, "best_epoch": trainer.best_epoch, "seconds": seconds, "device": device,
            "weights": run.weights or "scratch",
        },
    }  # fmt: skip
    uri = model.save(trainer.best_module(), home, meta)
    checkpoint.end(kept)
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
    architecture = resolve(config.train.model)
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
        "epochs": config.train.epochs,
        "time": None if budget is None else budget / 3600,
        "batch": _batch(config, device),
        "device": device,
        "seed": config.train.seed,
        "nms": False if nms_free else None,
        "conf": 0.01,  # enough to choose the best epoch by, and far cheaper than 0.001
        "workers": 2,
        "cls_pw": 0.0 if config.train.loss.class_weights == "none" else 1.0,  # which asks for weights at all
        **options,
        "amp": _precision(device) if options.get("amp", True) else False,
    }
    if multiprocessing.current_process().daemon:
        settings["workers"] = 0  # daemons may not have children
    if "anchors" in architecture:
        architecture = _with_anchors(config, snapshot, architecture, settings["imgsz"])
    return Run(
        dataset=config.name, train=train_rows, val=val_rows, home=snapshot.home, categories=tuple(snapshot.categories),
        architecture=architecture, weights=weights.find_weights(config.train.weights, config.train.model),
        image_size=image_size, tile_size=tile_size, epochs=config.train.epochs, budget=budget, settings=settings,
        warmup_epochs=float(settings.get("warmup_epochs", 3.0)), nms_free=nms_free, loss=config.train.loss,
        weighted=config.train.sampling == "weighted",
    )  # fmt: skip


def has_mosaics(samples: pa.Table) -> bool:
    """Return whether the shards hold mosaics, which excludes the trainer's own."""
    kinds = pc.struct_field(samples["recipe"], "kind")
    return bool(pc.any(pc.equal(kinds, "mosaic")).as_py())


def _with_anchors(config: Config, snapshot: Snapshot, architecture: Architecture, image_size: int) -> Architecture:
    """Return the architecture with the snapshot's anchors, fitted anew where they are for other levels or sizes."""
    strides = network.strides(config)
    found = snapshot.anchors
    if (tuple(found["strides"]), found["image_size"]) != (strides, image_size):
        log.info("anchors fitted anew, for strides %s and an input of %d px", strides, image_size)
        found = anchors.refit(snapshot, strides=strides, image_size=image_size)
    if not found["boxes"]:
        raise ConfigError(config.name, "train.models.model", "no train box to fit anchors to", "a snapshot with labels")
    log.info("anchors: %s", found["anchors"])
    return with_anchors(architecture, found["anchors"], strides)


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
    if options.get("cls_pw") is not None and config.train.loss.class_weights != "none":
        expected = "none beside train.loss.class_weights, which weighs the classes already"
        raise ConfigError(config.name, "train.options.cls_pw", options["cls_pw"], expected)
    if mosaics and options.get("mosaic"):
        expected = "0, as the shards hold mosaics already (or augment.mosaic 0)"
        raise ConfigError(config.name, "train.options.mosaic", options["mosaic"], expected)
    return options


def _device(config: Config) -> str:
    asked = config.train.device
    if "," in asked:
        raise ConfigError(config.name, "train.device", repr(asked), "one device: training on several is not there yet")
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
