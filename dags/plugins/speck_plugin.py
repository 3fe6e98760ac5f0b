"""Speck's pages inside Airflow: Datasets in the menu, a tab on every DAG and run, links on the tasks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

_DAGS = str(Path(__file__).resolve().parents[1])
if _DAGS not in sys.path:  # the web server knows the folder of plugins only
    sys.path.append(_DAGS)

from plugins.report_links import PREFIX, AuditLink, EvaluationLink, root  # noqa: E402


async def _pages(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the app, which only the web server imports: every task loads the plugins too."""
    from plugins.report_app import app

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
    operator_extra_links: ClassVar = [AuditLink(), EvaluationLink()]
