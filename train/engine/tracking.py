"""The scalars of a run for those who watch it: event files for TensorBoard, and MLflow where a server is named.

Ultralytics' own callbacks would trace the network at every start, patch every library that MLflow knows, and repeat
figures of validations long past.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from etl.storage import store
from etl.storage.paths import split_uri

log = logging.getLogger("speck")


class Tracker(Protocol):
    """Where scalars go, by the number of the epoch, from 1."""

    def write(self, scalars: Mapping[str, float], epoch: int) -> None:
        """Add scalars of an epoch."""

    def close(self, *, finished: bool) -> None:
        """End the run, which trained to its end or not."""


def trackers(kept: str, dataset: str, settings: Mapping[str, Any], done: int) -> list[Tracker]:
    """Return who watches the run kept at a URI, of which so many epochs are done; one line says who cannot, and why."""
    return [*_event_files(kept, done), *_mlflow(kept, dataset, settings)]


def folder(kept: str) -> Path:
    """Return where the event files of a run lie: in its folder, on this machine's disk where that is elsewhere."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return store.local_path(kept) or cache / "speck" / "runs" / split_uri(kept).id


def _event_files(kept: str, done: int) -> list[Tracker]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.info("no scalars for TensorBoard: the package tensorboard is not installed")
        return []
    try:
        writer = SummaryWriter(str(folder(kept)), purge_step=done + 1)  # hides later epochs of a killed try
    except OSError as error:
        log.warning("no scalars for TensorBoard: %s", error)
        return []
    log.info("watch the run with: tensorboard --logdir %s", folder(kept))
    return [EventFiles(writer)]


class EventFiles:
    """TensorBoard's files."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def write(self, scalars: Mapping[str, float], epoch: int) -> None:
        """Add scalars of an epoch, to be seen at once; a full disk is said, and does not end the training."""
        try:
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, epoch)
            self._writer.flush()
        except OSError as error:
            log.warning("epoch %d is missing for TensorBoard: %s", epoch, error)

    def close(self, *, finished: bool) -> None:
        """End the file."""
        try:
            self._writer.close()
        except OSError as error:
            log.warning("the file for TensorBoard was not ended: %s", error)


def _mlflow(kept: str, dataset: str, settings: Mapping[str, Any]) -> list[Tracker]:
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        return []
    try:
        import mlflow
    except ImportError:
        log.info("no run in MLflow: MLFLOW_TRACKING_URI is set, but the package mlflow is not installed")
        return []
    try:
        client = mlflow.MlflowClient()
        found = client.get_experiment_by_name(dataset)
        experiment = client.create_experiment(dataset) if found is None else found.experiment_id
        run = client.create_run(experiment, run_name=split_uri(kept).id).info.run_id
        client.log_batch(run, params=[mlflow.entities.Param(name, str(value)) for name, value in settings.items()])
    except mlflow.MlflowException as error:
        log.warning("no run in MLflow: %s", error)
        return []
    log.info("run %s of MLflow's experiment %s", run, dataset)
    return [MlflowRun(client, run)]


class MlflowRun:
    """A run in the dataset's experiment; each try of a training that is killed is one."""

    def __init__(self, client: Any, run: str) -> None:
        self._client, self._run = client, run

    def write(self, scalars: Mapping[str, float], epoch: int) -> None:
        """Add scalars of an epoch; a server that does not answer is said, and does not end the training."""
        import mlflow

        now = int(time.time() * 1000)
        plain = {name.replace("(", "").replace(")", ""): value for name, value in scalars.items()}  # a key has none
        metrics = [mlflow.entities.Metric(name, value, now, epoch) for name, value in plain.items()]
        try:
            self._client.log_batch(self._run, metrics=metrics)
        except mlflow.MlflowException as error:
            log.warning("epoch %d is missing in MLflow: %s", epoch, error)

    def close(self, *, finished: bool) -> None:
        """End the run as finished or failed."""
        import mlflow

        try:
            self._client.set_terminated(self._run, "FINISHED" if finished else "FAILED")
        except mlflow.MlflowException as error:
            log.warning("the run in MLflow was not ended: %s", error)
