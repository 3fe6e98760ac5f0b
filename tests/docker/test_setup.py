"""The setup that runs at every start of the production stack, against a database of Airflow."""

from __future__ import annotations

import base64
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def start(services, tmp_path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that runs the setup as at a start of the stack, with these variables changed in .env."""
    pytest.importorskip("airflow.providers.fab", reason="apache-airflow-providers-fab is not installed")
    program, option, script = services["setup"]["command"]
    here = {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(bytes(32)).decode(),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(tmp_path / "plugins"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(tmp_path / "logs"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }

    def run(**changes: str) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, **services["setup"]["environment"], **here, **changes}
        line = [program, option, script.replace("$$", "$")]
        return subprocess.run(line, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


def users(folder: Path) -> dict[str, str]:
    """Return the hashed passwords by user."""
    with sqlite3.connect(folder / "airflow.db") as database:
        return dict(database.execute("SELECT username, password FROM ab_user"))


def test_a_changed_password_of_the_administrator_is_taken_at_the_next_start(start, tmp_path):
    from werkzeug.security import check_password_hash

    for password in ("first-password", "second-password"):
        done = start(ADMIN_PASSWORD=password)
        assert done.returncode == 0, done.stderr[-2000:]
        assert users(tmp_path).keys() == {"admin"}
        assert check_password_hash(users(tmp_path)["admin"], password)
    assert "second-password" not in done.stdout + done.stderr
