"""Links from the tasks to the pages of what they made; the tasks and the web server know them."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlsplit

from airflow.configuration import conf
from airflow.sdk import BaseOperatorLink

PREFIX = "/speck"  # of every page, below Airflow's own address


def root() -> str:
    """Return the path at which the pages begin."""
    return urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/") + PREFIX


class RunReport(BaseOperatorLink):
    """The page of what a run made: the audit, the model or the evaluation."""

    name = "Report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the place that leads on to the page once there is one."""
        return f"{root()}/runs/{quote(ti_key.dag_id)}/{quote(ti_key.run_id, safe='')}"


class AuditLink(RunReport):
    """The audit of the snapshot that a build published."""

    name = "Audit"


class EvaluationLink(RunReport):
    """The evaluation of the model that was judged."""

    name = "Evaluation"


class DashboardLink(BaseOperatorLink):
    """The live dashboard of the Dask cluster that a stage runs on; the task tells the address as soon as it has it."""

    name = "Dask dashboard"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the address, empty where there was no cluster."""
        return str(operator.dashboard or "")


class PerformanceLink(BaseOperatorLink):
    """The page of what the Dask cluster did in the newest run of a stage."""

    name = "Dask report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the place of the page."""
        return f"{root()}/dags/{quote(ti_key.dag_id)}/performance/{quote(operator.stage)}"
