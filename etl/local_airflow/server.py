"""The local Airflow: its four components as processes of this machine, on SQLite, with a folder as its home."""

from __future__ import annotations

import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil  # type: ignore[import-untyped]

from etl.errors import ConfigError, SpeckError
from etl.local_airflow.client import AirflowClient, AirflowError

log = logging.getLogger("speck")

COMPONENTS: dict[str, tuple[str, ...]] = {
    "api-server": ("api-server",),
    # Task logs are read from the disk: no log servers, which would listen on every interface.
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}
DEFAULT_PORT = 8080
USER = "admin"
_HOST = "127.0.0.1"
_STATE = "stack.json"
_MARK = "SPECK_STACK"  # in the environment of every process of a stack, to its last descendant
_START_SECONDS = 300.0
_PROGRESS_SECONDS = 5.0
_GRACE_SECONDS = (8.0, 5.0, 5.0)  # for the components, for what they left, after force


@dataclass(frozen=True)
class Stack:
    """A running local Airflow; as a context manager it is stopped at the end."""

    home: Path
    url: str
    user: str
    password: str
    mark: str
    components: dict[str, int]  # pid by name

    @property
    def client(self) -> AirflowClient:
        """A client logged in as the stack's user."""
        return AirflowClient(self.url, self.user, self.password)

    def processes(self) -> list[int]:
        """Return the pids of everything the stack has running, tasks and their children included."""
        return [process.pid for process in _marked(self.mark)]

    def down(self) -> None:
        """Stop every process of the stack."""
        down(self.home)

    def __enter__(self) -> Stack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()


def up(home: Path, dags: Path, port: int | None = None, extra: Mapping[str, str] | None = None) -> Stack:
    """Return the local Airflow at home, started with the DAGs of a folder unless it runs already; healthy.

    `extra` is added to the environment of its tasks. Without a port the first free one from 8080 is taken.
    """
    home = home.resolve()
    if (running := find(home)) is not None:
        return running
    home.mkdir(parents=True, exist_ok=True)
    down(home)  # the rest of a stack that has died
    port = _port(port)
    password = _password(home)
    mark = secrets.token_hex(8)
    environ = environment(home, dags.resolve(), port) | dict(extra or {}) | {_MARK: mark}
    stack = Stack(home, f"http://{_HOST}:{port}", USER, password, mark, {})
    _write_state(stack)
    try:
        _migrate(home, environ)
        processes = {name: _start(home, name, arguments, environ) for name, arguments in COMPONENTS.items()}
        stack.components.update({name: process.pid for name, process in processes.items()})
        _write_state(stack)
        _wait_until_healthy(stack, processes)
        stack.client.set_pool("gpu", 1, "one training or evaluation at a time")
    except BaseException:
        down(home)
        raise
    return stack


def find(home: Path) -> Stack | None:
    """Return the stack that runs at home, None when none does or one of its components has ended."""
    stack = _read_state(home)
    if stack is None or not stack.components:
        return None
    alive = {process.pid for process in _marked(stack.mark)}
    return stack if alive.issuperset(stack.components.values()) else None


def down(home: Path) -> None:
    """Stop every process of the stack at home: asked first, then by force; nothing happens where none runs."""
    stack = _read_state(home.resolve())
    if stack is None:
        return
    first, second, last = _GRACE_SECONDS
    components = [process for process in _marked(stack.mark) if process.pid in stack.components.values()]
    _signal(components, signal.SIGTERM)
    _wait_until_gone(stack.mark, first)
    _signal(_marked(stack.mark), signal.SIGTERM)
    _wait_until_gone(stack.mark, second)
    _signal(_marked(stack.mark), signal.SIGKILL)
    if left := _wait_until_gone(stack.mark, last):
        raise SpeckError(f"processes that cannot be stopped: {', '.join(str(process.pid) for process in left)}")
    (stack.home / _STATE).unlink(missing_ok=True)


