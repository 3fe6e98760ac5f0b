"""Write the scalars of a run to TensorBoard event files, and to MLflow if MLFLOW_TRACKING_URI is set.

Ultralytics' callbacks are not used: they trace the network at every start, enable MLflow's autologging for every
library, and repeat the metrics of earlier validations.
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
    """A destination for scalars by epoch, counted from 1."""

    def write(self, scalars: Mapping[str, float], epoch: int) -> None:
        """Write the scalars of an epoch."""

    def close(self, *, finished: bool) -> None:
        """Close the run as finished or failed."""


def start_trackers(run_uri: str, dataset: str, settings: Mapping[str, Any], epochs_done: int) -> list[Tracker]:
    """Return the available trackers for a run; log the reason for each that is not available."""
    return [*_start_tensorboard(run_uri, epochs_done), *_start_mlflow(run_uri, dataset, settings)]


def log_folder(run_uri: str) -> Path:
    """Return the folder of a run's event files: the run's folder, or the local cache if the run's folder is remote."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return store.local_path(run_uri) or cache / "speck" / "runs" / split_uri(run_uri).id


def _start_tensorboard(run_uri: str, epochs_done: int) -> list[Tracker]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.info("TensorBoard is off: the package tensorboard is not installed")
        return []
    try:
        writer = SummaryWriter(str(log_folder(run_uri)), purge_step=epochs_done + 1)  # hides epochs of a killed run
    except OSError as error:
        log.warning("TensorBoard is off: %s", error)
        return []
    log.info("watch the run with: tensorboard --logdir %s", log_folder(run_uri))
    return [TensorBoardTracker(writer)]


class TensorBoardTracker:
    """Writes TensorBoard event files."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def write(self, scalars: Mapping[str, float], epoch: int) -> None:
        """Write and flush the scalars of an epoch; a failed write is logged and does not stop the training."""
        try:
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, epoch)
            self._writer.flush()
        except OSError as error:
            log.warning("could not write epoch %d to TensorBoard: %s", epoch, error)

    def close(self, *, finished: bool) -> None:
        """Close the file."""
        try:
            self._writer.close()
        except OSError as error:
            log.warning("could not close the TensorBoard event file: %s", error)


def _start_mlflow(run_uri: str, dataset: str, settings: Mapping[str, Any]) -> list[Tracker]:
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        return []
    try:
        import mlflow
    except ImportError:
        log.info("MLflow is off: MLFLOW_TRACKING_URI is set, but the package mlflow is not installed")
        return []
    try:
        client = mlflow.MlflowClient()
        existing = client.get_experiment_by_name(dataset)
        experiment = client.create_experiment(dataset) if existing is None else existing.experiment_id
        run = client.create_run(experiment, run_name=split_uri(run_uri).id).info.run_id
        client.log_batch(run, params=[mlflow.entities.Param(name, str(value)) for name, value in settings.items()])
    except mlflow.MlflowException as error:
        log.warning("MLflow is off: %s", error)
        return []
    log.info("MLflow run %s in experiment %s", run, dataset)
    return [MlflowTracker(client, run)]


class MlflowTracker:
    """Writes to a run in the dataset's MLflow experiment; a resumed training starts a new one."""

    def __init__(self, client: Any, run: str) -> None:
        self._client, self._run = client, run

    def write(self, scalars: Mapping[str, float], epoch: int) -> None:
        """Write the scalars of an epoch; an unreachable server is logged and does not stop the training."""
        import mlflow

        now = int(time.time() * 1000)
        plain = {name.replace("(", "").replace(")", ""): value for name, value in scalars.items()}  # not allowed
        metrics = [mlflow.entities.Metric(name, value, now, epoch) for name, value in plain.items()]
        try:
            self._client.log_batch(self._run, metrics=metrics)
        except mlflow.MlflowException as error:
            log.warning("could not write epoch %d to MLflow: %s", epoch, error)

    def close(self, *, finished: bool) -> None:
        """Close the run as finished or failed."""
        import mlflow

        try:
            self._client.set_terminated(self._run, "FINISHED" if finished else "FAILED")
        except mlflow.MlflowException as error:
            log.warning("could not close the MLflow run: %s", error)
