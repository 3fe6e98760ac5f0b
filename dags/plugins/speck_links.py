"""Links from tasks to their reports, for the operators and the web server."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlsplit

from airflow.configuration import conf
from airflow.sdk import BaseOperatorLink

PREFIX = "/speck"  # of every page, below Airflow's base URL


def pages_root() -> str:
    """Return the URL path of the pages."""
    return urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/") + PREFIX


class RunReport(BaseOperatorLink):
    """Link to the report of a run: the audit, the model or the evaluation."""

    name = "Report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the URL path that redirects to the report once it exists."""
        return f"{pages_root()}/runs/{quote(ti_key.dag_id)}/{quote(ti_key.run_id, safe='')}"


class AuditLink(RunReport):
    """Link to the audit of the snapshot that a build published."""

    name = "Audit"


class EvaluationLink(RunReport):
    """Link to the evaluation of a model."""

    name = "Evaluation"


class DashboardLink(BaseOperatorLink):
    """Link to the live Dask dashboard of a stage; the task pushes the address as an XCom once it is connected."""

    name = "Dask dashboard"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the dashboard's URL, empty without a cluster."""
        return str(operator.dashboard or "")


class PerformanceLink(BaseOperatorLink):
    """Link to Dask's performance report of the newest run of a stage."""

    name = "Dask report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the URL path of the report."""
        return f"{pages_root()}/dags/{quote(ti_key.dag_id)}/performance/{quote(operator.stage)}"