def environment(home: Path, dags: Path, port: int) -> dict[str, str]:
    """Return the environment of the components; no Airflow setting of the caller's own gets in."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW__", "AIRFLOW_HOME"))}
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
        kept
        | {f"AIRFLOW__{name}": value for name, value in settings.items()}
        | {
            "AIRFLOW_HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "DO_NOT_TRACK": "1",
            "SCARF_NO_ANALYTICS": "true",
            "PYTHONUNBUFFERED": "1",
            "SPT_NOENV": "1",  # process titles must not overwrite the environment: the mark is found in it
        }
    )


def _port(wanted: int | None) -> int:
    """Return the wanted port, which must be free, or the first free one: 8080, else any."""
    for port in (DEFAULT_PORT, 0) if wanted is None else (wanted,):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ConfigError("airflow", "port", f"{wanted}, which is in use", "a free port")


def _password(home: Path) -> str:
    """Return the user's password, made up at the first start; it must lie in its file before Airflow starts."""
    path = home / "passwords.json"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(json.dumps({USER: secrets.token_urlsafe(12)}), encoding="utf-8")
    return str(json.loads(path.read_text(encoding="utf-8"))[USER])


def _migrate(home: Path, environ: Mapping[str, str]) -> None:
    process = _start(home, "migrate", ("db", "migrate"), environ)
    for _ in beats("its database is made", _START_SECONDS):
        if process.poll() is not None:
            break
    process.kill()
    if (code := process.wait()) != 0:
        raise SpeckError(f"airflow db migrate ended with exit code {code}:\n{_tail(_log(home, 'migrate'))}")


def beats(what: str, seconds: float) -> Iterator[float]:
    """Yield the seconds waited, twice a second until the time is up, and say every few seconds what is waited for."""
    start = said = time.monotonic()
    while (now := time.monotonic()) - start < seconds:
        if now - said >= _PROGRESS_SECONDS:
            said = now
            log.info("Airflow: waiting until %s, %.0f s", what, now - start)
        yield now - start
        time.sleep(0.5)


def _start(home: Path, name: str, arguments: tuple[str, ...], environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with _log(home, name).open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "airflow", *arguments],
            env=environ,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait_until_healthy(stack: Stack, processes: Mapping[str, subprocess.Popen[bytes]]) -> None:
    client = AirflowClient(stack.url, stack.user, stack.password, retries=1)
    health: dict[str, str | None] = {}
    for _ in beats("all components are healthy", _START_SECONDS):
        for name, process in processes.items():
            if process.poll() is not None:
                raise SpeckError(
                    f"airflow {name} ended with exit code {process.returncode}:\n{_tail(_log(stack.home, name))}"
                )
        try:
            health = client.health()
        except AirflowError:
            health = {}  # not listening yet
        if len(health) >= len(COMPONENTS) and set(health.values()) == {"healthy"}:
            return
    raise SpeckError(f"Airflow is not healthy after {_START_SECONDS:.0f} s: {health}; its logs: {stack.home / 'logs'}")


def _marked(mark: str) -> list[psutil.Process]:
    """Return all processes, zombies left out, that carry the mark of a stack."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.uids().real == os.getuid() and process.environ().get(_MARK) == mark:
                found.append(process)
        except psutil.Error:
            continue  # ended meanwhile, or not ours to look into
    return found


def _signal(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def _wait_until_gone(mark: str, seconds: float) -> list[psutil.Process]:
    """Return what is left of the stack after at most this time."""
    deadline = time.monotonic() + seconds
    while (left := _marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def _log(home: Path, name: str) -> Path:
    path = home / "logs" / "components" / f"{name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _tail(path: Path, lines: int = 20) -> str:
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def _read_state(home: Path) -> Stack | None:
    path = home / _STATE
    if not path.exists():
        return None
    state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return Stack(**(state | {"home": Path(state["home"])}))


def _write_state(stack: Stack) -> None:
    path = stack.home / _STATE
    path.touch(mode=0o600)
    path.write_text(json.dumps(asdict(stack) | {"home": str(stack.home)}), encoding="utf-8")
