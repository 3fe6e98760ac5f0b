"""The Dask cluster of compose.yaml as processes of this machine: no one connects without one of its certificates."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_ports

pytest.importorskip("distributed")
pytest.importorskip("cryptography")
DOCKER = Path(__file__).resolve().parents[2] / "docker"
FOLDER = "/opt/speck/certificates"
TLS = "DASK_DISTRIBUTED__COMM__TLS__"
REQUIRED = "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"
SECONDS = 60.0
CLIENT = """
import os
from etl.execution import cluster
with cluster.connect(os.environ["SPECK_SCHEDULER"]) as connected:
    print(connected.map(abs, [-1, -2, -3], label="abs"))
"""
RESULT = "[1, 2, 3]\n"
LIST_WORKERS = "import os; from dask.distributed import Client; print(Client(os.environ['SPECK_SCHEDULER']).nthreads())"


def environment(variables: dict[str, str]) -> dict[str, str]:
    """Return the variables of this process and these, with the programs of this Python first on the path."""
    return {**os.environ, **variables, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def run(line: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        line, env=environment(variables), capture_output=True, text=True, check=False, timeout=SECONDS
    )


def client(variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return run(["python", "-c", CLIENT], variables)


class Host:
    """The services of compose.yaml with addresses and folders of this machine."""

    def __init__(self, root: Path, services: dict[str, dict[str, Any]]) -> None:
        self.certificates, self._root = root / "certificates", root
        ports = dict(zip(("8786", "8787", "8790"), map(str, free_ports(3)), strict=True))
        text = re.sub(r"\b(8786|8787|8790)\b", lambda port: ports[port[0]], json.dumps(services))
        for there, here in {
            "dask-scheduler:": "127.0.0.1:",
            FOLDER: str(self.certificates),
            "/opt/speck/docker": str(DOCKER),
            "/tmp/dask": str(root / "dask"),
        }.items():
            text = text.replace(there, here)
        self.services: dict[str, dict[str, Any]] = json.loads(text)
        self._running: list[subprocess.Popen[bytes]] = []

    def variables(self, service: str, certificates: str = "certificates") -> dict[str, str]:
        """Return a service's variables, with the certificates of this folder."""
        values = self.services[service]["environment"]
        folder = str(self._root / certificates)
        return {name: str(value).replace(str(self.certificates), folder) for name, value in values.items()}

    def create_certificates(self, folder: str) -> subprocess.CompletedProcess[str]:
        (self._root / folder).mkdir(exist_ok=True)
        *line, _ = self.services["certificates"]["command"]
        return run([*line, str(self._root / folder)], {})

    def start(self, service: str, variables: dict[str, str]) -> Path:
        """Start a service, and return its log."""
        path = self._root / f"{service}-{len(self._running)}.log"
        with path.open("wb") as log:
            line = self.services[service]["command"]
            self._running.append(subprocess.Popen(line, env=environment(variables), stdout=log, stderr=log))
        return path

    def wait_until_healthy(self, service: str) -> None:
        _, *line = self.services[service]["healthcheck"]["test"]
        deadline = time.monotonic() + SECONDS
        while (done := run(line, {})).returncode != 0:
            assert time.monotonic() < deadline, done.stderr
            time.sleep(0.5)

    def end(self) -> None:
        for process in reversed(self._running):
            process.terminate()
        for process in self._running:
            process.wait(30)


@pytest.fixture(scope="module")
def host(services: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host with Dask's scheduler and a worker, and the certificates of another authority in `others`."""
    started = Host(tmp_path_factory.mktemp("host"), services)
    try:
        for folder in ("certificates", "others"):
            assert started.create_certificates(folder).returncode == 0
        for service in ("dask-scheduler", "dask-worker"):
            started.start(service, started.variables(service))
            started.wait_until_healthy(service)
        yield started
    finally:
        started.end()


def test_an_airflow_task_sends_work_to_the_workers(host: Host) -> None:
    done = client(host.variables("scheduler"))
    assert done.stdout == RESULT, done.stderr


@pytest.mark.parametrize("name", ["none", "of another authority", "foreign", "plain", "plain despite the settings"])
def test_a_client_without_a_certificate_of_the_authority_runs_nothing(host: Host, name: str) -> None:
    own = host.variables("scheduler")
    plain = {"SPECK_SCHEDULER": own["SPECK_SCHEDULER"].replace("tls://", "tcp://")}
    others = host.variables("scheduler", "others")
    refused = client(
        {
            "none": {"SPECK_SCHEDULER": own["SPECK_SCHEDULER"]},
            "of another authority": others,
            "foreign": {**own, f"{TLS}CLIENT__CERT": others[f"{TLS}CLIENT__CERT"]},
            "plain": plain,
            "plain despite the settings": {**own, **plain},
        }[name]
    )
    assert refused.returncode != 0 and refused.stdout == ""
    assert re.match(r"etl\.errors\.(Task|Config)Error: .{20}", refused.stderr.splitlines()[-1]), refused.stderr


def test_a_worker_of_another_authority_gets_no_work(host: Host) -> None:
    log = host.start("dask-trainer", host.variables("dask-trainer", "others"))
    deadline = time.monotonic() + SECONDS
    while "TLS certificate does not match" not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.5)
    done = run(["python", "-c", LIST_WORKERS], host.variables("scheduler"))
    assert done.stdout.count("tls://") == 1, done.stderr


def test_no_service_of_dask_starts_without_certificates(host: Host) -> None:
    for service in ("dask-scheduler", "dask-worker"):
        variables = {REQUIRED: host.variables(service)[REQUIRED]}
        assert run(host.services[service]["command"], variables).returncode != 0
