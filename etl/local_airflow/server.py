"""The local Airflow: its four components as processes of this machine, with SQLite, in one home folder."""

from __future__ import annotations

import json
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import Popen
from types import TracebackType
from typing import Any

import psutil  # type: ignore[import-untyped]

from etl.errors import ConfigError, SpeckError
from etl.execution import daemon
from etl.local_airflow.client import AirflowClient, AirflowError

log = logging.getLogger("speck")

COMPONENTS: dict[str, tuple[str, ...]] = {
    "api-server": ("api-server",),
    # Task logs are read from disk; the log servers would listen on every interface.
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}
DEFAULT_PORT = 8080
USER = "admin"
_HOST = "127.0.0.1"
_STATE = "stack.json"
_MARK = "SPECK_STACK"  # in the environment of every process of a local Airflow and its descendants
_START_SECONDS = 300.0
_PROGRESS_SECONDS = 5.0
_GRACE_SECONDS = (8.0, 5.0, 5.0)  # after SIGTERM to the components, SIGTERM to the rest, SIGKILL


@dataclass(frozen=True)
class LocalAirflow:
    """A running local Airflow; as a context manager it is stopped on exit."""

    home: Path
    url: str
    user: str
    password: str
    mark: str
    components: dict[str, int]  # pid by name

    @property
    def client(self) -> AirflowClient:
        """A REST client with the user's login."""
        return AirflowClient(self.url, self.user, self.password)

    def processes(self) -> list[int]:
        """Return the pids of all its processes, including tasks and their children."""
        return [process.pid for process in _marked(self.mark)]

    def down(self) -> None:
        """Stop all its processes."""
        down(self.home)

    def __enter__(self) -> LocalAirflow:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()


def up(home: Path, dags: Path, port: int | None = None, extra: Mapping[str, str] | None = None) -> LocalAirflow:
    """Start the local Airflow at home with a folder of DAGs, or find the running one; return it when it is healthy.

    `extra` is added to the environment of its tasks. Without a port, 8080 is used if it is free, else any free port.
    SpeckError if a component exits or is not healthy in time, ConfigError if the port is in use.
    """
    home = home.resolve()
    if (running := find(home)) is not None:
        return running
    home.mkdir(parents=True, exist_ok=True)
    down(home)  # stops leftover processes of a crashed one
    port = _choose_port(port)
    password = _load_password(home)
    mark = secrets.token_hex(8)
    environ = environment(home, dags.resolve(), port) | dict(extra or {}) | {_MARK: mark}
    airflow = LocalAirflow(home, f"http://{_HOST}:{port}", USER, password, mark, {})
    _write_state(airflow)
    try:
        _migrate(home, environ)
        processes = {name: _start(home, name, arguments, environ) for name, arguments in COMPONENTS.items()}
        airflow.components.update({name: process.pid for name, process in processes.items()})
        _write_state(airflow)
        _wait_until_healthy(airflow, processes)
        airflow.client.set_pool("gpu", 1, "one training or evaluation at a time")
    except BaseException:
        down(home)
        raise
    return airflow


def find(home: Path) -> LocalAirflow | None:
    """Return the local Airflow running at home, None if there is none or one of its components has ended."""
    airflow = _read_state(home)
    if airflow is None or not airflow.components:
        return None
    alive = {process.pid for process in _marked(airflow.mark)}
    return airflow if alive.issuperset(airflow.components.values()) else None


def down(home: Path) -> None:
    """Stop all processes of the local Airflow at home, with SIGTERM, then SIGKILL; does nothing if none runs."""
    airflow = _read_state(home.resolve())
    if airflow is None:
        return
    first, second, last = _GRACE_SECONDS
    components = [process for process in _marked(airflow.mark) if process.pid in airflow.components.values()]
    daemon.send_signal(components, signal.SIGTERM)
    _wait_until_gone(airflow.mark, first)
    daemon.send_signal(_marked(airflow.mark), signal.SIGTERM)
    _wait_until_gone(airflow.mark, second)
    daemon.send_signal(_marked(airflow.mark), signal.SIGKILL)
    if left := _wait_until_gone(airflow.mark, last):
        raise SpeckError(f"could not stop these processes: {', '.join(str(process.pid) for process in left)}")
    (airflow.home / _STATE).unlink(missing_ok=True)


