"""The dataset files, and what each one defines in Airflow: Assets, schedule, deadline and default task arguments."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from airflow.sdk import Asset, AssetWatcher, CronTriggerTimetable
from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference
from airflow.sdk.exceptions import AirflowTimetableInvalid

from etl.config import Config, ConfigError, load
from etl.execution import limited_child

_PLUGINS = str(Path(__file__).resolve().parents[1] / "plugins")
if _PLUGINS not in sys.path:  # Airflow's plugins folder may be another one
    sys.path.append(_PLUGINS)

import speck_alerts  # noqa: E402
from speck_watcher import SourceWatcher  # noqa: E402

DEFAULT_ARGS: dict[str, Any] = {
    "retries": 2,
    "retry_delay": timedelta(seconds=10),
    "retry_exponential_backoff": 2,
    "max_retry_delay": timedelta(minutes=5),
    "execution_timeout": timedelta(hours=12),
    "on_failure_callback": speck_alerts.send_failure,
}


class _Reading(NamedTuple):
    """What a dataset file holds."""

    stamp: tuple[int, ...]  # of the file when it was read
    found: Config | ConfigError
    until: float = math.inf  # on the monotonic clock, when it is read again although it has not changed


_RETRY_SECONDS = 300.0  # after a child process failed: the machine may have been busy
_readings: dict[str, _Reading] = {}  # by path
_lock = threading.Lock()


class DatasetFiles(NamedTuple):
    """The dataset files of the folder, by path, in the order of their names."""

    configs: dict[str, Config]  # of valid files
    errors: dict[str, str]  # of invalid files


def datasets_folder() -> Path:
    """Return the folder of the dataset files: $SPECK_DATASETS, or `dags/datasets`."""
    return Path(os.environ.get("SPECK_DATASETS") or Path(__file__).resolve().parents[1] / "datasets").expanduser()


def load_datasets() -> DatasetFiles:
    """Read all dataset files; an invalid file does not affect the others.

    A file is read when it is new or has changed, after a child process has read it within limits of time and memory.
    """
    folder = datasets_folder()
    paths = [str(path) for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])]
    with _lock:
        return _unique(_read_changed(paths))


def _read_changed(paths: Sequence[str]) -> dict[str, Config | ConfigError]:
    """Return what each file holds, and keep it until the file changes; a file not read within the limits is retried."""
    stamps, now = {path: _stamp(path) for path in paths}, time.monotonic()
    changed = [path for path in paths if not _is_current(_readings.get(path), stamps[path], now)]
    failures = limited_child.failures(f"{__name__}:load_dataset", changed)
    for path in changed:
        if path in failures:
            error = ConfigError(path, "", f"a file that {failures[path]}", "a dataset file")
            _readings[path] = _Reading(stamps[path], error, time.monotonic() + _RETRY_SECONDS)
        else:
            _readings[path] = _Reading(stamps[path], _load_or_error(path))
    for path in _readings.keys() - stamps.keys():
        del _readings[path]
    return {path: _readings[path].found for path in paths}


def _is_current(reading: _Reading | None, stamp: tuple[int, ...], now: float) -> bool:
    return reading is not None and reading.stamp == stamp and now < reading.until


def _load_or_error(path: str) -> Config | ConfigError:
    try:
        return load_dataset(path)
    except ConfigError as error:
        return error


def _stamp(path: str) -> tuple[int, ...]:
    """Return what differs when a file was changed; nothing of a broken link."""
    try:
        status = Path(path).stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def _unique(found: Mapping[str, Config | ConfigError]) -> DatasetFiles:
    """Return the files, of those with one name only the first as valid."""
    files = DatasetFiles({}, {})
    file_of_name: dict[str, str] = {}
    for path, config in found.items():
        if isinstance(config, ConfigError):
            files.errors[path] = str(config)
        elif (first := file_of_name.setdefault(config.name, Path(path).name)) != Path(path).name:
            expected = f"a unique name: {first} has the same"
            files.errors[path] = str(ConfigError(path, "name", repr(config.name), expected))
        else:
            files.configs[path] = config
    return files


def make_asset(dataset: str, kind: str) -> Asset:
    """Return the Asset of a dataset's source, snapshot or model."""
    return Asset(_asset_uri(dataset, kind))


def make_source_asset(path: str, config: Config) -> Asset:
    """Return the Asset of a dataset's source, with a watcher unless `watch.poll_seconds` is null."""
    uri, seconds = _asset_uri(config.name, "source"), config.watch.poll_seconds
    if seconds is None:
        return Asset(uri)
    return Asset(uri, watchers=[AssetWatcher(name=f"{config.name}_source", trigger=SourceWatcher(path, seconds))])


def make_deadline(config: Config) -> DeadlineAlert | None:
    """Return the alert for a build that exceeds `schedule.late_after` minutes, None if that is null."""
    if (minutes := config.schedule.late_after) is None:
        return None
    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(minutes=minutes),
        callback=AsyncCallback("speck_alerts.send_late_build", kwargs={"dataset": config.name, "minutes": minutes}),
    )


def make_timetable(config: Config) -> CronTriggerTimetable:
    """Return the dataset's cron schedule in its time zone; an unpaused DAG waits for the next scheduled time."""
    # The default, False, still runs a schedule missed by up to a tenth of the cron's period.
    return CronTriggerTimetable(config.schedule.cron, timezone=config.schedule.timezone, run_immediately=timedelta(0))


def _asset_uri(dataset: str, kind: str) -> str:
    return f"speck://{dataset}/{kind}"


def load_dataset(path: str) -> Config:
    """Return the configuration of a file; ConfigError also if its schedule is invalid."""
    from croniter import CroniterBadDateError, croniter

    config = load(path)
    try:
        make_timetable(config).validate()
        croniter(config.schedule.cron).get_next()  # 30 February is well-formed, but would stop the scheduler
    except (AirflowTimetableInvalid, CroniterBadDateError) as error:
        raise ConfigError(path, "schedule.cron", repr(config.schedule.cron), f"a cron expression ({error})") from error
    return config
