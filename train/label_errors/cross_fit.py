"""Detect in every image with a model that never saw its group: the groups are divided into folds.

The model of a fold is trained on the snapshot's samples of the other folds, with the dataset's own training settings.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from etl.config import Config
from etl.errors import ConfigError
from etl.execution import progress
from etl.ids import fraction
from etl.lifecycle.training_config import training_config
from etl.numbers import count_of
from etl.schema import BASE, USED
from etl.snapshots.snapshot import Snapshot
from etl.storage import store
from etl.storage.paths import DatasetPaths, LabelErrorPaths
from train.engine import run
from train.evaluation.images import EvalImage, read_pixels
from train.label_errors.judge import Judged
from train.models.load import load_model
from train.prediction import tiled

log = logging.getLogger("speck")

_VALIDATED = 20  # every so many of the training's samples are validated on
_LEAST_VALIDATED = 8
_CONFIDENCE = 0.001  # scores below are no evidence


def assign_folds(snapshot: Snapshot, folds: int, seed: int) -> dict[str, int]:
    """Return the fold of each image by its id: groups stay whole, folds hold about equally many boxes and images.

    ConfigError when there are fewer groups than folds.
    """
    images, weight = snapshot.table("images"), _weights(snapshot)
    groups: dict[str, list[str]] = {}
    for image_id, group in zip(images["image_id"].to_pylist(), images["group"].to_pylist(), strict=True):
        if image_id in weight:
            groups.setdefault(group, []).append(image_id)
    if (number := len(groups)) < folds:
        raise ConfigError(
            snapshot.config.name, "--folds",
            f"{folds}, but the images form only {count_of(number, 'group')} (source.group)",
            f"{f'at most {number}' if number > 1 else 'more groups'}, or --model",
        )  # fmt: skip
    heaviest_first = sorted(
        groups, key=lambda group: (-sum(weight[i] for i in groups[group]), fraction(f"fold/{seed}/{group}"))
    )
    loads, fold_of = [0] * folds, {}
    for group in heaviest_first:
        lightest = min(range(folds), key=lambda fold: (loads[fold], fraction(f"fold/{seed}/{group}/{fold}")))
        for image_id in groups[group]:
            fold_of[image_id] = lightest
            loads[lightest] += weight[image_id]
    return fold_of


def _weights(snapshot: Snapshot) -> dict[str, int]:
    """Return 1 + its boxes of each image of a split."""
    images = snapshot.table("images")
    used = images.filter(pc.is_in(images["split"], pa.array(USED)))["image_id"].to_pylist()
    counts = snapshot.table("annotations").group_by("image_id").aggregate([("image_id", "count")])
    boxes = dict(zip(counts["image_id"].to_pylist(), counts["image_id_count"].to_pylist(), strict=True))
    return {image_id: 1 + boxes.get(image_id, 0) for image_id in used}


def detect(
    config: Config,
    snapshot: Snapshot,
    images: Sequence[tuple[str, EvalImage]],
    folds: int,
    seed: int,
    paths: LabelErrorPaths,
    max_seconds: float | None,
) -> list[Judged]:
    """Return the images, each with its split, and what the model of its fold detected.

    `speck gc` keeps the snapshot, and the models of the folds, until `end_run`.
    """
    fold_of = assign_folds(snapshot, folds, seed)
    store.write_json(paths.run_json, {"snapshot": snapshot.uri})
    deadline = None if max_seconds is None else time.monotonic() + max_seconds
    judged: list[Judged] = []
    for fold in range(folds):
        log.info("find-errors: fold %d of %d", fold + 1, folds)
        seconds = None if deadline is None else max((deadline - time.monotonic()) / (folds - fold), 1.0)
        uri = _train_fold(config, snapshot, fold_of, fold, paths.fold(fold), seconds)
        own = [(split, image) for split, image in images if fold_of[image.image_id] == fold]
        judged += _detect_fold(config, uri, own, fold)
    return judged


def _detect_fold(config: Config, uri: str, images: Sequence[tuple[str, EvalImage]], fold: int) -> Iterator[Judged]:
    """Yield the images and what a model detects in them, at low scores too."""
    model = load_model(uri, config.train.device, config.evaluate.precision)
    settings = config.evaluate.model_copy(update={"confidence": min(config.evaluate.confidence, _CONFIDENCE)})
    pixels = (((split, image), read_pixels(config, image, model.pixel_settings)) for split, image in images)
    detected = tiled.predict_images(model, pixels, "combined", settings)
    for (split, image), detections in progress.track(detected, f"find-errors: fold {fold + 1}", len(images), "image"):
        yield Judged(image, split, detections, fold)


def end_run(paths: LabelErrorPaths, folds: int) -> None:
    """Delete the models of the folds and the record of the run."""
    for fold in range(folds):
        store.delete(paths.fold(fold))
    store.delete(paths.run_json)


def _train_fold(
    config: Config, snapshot: Snapshot, fold_of: Mapping[str, int], fold: int, home: str, max_seconds: float | None
) -> str:
    """Return the URI of the model, below `home`, that never saw a fold; one that an earlier try trained is taken."""
    for finished in store.glob(DatasetPaths(home).model("*").model_json):
        log.info("find-errors: fold %d is already trained", fold + 1)
        return finished.rsplit("/", 1)[0]
    config = training_config(config, snapshot)
    limits = [seconds for seconds in (config.train.max_seconds, max_seconds) if seconds is not None]
    chosen = config.model_copy(
        update={"train": config.train.model_copy(update={"max_seconds": min(limits, default=None)})}
    )
    rows = without_fold(snapshot.table("samples"), fold_of, fold)
    spec = replace(run.prepare_run(chosen, snapshot), train=rows, val=_validated(rows))
    return run.fit(chosen, snapshot, spec, home, chosen)["model"]


def without_fold(samples: pa.Table, fold_of: Mapping[str, int], fold: int) -> pa.Table:
    """Return the samples in which no pixel is of an image of the fold, sorted by id."""
    image_of = dict(zip(samples["sample_id"].to_pylist(), samples["image_id"].to_pylist(), strict=True))
    parents = pc.struct_field(samples["recipe"], "parents").to_pylist()
    own = [
        all(fold_of[image] != fold for image in (image_id, *(image_of[parent] for parent in of_sample)))
        for image_id, of_sample in zip(samples["image_id"].to_pylist(), parents, strict=True)
    ]
    return samples.filter(pa.array(own, pa.bool_())).sort_by("sample_id")


def _validated(rows: pa.Table) -> pa.Table:
    """Return some of the training's own samples: held-out ones would choose the epoch by the labels to be judged."""
    plain = rows.filter(pc.equal(pc.struct_field(rows["recipe"], "kind"), BASE))
    step = max(min(_VALIDATED, len(plain) // _LEAST_VALIDATED), 1)
    return plain.take(pa.array(range(0, len(plain), step), pa.int64()))
