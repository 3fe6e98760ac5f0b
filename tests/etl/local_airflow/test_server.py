"""The local Airflow's environment, port and password; tests/dags/test_chain.py runs it."""

from __future__ import annotations

import os
import socket
import stat
import sys
from pathlib import Path

import pytest

from etl.errors import ConfigError
from etl.local_airflow import server


def test_no_airflow_setting_of_the_caller_reaches_the_local_airflow(monkeypatch, tmp_path):
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://production/airflow")
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("AIRFLOW_HOME", "/etc/airflow")
    environ = server.environment(tmp_path, tmp_path / "dags", 8123)
    assert environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == f"sqlite:///{tmp_path}/airflow.db"
    assert (environ["AIRFLOW__CORE__EXECUTOR"], environ["AIRFLOW_HOME"]) == ("LocalExecutor", str(tmp_path))
    assert environ["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:8123/execution/"
    assert environ["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


def test_a_port_in_use_is_rejected_if_requested_and_skipped_by_default(monkeypatch, tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        monkeypatch.setattr(server, "DEFAULT_PORT", taken)
        assert server._choose_port(None) != taken
        with pytest.raises(ConfigError, match="in use, expected a free port"):
            server.up(tmp_path, tmp_path, port=taken)


def test_the_password_is_generated_once_and_readable_by_its_owner_only(tmp_path):
    password = server._load_password(tmp_path)
    assert len(password) >= 16
    assert server._load_password(tmp_path) == password
    assert stat.S_IMODE((tmp_path / "passwords.json").stat().st_mode) == 0o600


def test_stopping_where_nothing_runs_does_nothing(tmp_path):
    server.down(tmp_path)
    assert server.find(tmp_path) is None


def test_a_module_in_its_home_does_not_hide_airflow(tmp_path):
    pytest.importorskip("airflow")
    (tmp_path / "airflow.py").write_text("raise SystemExit('airflow.py of the home')\n")
    process = server._start(tmp_path, "version", ("version",), server.environment(tmp_path, tmp_path / "dags", 8123))
    assert process.wait(60) == 0, server._tail(server._log_file(tmp_path, "version"))
