"""Train a model for a few epochs, save it, load it and predict with it."""

from __future__ import annotations

import numpy as np
import torch

from etl.config import load
from etl.snapshots.snapshot import Snapshot
from etl.storage import store
from etl.storage.paths import DatasetPaths, ModelPaths
from tests.gpu.images import read_images
from tests.gpu.record import Record
from train import load_model, predict
from train.engine import run as training
from train.engine.tracking import log_folder


def run(record: Record, model: str, epochs: int = 2, keep: bool = False) -> None:
    """The loss falls, and the saved model loads and predicts; with `keep` later steps use it."""
    data = record.load("small")
    epochs = 2 if record.quick else epochs
    config = load(data["config"], {"train.model": model, "train.epochs": epochs})
    answer = training.train(config, Snapshot.open(data["snapshot"]))
    if keep:
        record.save("model", answer["model"])
    meta = store.read_json(ModelPaths(answer["model"]).model_json)
    for name, value in meta["trained"].items():
        record.fact(name, value)
    record.check("device of the training", answer["device"] == ("cuda" if record.gpu else "cpu"), answer["device"])
    if record.gpu and torch.cuda.is_bf16_supported(including_emulation=False):
        record.check("trained in bf16", meta["trained"]["precision"] == "bf16", meta["trained"]["precision"])
    record.check("all epochs were trained", answer["epochs"] == epochs, answer["epochs"])
    _check_loss(record, DatasetPaths(config.home).run(meta["run"]).uri)
    loaded = load_model(answer["model"])
    record.check("device of the prediction", loaded.device.type == ("cuda" if record.gpu else "cpu"), loaded.runs_on)
    _, (image,) = read_images(data["images"], 1, real=False)
    found = predict(loaded, image, "tiled")
    record.check("predicts finite boxes", bool(np.isfinite(found.xyxy).all()), f"{len(found)} boxes")


def _check_loss(record: Record, run_uri: str) -> None:
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        record.skip("loss falls", "tensorboard is not installed")
        return
    events = EventAccumulator(str(log_folder(run_uri))).Reload()
    curves = [events.Scalars(tag) for tag in events.Tags()["scalars"] if tag.startswith("train/")]
    losses = [round(sum(point.value for point in points), 4) for points in zip(*curves, strict=True)]
    finite = bool(np.isfinite(losses).all())
    record.check("loss falls", len(losses) > 1 and finite and losses[-1] < losses[0], losses)
