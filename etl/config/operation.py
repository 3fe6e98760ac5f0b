"""The sections that decide when and where things run, and how much is kept."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from etl.config.base import Fraction, Positive, Section


class Schedule(Section):
    """When Airflow starts the nightly build."""

    cron: str = "0 2 * * *"
    """Start times as five cron fields: minute, hour, day, month, weekday. The default is every night at two."""
    timezone: str = "UTC"
    """IANA time zone of `schedule.cron`, such as Europe/Berlin."""
    late_after: Annotated[int, Field(gt=0, le=44_640)] | None = 240
    """Minutes after which an unfinished build raises an alert, at most 44640 (31 days); null never does."""

    @field_validator("cron")
    @classmethod
    def _five_fields(cls, value: str) -> str:
        if len(value.split()) != 5:
            raise ValueError("five cron fields: minute hour day month weekday")
        return value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # `Europe` is a folder
            raise ValueError("an IANA time zone such as UTC or Europe/Berlin") from error
        return value


class Watch(Section):
    """How Airflow watches the source for new data."""

    poll_seconds: Positive | None = 300
    """Seconds between two listings of the source; a complete change starts a build. null switches watching off."""


class Workers(Section):
    """Where Airflow runs the parts of a build."""

    workers: Positive | None = None
    """Workers of a Dask cluster that is started for each run and shut down after it; null uses the scheduler in the
    environment variable SPECK_SCHEDULER, else the cores of the machine that runs the task."""


class Retrain(Section):
    """When a new snapshot starts a training."""

    min_change: Fraction = 0.02
    """Share of boxes that must have changed since the last model's snapshot, 0 to 1. Changed settings always start a
    training."""


class Retention(Section):
    """How much history `speck gc` keeps."""

    snapshots: Positive = 30
    """Newest snapshots to keep. Those that the head, the champion or its predecessor refer to always stay."""
    models: Positive = 10
    """Newest models to keep. The champion, its predecessor and the champions of the last year always stay."""
