"""Write the scalars of a run to TensorBoard event files, and to MLflow if MLFLOW_TRACKING_URI is set.

Ultralytics' callbacks are not used: they trace the network at every start, enable MLflow's autologging for every
library, and repeat the metrics of earlier validations.
"""

from __future__ import annotations

import logging
import os
import socket
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
        return [TensorBoardTracker(log_folder(run_uri), epochs_done)]
    except ImportError:
        log.info("TensorBoard is off: the package tensorboard is not installed")
    except OSError as error:
        log.warning("TensorBoard is off: %s", error)
    return []


class TensorBoardTracker:
    """Writes a TensorBoard event file.

    TensorBoard's own writer works in a thread, which prints a traceback when the disk is full.
    """

    def __init__(self, folder: Path, epochs_done: int) -> None:
        """Open a new file in the folder; it hides the later epochs of a killed run. ImportError without TensorBoard."""
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}.{time.monotonic_ns()}"
        self._file = (folder / name).open("wb")
        self._records = RecordWriter(self._file)
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._append(file_version="brain.Event:2")
        self._append(step=epochs_done + 1, session_log=start)
        self._file.flush()
        log.info("watch the run with: tensorboard --logdir %s", folder)

    def _append(self, **values: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **values).SerializeToString())

    def write(self, scalars: Mapping[str, float], epoch: int) -> None:
        """Write and flush the scalars of an epoch; a failed write is logged and does not stop the training."""
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        try:
            self._append(step=epoch, summary=self._summary(value=values))
            self._file.flush()
        except OSError as error:
            log.warning("could not write epoch %d to TensorBoard: %s", epoch, error)

    def close(self, *, finished: bool) -> None:
        """Close the file."""
        try:
            self._file.close()
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
