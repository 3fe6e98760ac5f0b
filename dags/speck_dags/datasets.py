"""The dataset files, and what each one defines in Airflow: Assets, schedule, deadline and default task arguments."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from airflow.sdk import Asset, AssetWatcher, CronTriggerTimetable
from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference
from airflow.sdk.exceptions import AirflowTimetableInvalid

from etl.config import Config, ConfigError, load

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


class DatasetFiles(NamedTuple):
    """The dataset files of the folder, by path, in the order of their names."""

    configs: dict[str, Config]  # of valid files
    errors: dict[str, str]  # of invalid files


def datasets_folder() -> Path:
    """Return the folder of the dataset files: $SPECK_DATASETS, or `dags/datasets`."""
    return Path(os.environ.get("SPECK_DATASETS") or Path(__file__).resolve().parents[1] / "datasets").expanduser()


def load_datasets() -> DatasetFiles:
    """Read all dataset files; an invalid file does not affect the others."""
    files = DatasetFiles({}, {})
    file_of_name: dict[str, str] = {}
    folder = datasets_folder()
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        try:
            files.configs[str(path)] = _load_dataset(path, file_of_name)
        except ConfigError as error:
            files.errors[str(path)] = str(error)
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


def _load_dataset(path: Path, file_of_name: dict[str, str]) -> Config:
    """Return the configuration of a file and record its name; ConfigError if its schedule is invalid or name taken."""
    from croniter import CroniterBadDateError, croniter

    config = load(path)
    try:
        make_timetable(config).validate()
        croniter(config.schedule.cron).get_next()  # 30 February is well-formed, but would stop the scheduler
    except (AirflowTimetableInvalid, CroniterBadDateError) as error:
        raise ConfigError(path, "schedule.cron", repr(config.schedule.cron), f"a cron expression ({error})") from error
    if (first := file_of_name.setdefault(config.name, path.name)) != path.name:
        raise ConfigError(path, "name", repr(config.name), f"a unique name: {first} has the same")
    return config
