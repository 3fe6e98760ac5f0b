"""The dataset files beside the DAGs, and the names that follow from each: DAG ids, Assets, defaults of the tasks."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import Asset, CronTriggerTimetable
from airflow.sdk.exceptions import AirflowTimetableInvalid

from etl.config import Config, ConfigError, load

DEFAULTS: dict[str, Any] = {
    "retries": 2,
    "retry_delay": timedelta(seconds=10),
    "retry_exponential_backoff": 2,
    "max_retry_delay": timedelta(minutes=5),
    "execution_timeout": timedelta(hours=12),
}


def folder() -> Path:
    """Return the folder of the dataset files: $SPECK_DATASETS, else `datasets` beside this file."""
    return Path(os.environ.get("SPECK_DATASETS") or Path(__file__).resolve().parent / "datasets").expanduser()


def read() -> tuple[dict[str, Config], dict[str, str]]:
    """Return the good files' configurations and the bad files' errors, both by path, in the order of the file names."""
    good: dict[str, Config] = {}
    bad: dict[str, str] = {}
    taken: dict[str, str] = {}
    for path in sorted([*folder().glob("*.yaml"), *folder().glob("*.yml")]):
        try:
            good[str(path)] = _checked(path, taken)
        except ConfigError as error:
            bad[str(path)] = str(error)
    return good, bad


def asset(dataset: str, kind: str) -> Asset:
    """Return the Asset of a dataset's source, snapshot or model."""
    return Asset(f"speck://{dataset}/{kind}")


def nightly(config: Config) -> CronTriggerTimetable:
    """Return the dataset's cron schedule, in its own time zone; a DAG switched on waits for its next night."""
    # The default, False, still makes up for a night missed by up to a tenth of the cron's period.
    return CronTriggerTimetable(config.schedule.cron, timezone=config.schedule.timezone, run_immediately=timedelta(0))


def _checked(path: Path, taken: dict[str, str]) -> Config:
    config = load(path)
    try:
        nightly(config).validate()
    except AirflowTimetableInvalid as error:
        raise ConfigError(path, "schedule.cron", repr(config.schedule.cron), f"a cron expression ({error})") from error
    if (first := taken.setdefault(config.name, path.name)) != path.name:
        raise ConfigError(path, "name", repr(config.name), f"a name of its own: {first} has this one")
    return config
