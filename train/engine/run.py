"""Train a model on a snapshot and save it."""

from __future__ import annotations

import gc
import logging
import math
import multiprocessing
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import pyarrow as pa
import pyarrow.compute as pc
import torch

from etl.config import Config, network
from etl.errors import ConfigError, SpeckError
from etl.lifecycle.training_config import changed_sections, last_part, portable, training_config
from etl.numbers import count, count_of
from etl.snapshots import anchors
from etl.snapshots.missing_split import missing_split_error
from etl.snapshots.samples import select_split
from etl.snapshots.snapshot import Snapshot, is_published
from etl.storage.paths import DatasetPaths, split_uri
from train import compat
from train.device import choose_device
from train.engine import checkpoint, history, recipe
from train.engine.batch import plan_batch
from train.engine.precision import Precision, choose_precision
from train.engine.spec import TrainingSpec
from train.engine.trainer import Trainer
from train.models.architecture import Architecture, add_anchors, resolve
from train.models.model import Trained, TrainingMeta, save_model
from train.models.trained_labels import measure_labels
from train.models.weights import find_weights

compat.install()

from ultralytics.cfg import get_cfg  # noqa: E402 - after compat.install()

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
# The shards already hold geometric augmentation; by default tiles are never resampled.
_DEFAULTS = {"scale": 0.0, "translate": 0.0, "patience": 100}
_OUT_OF_MEMORY = (
    "out of memory", "cublas_status_alloc_failed", "cudnn_status_alloc_failed", "cudnn_status_internal_error",
    "unable to find an engine", "no usable batch size",
)  # fmt: skip
_LESS_MEMORY = "lower train.image_size, choose a smaller train.model, or end other programs on the GPU"


class TrainAnswer(TypedDict):
    """The answer of `speck train`."""

    model: str  # its URI
    epochs: int
    seconds: float
    device: str


def train(config: Config, snapshot: Snapshot, *, home: str | None = None) -> TrainAnswer:
    """Train a model on the snapshot, save it below `home` (the dataset's part of the store by default).

    Settings of the build are those of the snapshot, not of the configuration, in `model.json` too.
    The state of the run is saved below `<home>/runs` after its epochs, on a GPU not after all of the short ones.
    Calling `train` again with the same configuration and snapshot after it was killed resumes there.
    """
    if changed := changed_sections(config, snapshot):
        log.warning("the snapshot was built with other settings of %s: the training takes those", ", ".join(changed))
    config = training_config(config, snapshot)
    chosen, reasons = _apply_recipe(config, snapshot)
    return fit(chosen, snapshot, prepare_run(chosen, snapshot), home or config.home, config, reasons)


def fit(
    chosen: Config, snapshot: Snapshot, spec: TrainingSpec, home: str, config: Config, reasons: Sequence[str] = ()
) -> TrainAnswer:
    """Train as a specification of `chosen` asks, save the model with `config` below `home`, and return the answer.

    A run that was killed resumes when it is called again with the same arguments.
    """
    run_uri = checkpoint.run_uri(home, snapshot.id, chosen.train.model_dump(mode="json"), spec.architecture)
    log.info(
        "training %s on %s (%s for validation), %d px, %s, %s, from %s",
        chosen.train.model, count_of(len(spec.train), "sample"), count(len(spec.val)), spec.image_size,
        _describe_device(spec.settings["device"]), spec.precision, spec.weights or "scratch",
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="speck-train-") as folder:
        trainer = _train_in_memory(spec, Path(folder), run_uri, snapshot.uri)
    trained: Trained = {
        "epochs": trainer.epoch + 1, "best_epoch": trainer.best_epoch,
        "seconds": round(trainer.seconds, 1), "device": trainer.device.type,
        "weights": last_part(spec.weights or "scratch"), "batch": trainer.args.batch, "nbs": trainer.args.nbs,
        "precision": trainer.precision,
        "planned_epochs": spec.epochs, "time_limit": spec.budget,
        "steps": math.ceil(trainer.batches / max(round(trainer.args.nbs / trainer.args.batch), 1)),
        "ended": history.find_end(trainer.epoch + 1, spec.epochs, trainer.seconds, spec.budget),
        "history": history.thin_out(trainer.history, trainer.best_epoch),
    }  # fmt: skip
    meta: TrainingMeta = {
        "dataset": config.name,
        "run": split_uri(run_uri).id,
        "snapshot": _name_snapshot(config.home, snapshot),
        "categories": list(spec.categories),
        "model": last_part(chosen.train.model),
        "image_size": spec.image_size,
        "tile": snapshot.plan.tile.model_dump(mode="json"),
        "nms_free": spec.nms_free,
        "pixel_range": snapshot.plan.pixel_range,
        "config": portable(config.recorded()),
        "recipe": list(reasons),
        "trained": trained,
        "trained_labels": measure_labels(snapshot.table("samples"), spec.image_size / spec.tile_size).to_dict(),
    }
    uri = save_model(trainer.best_module(), home, meta)
    checkpoint.delete_state(run_uri)
    log.info(
        "trained %s in %.0f s, best epoch %d: %s",
        count_of(trained["epochs"], "epoch"), trained["seconds"], trained["best_epoch"], uri,
    )  # fmt: skip
    return {"model": uri, "epochs": trained["epochs"], "seconds": trained["seconds"], "device": trained["device"]}