def environment(home: Path, dags: Path, port: int) -> dict[str, str]:
    """Return the environment of the components, without the Airflow settings of the caller."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW__", "AIRFLOW_HOME"))
    }
    settings = {
        "CORE__DAGS_FOLDER": str(dags),
        "CORE__PLUGINS_FOLDER": str(dags / "plugins"),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": "4",
        "CORE__AUTH_MANAGER": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "CORE__EXECUTION_API_SERVER_URL": f"http://{_HOST}:{port}/execution/",
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "API__HOST": _HOST,
        "API__PORT": str(port),
        "API__BASE_URL": f"http://{_HOST}:{port}",
        "API__WORKERS": "1",
        "API__SECRET_KEY": secrets.token_hex(32),
        "API_AUTH__JWT_SECRET": secrets.token_hex(64),
        "DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
        "SCHEDULER__ENABLE_HEALTH_CHECK": "False",
    }
    return (
        inherited
        | {f"AIRFLOW__{name}": value for name, value in settings.items()}
        | {
            "AIRFLOW_HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "DO_NOT_TRACK": "1",
            "SCARF_NO_ANALYTICS": "true",
            "PYTHONUNBUFFERED": "1",
            "SPT_NOENV": "1",  # keep setproctitle from overwriting the environment, which holds the mark
        }
    )


def _choose_port(requested: int | None) -> int:
    """Return the requested port, or without one 8080 or any free port; ConfigError if the requested one is in use."""
    for port in (DEFAULT_PORT, 0) if requested is None else (requested,):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ConfigError("airflow", "port", f"{requested}, which is in use", "a free port")


def _load_password(home: Path) -> str:
    """Return the user's password, generated at the first start; Airflow reads it from its file."""
    path = home / "passwords.json"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(json.dumps({USER: secrets.token_urlsafe(12)}), encoding="utf-8")
    return str(json.loads(path.read_text(encoding="utf-8"))[USER])


def _migrate(home: Path, environ: Mapping[str, str]) -> None:
    process = _start(home, "migrate", ("db", "migrate"), environ)
    for _ in poll("the database is created", _START_SECONDS):
        if process.poll() is not None:
            break
    process.kill()
    if (code := process.wait()) != 0:
        raise SpeckError(f"airflow db migrate ended with exit code {code}:\n{_tail(_log_file(home, 'migrate'))}")


def poll(condition: str, seconds: float) -> Iterator[float]:
    """Yield the elapsed seconds twice a second until the time is up; log every few seconds what is waited for."""
    start = logged = time.monotonic()
    while (now := time.monotonic()) - start < seconds:
        if now - logged >= _PROGRESS_SECONDS:
            logged = now
            log.info("Airflow: waiting until %s, %.0f s", condition, now - start)
        yield now - start
        time.sleep(0.5)


def _start(home: Path, name: str, arguments: tuple[str, ...], environ: Mapping[str, str]) -> Popen[bytes]:
    return daemon.start([sys.executable, "-P", "-m", "airflow", *arguments], home, _log_file(home, name), environ)


def _wait_until_healthy(airflow: LocalAirflow, processes: Mapping[str, Popen[bytes]]) -> None:
    client = AirflowClient(airflow.url, airflow.user, airflow.password, retries=1)
    health: dict[str, str | None] = {}
    for _ in poll("all components are healthy", _START_SECONDS):
        for name, process in processes.items():
            if process.poll() is not None:
                raise SpeckError(
                    f"airflow {name} ended with exit code {process.returncode}:\n{_tail(_log_file(airflow.home, name))}"
                )
        try:
            health = client.health()
        except AirflowError:
            health = {}  # not listening yet
        if len(health) >= len(COMPONENTS) and set(health.values()) == {"healthy"}:
            return
    raise SpeckError(
        f"Airflow is not healthy after {_START_SECONDS:.0f} s: {health}; its logs: {airflow.home / 'logs'}"
    )


def _marked(mark: str) -> list[psutil.Process]:
    """Return the processes whose environment has the mark, without zombies."""
    processes = []
    for process in psutil.process_iter():
        try:
            if process.uids().real == os.getuid() and process.environ().get(_MARK) == mark:
                processes.append(process)
        except psutil.Error:
            continue  # it has ended, or its environment may not be read
    return processes


def _wait_until_gone(mark: str, seconds: float) -> list[psutil.Process]:
    """Return the processes with the mark that are left when all have ended or the time is up."""
    deadline = time.monotonic() + seconds
    while (left := _marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def _log_file(home: Path, name: str) -> Path:
    path = home / "logs" / "components" / f"{name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _tail(path: Path, lines: int = 20) -> str:
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def _read_state(home: Path) -> LocalAirflow | None:
    path = home / _STATE
    if not path.exists():
        return None
    state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return LocalAirflow(**(state | {"home": Path(state["home"])}))


def _write_state(airflow: LocalAirflow) -> None:
    path = airflow.home / _STATE
    path.touch(mode=0o600)
    path.write_text(json.dumps(asdict(airflow) | {"home": str(airflow.home)}), encoding="utf-8")
