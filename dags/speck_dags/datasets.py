"""The dataset files beside the DAGs, and the names that follow from each: DAG ids, Assets, defaults of the tasks."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import Asset, AssetWatcher, AsyncCallback, CronTriggerTimetable, DeadlineAlert, DeadlineReference
from airflow.sdk.exceptions import AirflowTimetableInvalid

from etl.config import Config, ConfigError, load

_PLUGINS = str(Path(__file__).resolve().parents[1] / "plugins")
if _PLUGINS not in sys.path:  # an Airflow whose plugins folder is another one reads the DAGs all the same
    sys.path.append(_PLUGINS)

import speck_alerts  # noqa: E402
from speck_watcher import SourceWatcher  # noqa: E402

DEFAULTS: dict[str, Any] = {
    "retries": 2,
    "retry_delay": timedelta(seconds=10),
    "retry_exponential_backoff": 2,
    "max_retry_delay": timedelta(minutes=5),
    "execution_timeout": timedelta(hours=12),
    "on_failure_callback": speck_alerts.failed,
}


def folder() -> Path:
    """Return the folder of the dataset files: $SPECK_DATASETS, else `datasets` beside this file."""
    return Path(os.environ.get("SPECK_DATASETS") or Path(__file__).resolve().parents[1] / "datasets").expanduser()


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


def watched(path: str, config: Config) -> Asset:
    """Return the Asset of a dataset's source, which Airflow watches for new data unless the file says not to."""
    name, seconds = f"speck://{config.name}/source", config.watch.poll_seconds
    if seconds is None:
        return Asset(name)
    return Asset(name, watchers=[AssetWatcher(name=f"{config.name}_source", trigger=SourceWatcher(path, seconds))])


def deadline(config: Config) -> DeadlineAlert | None:
    """Return the alert of a build that takes too long, None if the file wants none."""
    if (minutes := config.schedule.late_after) is None:
        return None
    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(minutes=minutes),
        callback=AsyncCallback("speck_alerts.late", kwargs={"dataset": config.name, "minutes": minutes}),
    )


def nightly(config: Config) -> CronTriggerTimetable:
    """Return the dataset's cron schedule, in its own time zone; a DAG switched on waits for its next night."""
    # The default, False, still makes up for a night missed by up to a tenth of the cron's period.
    return CronTriggerTimetable(config.schedule.cron, timezone=config.schedule.timezone, run_immediately=timedelta(0))


def _checked(path: Path, taken: dict[str, str]) -> Config:
    from croniter import CroniterBadDateError, croniter

    config = load(path)
    try:
        nightly(config).validate()
        croniter(config.schedule.cron).get_next()  # 30 February is well formed, and would stop the scheduler
    except (AirflowTimetableInvalid, CroniterBadDateError) as error:
        raise ConfigError(path, "schedule.cron", repr(config.schedule.cron), f"a cron expression ({error})") from error
    if (first := taken.setdefault(config.name, path.name)) != path.name:
        raise ConfigError(path, "name", repr(config.name), f"a name of its own: {first} has this one")
    return config