def _name_snapshot(home: str, snapshot: Snapshot) -> str:
    return snapshot.id if is_published(home, snapshot.id) else DatasetPaths(home).reference(snapshot.uri)


def _train_in_memory(spec: TrainingSpec, folder: Path, run_uri: str, snapshot: str) -> Trainer:
    """Return the trainer after its last epoch; when the GPU's memory runs out, continue with half the batch."""
    seconds = 0.0
    while True:
        trainer = Trainer(spec, folder, run_uri, seconds_before=seconds)
        if trainer.restore_finished():
            return trainer
        checkpoint.mark_started(run_uri, snapshot, checkpoint.load_largest_batch(run_uri))
        try:
            trainer.train()
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            batch = trainer.batch_size
            if batch <= 1:
                checkpoint.mark_started(run_uri, snapshot)  # without a limit: the next try may find more memory
                raise SpeckError(f"not even a batch of 1 fits into the GPU's memory: {_LESS_MEMORY}") from error
        else:
            return trainer
        log.warning("the GPU's memory ran out with a batch of %d: continuing with %d", batch, batch // 2)
        checkpoint.mark_started(run_uri, snapshot, batch // 2)
        seconds = trainer.seconds
        del trainer
        gc.collect()
        torch.cuda.empty_cache()


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error).lower() for text in _OUT_OF_MEMORY)


def _apply_recipe(config: Config, snapshot: Snapshot) -> tuple[Config, list[str]]:
    """Return the configuration with the settings chosen by `train.recipe: auto`, and the reasons."""
    if config.train.recipe != "auto":
        return config, []
    chosen, reasons = recipe.choose_settings(config, snapshot.audit)
    for reason in reasons or ["nothing to change"]:
        log.info("recipe: %s", reason)
    return chosen, reasons


def prepare_run(config: Config, snapshot: Snapshot) -> TrainingSpec:
    """Return the checked inputs of a run; ConfigError for a split without samples or an impossible setting."""
    samples = snapshot.table("samples")
    train_rows, val_rows = select_split(samples, "train"), select_split(samples, "val")
    if not _has_boxes(samples, "train"):
        raise missing_split_error(snapshot, "train")
    if not len(val_rows):
        raise missing_split_error(snapshot, "val")
    architecture = resolve(config.train.model)
    tile_size = snapshot.plan.tile.size
    image_size = config.train.image_size or tile_size
    mosaics = has_mosaics(samples)
    options = _check_options(config, mosaics)
    with_nms = options.pop("nms", None) is True
    nms_free = bool(architecture.get("end2end")) and not with_nms
    device = _choose_device(config)
    precision = choose_precision(options.get("amp", True), device)
    settings = _trainer_settings(config, options, image_size, device, precision, mosaics=mosaics, nms_free=nms_free)
    plan = plan_batch(config.train.batch, options.get("nbs"), len(train_rows), on_gpu=device.type == "cuda")
    settings |= {"batch": plan.batch, "nbs": plan.per_step}
    if "anchors" in architecture:
        architecture = _add_anchors(config, snapshot, architecture, settings["imgsz"])
    return TrainingSpec(
        dataset=config.name, train=train_rows, val=val_rows, home=snapshot.home, categories=tuple(snapshot.categories),
        architecture=architecture, weights=find_weights(config.train.weights, config.train.model),
        image_size=image_size, tile_size=tile_size, epochs=config.train.epochs, budget=config.train.max_seconds,
        settings=settings, warmup_epochs=float(settings.get("warmup_epochs", 3.0)), nms_free=nms_free,
        loss=config.train.loss, weighted=config.train.sampling == "weighted",
        precision=precision, batch_reason=plan.reason,
    )  # fmt: skip


