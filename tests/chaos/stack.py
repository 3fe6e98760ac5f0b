"""A live Airflow whose components and tasks are killed, and started again as a supervisor would."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from etl.execution import daemon
from etl.local_airflow import server
from etl.local_airflow.client import ENDED, AirflowClient, AirflowError

DAGS = Path(__file__).resolve().parents[2] / "dags"
QUICKER = {  # than a production's: a lost task is found within half a minute
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "15",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "15",
}
_PROGRAMS = {"kill training": "train.cli", "kill Dask worker": "dask worker", "kill Dask scheduler": "dask scheduler"}


class Stack:
    """A local Airflow, and what can be done to it."""

    def __init__(self, airflow: server.LocalAirflow) -> None:
        self.airflow, self.client = airflow, airflow.client
        self.pids = dict(airflow.components)
        self._environ = psutil.Process(self.pids["scheduler"]).environ()

    def strike(self, kind: str, rng: random.Random) -> bool:
        """Do what a fault of this kind does; return whether there was something to strike."""
        verb, _, name = kind.partition(" ")
        if name in self.pids:
            self._strike_component(verb, name, rng)
            return True
        victims = self.running(_PROGRAMS[kind]) if kind in _PROGRAMS else self._tasks()
        if not victims:
            return False
        victim = rng.choice(victims)
        daemon.send_signal([victim], 15 if verb == "terminate" else 9)
        return True

    def running(self, program: str) -> list[psutil.Process]:
        """Return the processes of this Airflow whose command line has this text."""
        return [process for process in self._processes() if program in command_of(process)]

    def wait_until_idle(self, seconds: float) -> dict[str, str]:
        """Wait until no run has been queued or running for a moment; return the runs that still are, by id."""
        deadline, quiet = time.monotonic() + seconds, 0
        unended = {"": "not asked"}
        while time.monotonic() < deadline:
            unended = self._ask(self._unended, unended)
            quiet = 0 if unended else quiet + 1
            if quiet == 4:  # an Asset's event starts a run some seconds later
                return {}
            time.sleep(2)
        return unended

    def end(self) -> None:
        """Stop it."""
        self.airflow.down()

    def _strike_component(self, verb: str, name: str, rng: random.Random) -> None:
        process = psutil.Process(self.pids[name])
        if verb == "suspend":
            process.suspend()
            time.sleep(rng.choice([5, 20, 45]))
            process.resume()
            return
        # A container is killed with all its processes; a process alone leaves those that it started.
        whole = name == "api-server" or rng.random() < 0.5
        daemon.send_signal([process, *(process.children(recursive=True) if whole else ())], 9)
        time.sleep(rng.choice([0, 2, 10]))
        arguments = [sys.executable, "-P", "-m", "airflow", *server.COMPONENTS[name]]
        log = self.airflow.home / "logs" / "components" / f"{name}-{time.monotonic_ns()}.log"
        self.pids[name] = daemon.start(arguments, self.airflow.home, log, self._environ).pid

    def _unended(self) -> dict[str, str]:
        runs = {run: state for dag in self.client.dags() for run, state in self.client.runs(dag).items()}
        return {run: state for run, state in runs.items() if state not in ENDED}

    def _tasks(self) -> list[psutil.Process]:
        """Return the processes of running tasks."""
        records = self._ask(self._task_records, [])
        pids = {record["pid"] for record in records if record["state"] == "running" and record["pid"]}
        return [process for process in self._processes() if process.pid in pids]

    def _task_records(self) -> list[dict[str, Any]]:
        return self.client.list_all("dags/~/dagRuns/~/taskInstances", "task_instances", state="running")

    def _ask(self, question: Callable[[], Any], default: Any) -> Any:
        try:
            return question()
        except AirflowError:  # the api-server may be the one that was killed
            return default

    def _processes(self) -> list[psutil.Process]:
        found = []
        for pid in self.airflow.processes():
            try:
                found.append(psutil.Process(pid))
            except psutil.NoSuchProcess:
                continue
        return found


def command_of(process: psutil.Process) -> str:
    """Return the command line of a process, empty if it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def start(home: Path, datasets: Path) -> Stack:
    """Start an Airflow with the dataset files of a folder, and unpause their DAGs."""
    extra = QUICKER | {"SPECK_DATASETS": str(datasets), "SPECK_TRAIN_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    airflow = server.up(home, DAGS, port=0, extra=extra)
    try:
        stack = Stack(airflow)
        wait_for_dags(stack.client, 3)
        for dag in stack.client.dags():
            stack.client.pause(dag, False)
    except BaseException:
        airflow.down()
        raise
    return stack


def wait_for_dags(client: AirflowClient, number: int) -> None:
    """Wait until so many DAGs were parsed."""
    for _ in server.poll("the DAGs are parsed", 120):
        if len(client.dags()) >= number:
            return
    raise AssertionError(client.import_errors())
