"""What Airflow shows of Speck: Datasets in the menu, a tab on every DAG and run, links on tasks, notes on runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

_HERE = Path(__file__).resolve().parent
sys.path += [str(folder) for folder in (_HERE, _HERE.parent) if str(folder) not in sys.path]  # as the DAG files have it

import speck_notes  # noqa: E402
from speck_links import PREFIX, AuditLink, DashboardLink, EvaluationLink, PerformanceLink, root  # noqa: E402


async def _pages(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the app, which only the web server imports: every task loads the plugins too."""
    from speck_pages import app

    await app(scope, receive, send)


def _view(name: str, route: str, destination: str, path: str) -> dict[str, Any]:
    return {"name": name, "url_route": route, "destination": destination, "href": f"{root()}{path}"}


class SpeckPlugin(AirflowPlugin):
    """What Airflow loads from this folder."""

    name = "speck"
    fastapi_apps: ClassVar = [{"name": "speck", "app": _pages, "url_prefix": PREFIX}]
    external_views: ClassVar = [
        _view("Datasets", "datasets", "nav", "/datasets") | {"nav_top_level": True},
        _view("Dataset", "dataset", "dag", "/dags/{DAG_ID}"),
        _view("Report", "report", "dag_run", "/runs/{DAG_ID}/{RUN_ID}"),
    ]
    operator_extra_links: ClassVar = [AuditLink(), DashboardLink(), EvaluationLink(), PerformanceLink()]
    listeners: ClassVar = [speck_notes]