def _trainer_settings(
    config: Config, options: dict[str, Any], image_size: int, device: torch.device, precision: Precision, *,
    mosaics: bool, nms_free: bool,
) -> dict[str, Any]:  # fmt: skip
    """Return the settings of the Ultralytics trainer; `options` (train.options) override the defaults."""
    budget = config.train.max_seconds
    settings = {
        **_DEFAULTS,
        "mosaic": 0.0 if mosaics else config.augment.mosaic,
        "imgsz": math.ceil(image_size / 32) * 32,
        "epochs": config.train.epochs,
        "time": None if budget is None else budget / 3600,
        "device": str(device.index) if device.type == "cuda" else device.type,
        "seed": config.train.seed,
        "nms": False if nms_free else None,
        "conf": 0.01,  # enough to choose the best epoch, and much faster than 0.001
        "cls_pw": 0.0 if config.train.loss.class_weights == "none" else 1.0,  # turns class weights on
        **options,
        "amp": "bf16" if precision == "bf16" else False,  # the trainer itself switches float16 on
    }
    if multiprocessing.current_process().daemon:
        settings["workers"] = 0  # a daemon process must not have children
    return settings


def has_mosaics(samples: pa.Table) -> bool:
    """Return whether the shards hold mosaics; the trainer then makes none."""
    kinds = pc.struct_field(samples["recipe"], "kind")
    return bool(pc.any(pc.equal(kinds, "mosaic")).as_py())


def _has_boxes(samples: pa.Table, split: str) -> bool:
    """Return whether a sample of the split has a labelled box."""
    boxes = samples.filter(pc.equal(samples["split"], split))["boxes"]
    return bool(pc.any(pc.greater(pc.list_value_length(boxes), 0)).as_py())


def _add_anchors(config: Config, snapshot: Snapshot, architecture: Architecture, image_size: int) -> Architecture:
    """Return the architecture with the snapshot's anchors, refitted if its strides or image size differ.

    Preset anchors are scaled to another image size; ConfigError if the model has another number of levels.
    """
    strides = network.strides(config)
    fitted = snapshot.anchors
    if (tuple(fitted["strides"]), fitted["image_size"]) != (strides, image_size):
        log.info("refitting anchors for strides %s and an input of %d px", strides, image_size)
        fitted = anchors.refit(snapshot, strides=strides, image_size=image_size)
    if not fitted["boxes"]:
        raise ConfigError(config.name, "train.model", "no train box to fit anchors to", "a snapshot with labels")
    log.info("anchors: %s", fitted["anchors"])
    return add_anchors(architecture, fitted["anchors"], strides)


def _check_options(config: Config, mosaics: bool) -> dict[str, Any]:
    options = dict(config.train.options)
    for name, value in options.items():
        key = f"train.options.{name}"
        if name not in OPTIONS:
            raise ConfigError(config.name, key, "an unknown option", f"one of {', '.join(sorted(OPTIONS))}")
        try:
            get_cfg(overrides={name: value})
        except (TypeError, ValueError) as error:
            raise ConfigError(config.name, key, repr(value), " ".join(str(error).split())) from error
    if (optimizer := options.get("optimizer", "auto")) not in _OPTIMIZERS:  # Ultralytics checks it too late
        raise ConfigError(config.name, "train.options.optimizer", repr(optimizer), f"one of {', '.join(_OPTIMIZERS)}")
    if (workers := int(options.get("workers", 0))) < 0:
        raise ConfigError(config.name, "train.options.workers", workers, "0 or more")
    if options.get("cls_pw") is not None and config.train.loss.class_weights != "none":
        expected = "no cls_pw together with train.loss.class_weights: both weight the classes"
        raise ConfigError(config.name, "train.options.cls_pw", options["cls_pw"], expected)
    if mosaics and options.get("mosaic"):
        expected = "0: the shards already hold mosaics (or set augment.mosaic to 0)"
        raise ConfigError(config.name, "train.options.mosaic", options["mosaic"], expected)
    return options


def _choose_device(config: Config) -> torch.device:
    name = config.train.device
    if "," in name:
        expected = (
            "a single device, such as 0: multi-GPU training is not supported, because the order of the samples, the "
            "validation and the checkpoint of a run belong to one process; train another dataset or seed on each GPU"
        )
        raise ConfigError(config.name, "train.device", repr(name), expected)
    device = choose_device(name, config.name, "train.device")
    if name == "auto" and device.type == "cpu":
        log.info("no GPU found: training on the CPU")
    return device


def _describe_device(name: str) -> str:
    return torch.cuda.get_device_name(int(name)) if name.isdecimal() else f"{name} (threads: {torch.get_num_threads()})"
