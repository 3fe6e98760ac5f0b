"""Speck's Airflow plugin: the Datasets menu, tabs on DAGs and runs, links on tasks, notes on runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from airflow.plugins_manager import AirflowPlugin

_HERE = Path(__file__).resolve().parent
sys.path += [str(folder) for folder in (_HERE, _HERE.parent) if str(folder) not in sys.path]  # as for the DAG files

import speck_notes  # noqa: E402
from speck_links import PREFIX, AuditLink, DashboardLink, EvaluationLink, PerformanceLink, pages_root  # noqa: E402


async def _pages(scope: Any, receive: Any, send: Any) -> None:
    """Run the web application; imported at the first request, as every task loads the plugins too."""
    from speck_pages import app

    await app(scope, receive, send)


def _view(name: str, route: str, destination: str, path: str) -> dict[str, Any]:
    return {"name": name, "url_route": route, "destination": destination, "href": f"{pages_root()}{path}"}


class SpeckPlugin(AirflowPlugin):
    """The plugin that Airflow loads from this folder."""

    name = "speck"
    fastapi_apps = [{"name": "speck", "app": _pages, "url_prefix": PREFIX}]
    external_views = [
        _view("Datasets", "datasets", "nav", "/datasets") | {"nav_top_level": True},
        _view("Dataset", "dataset", "dag", "/dags/{DAG_ID}"),
        _view("Label errors", "label_errors", "dag", "/dags/{DAG_ID}/label_errors"),
        _view("Report", "report", "dag_run", "/runs/{DAG_ID}/{RUN_ID}"),
    ]
    operator_extra_links = [AuditLink(), DashboardLink(), EvaluationLink(), PerformanceLink()]
    listeners = [speck_notes]
