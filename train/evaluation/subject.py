"""What a detector is evaluated on, a split or all images of a dataset, and where the report is written."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa

from etl.config import Config
from etl.errors import ConfigError
from etl.lifecycle import champion, retrain
from etl.schema import SPLITS
from etl.snapshots.ground_truth import ALL, load_ground_truth
from etl.snapshots.missing_split import missing_split_error
from etl.snapshots.snapshot import Snapshot, is_newest, is_published
from etl.storage.paths import DatasetPaths, EvaluationPaths, ModelPaths, split_uri

log = logging.getLogger("speck")


@dataclass(frozen=True)
class Subject:
    """The images of a split of a snapshot, or all of them, and the configuration that they are read with."""

    config: Config
    snapshot: Snapshot
    split: str
    of_other_dataset: bool = False

    def load(self) -> tuple[pa.Table, pa.Table]:
        """Return images and boxes as `load_ground_truth` does; ConfigError without images."""
        images, truth = load_ground_truth(self.snapshot, self.split)
        if not images.num_rows:
            raise missing_split_error(self.snapshot, self.split)
        return images, truth


def training_snapshot(config: Config, model: str | None) -> str | None:
    """Return the URI of the snapshot that a model (its URI), without one the newest, was trained on.

    None if it was deleted or is none of the dataset, such as that of a trial.
    """
    model = model or retrain.newest_model(config)
    if model is None or not champion.is_own_model(config.home, model):
        return None
    name = retrain.trained_on(model)
    if "/" in name or not is_published(config.home, name):
        return None
    if not is_newest(config.home, name):
        log.info("evaluation: on snapshot %s that the model was trained on; --snapshot evaluates on a newer one", name)
    return DatasetPaths(config.home).snapshot(name).uri


def choose_subject(config: Config, snapshot: Snapshot, split: str | None, dataset: Config | None) -> Subject:
    """Return the subject: val unless `split` names another split; all images of another dataset.

    The images of another dataset are read as its file says, and measured with the settings of `config`.
    """
    if split not in (None, ALL, *SPLITS):
        raise ConfigError("speck evaluate", "--split", repr(split), f"one of {', '.join((*SPLITS, ALL))}")
    if dataset is None:
        return Subject(config, snapshot, split or "val")
    settings = dataset.model_copy(update={"evaluate": config.evaluate, "train": config.train})
    return Subject(settings, snapshot, split or ALL, of_other_dataset=True)


def is_own_evaluation(model: str, subject: Subject) -> bool:
    """Return whether a model is evaluated on val of the snapshot that it was trained on: only then it is changed."""
    trained_on = split_uri(retrain.trained_on(model)).id
    return subject.split == "val" and not subject.of_other_dataset and trained_on == subject.snapshot.id


def report_paths(config: Config, subject: Subject, model: str | None, detections: str | None) -> EvaluationPaths:
    """Return where the report is written: with the model only its own evaluation, every other one in its own folder."""
    if model is not None and is_own_evaluation(model, subject):
        return ModelPaths(model)
    name = split_uri(model).id if model is not None else PurePosixPath(str(detections)).stem
    newest = is_newest(config.home, subject.snapshot.id)
    is_default = detections is not None and newest and subject.split == "val" and not subject.of_other_dataset
    if not is_default:
        name = f"{name}-{subject.config.name}-{subject.snapshot.id}-{subject.split}"
    return DatasetPaths(config.home).evaluation(name)
