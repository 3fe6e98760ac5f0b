"""The production setup as processes of this machine: PostgreSQL, S3, Dask with a GPU worker, and Airflow.

A few nights: a scheduled build, new files in S3 while a worker and a task are killed, and a build without changes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from etl.execution import daemon
from etl.lifecycle import champion
from etl.local_airflow import server
from etl.storage import store
from tests.ports import free_ports, wait_until_listening

DAGS = Path(__file__).resolve().parents[2] / "dags"
POSTGRES = all(shutil.which(name) for name in ("initdb", "postgres"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not POSTGRES, reason="no PostgreSQL is installed"),
]
KEYS = {"AWS_ACCESS_KEY_ID": "speck", "AWS_SECRET_ACCESS_KEY": "speck", "AWS_DEFAULT_REGION": "us-east-1"}
SPACE = "s3://lake/speck"


class Site:
    """The processes beside Airflow's own, each ended with the test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._running: list[subprocess.Popen[bytes]] = []
        self._database = Path(tempfile.mkdtemp(prefix="speck-postgres-"))  # where another user gets to

    def s3(self) -> str:
        """Start the S3 server and return its address."""
        (port,) = free_ports(1)
        self._start("s3", [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)])
        wait_until_listening(port)
        return f"http://127.0.0.1:{port}"

    def postgres(self) -> str:
        """Start a PostgreSQL, which refuses to run as root, and return its address for SQLAlchemy."""
        (port,), data = free_ports(1), self._database / "data"
        become = []
        if os.getuid() == 0:
            become = ["runuser", "-u", "postgres", "--"]
            shutil.chown(self._database, "postgres")
        initdb, postgres = (shutil.which(name) for name in ("initdb", "postgres"))
        subprocess.run(
            [*become, initdb, "-D", data, "-U", "airflow", "--auth=trust"], check=True, capture_output=True, cwd="/"
        )
        options = ["-D", str(data), "-p", str(port), "-k", str(self._database), "-c", "listen_addresses=127.0.0.1"]
        self._start("postgres", [*become, postgres, *options], cwd="/")
        wait_until_listening(port)
        return f"postgresql+psycopg2://airflow@127.0.0.1:{port}/postgres"

    def dask(self, environ: dict[str, str]) -> str:
        """Start a Dask scheduler, two workers and one that offers a GPU; return the scheduler's address."""
        (port,) = free_ports(1)
        address = f"tcp://127.0.0.1:{port}"
        dask = [sys.executable, "-m", "dask"]
        self._start(
            "scheduler", [*dask, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--dashboard-address", ":0"]
        )
        wait_until_listening(port)
        for name, more in {"one": (), "two": (), "gpu": ("--resources", "GPU=1")}.items():
            line = [*dask, "worker", address, "--name", name, "--nthreads", "1", "--dashboard-address", ":0", *more]
            self._start(f"worker-{name}", line, environ | {"DASK_DISTRIBUTED__WORKER__DAEMON": "False"})
        return address

    def workers(self, name: str) -> list[psutil.Process]:
        """Return the worker process that a nanny of this name watches over."""
        nannies = [p for p in self._running if p.args[0:1] == [sys.executable] and name in p.args]
        return [child for nanny in nannies for child in psutil.Process(nanny.pid).children() if is_worker(child)]

    def end(self) -> None:
        """Stop everything, the newest first."""
        for process in reversed(self._running):
            if process.poll() is None:
                daemon.send_signal(psutil.Process(process.pid).children(recursive=True), signal.SIGTERM)
            process.terminate()
        for process in self._running:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._database, ignore_errors=True)

    def _start(self, name: str, line: list[str], environ: dict[str, str] | None = None, cwd: str | None = None) -> None:
        with (self.root / f"{name}.log").open("wb") as log:
            self._running.append(
                subprocess.Popen(
                    line, env=os.environ | (environ or {}), cwd=cwd or self.root, stdout=log, stderr=subprocess.STDOUT
                )
            )


def is_worker(process: psutil.Process) -> bool:
    return "resource_tracker" not in " ".join(process.cmdline())


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Site]:
    started = Site(tmp_path_factory.mktemp("site"))
    yield started
    started.end()


@pytest.fixture(scope="module")
def s3(site) -> Iterator[dict[str, str]]:
    """The settings that lead to an S3 server with an empty bucket, also for this process."""
    settings = KEYS | {"AWS_ENDPOINT_URL": site.s3()}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        import s3fs

        s3fs.S3FileSystem().mkdir("lake")
        yield settings


@pytest.fixture(scope="module")
def deliver(s3, tiny, site):
    """Return a function that copies images of these sites, and the labels of all, into the bucket, as one batch."""

    def copy(sites: str) -> None:
        folder = site.root / "data"
        tiny.write(folder, sites)
        for file in sorted(folder.iterdir()):
            uri = f"{SPACE}/inbox/{file.name}"
            if file.suffix == ".json" or not store.exists(uri):
                store.write_bytes(uri, file.read_bytes())

    return copy


@pytest.fixture(scope="module")
def airflow(site, s3, deliver, tiny, night):
    """Airflow on PostgreSQL beside it all; the dataset's nightly hour strikes soon."""
    deliver("abcdefghij")
    (site.root / "datasets").mkdir()
    soon = datetime.now(UTC) + timedelta(seconds=240)
    cron = f"{soon.minute} {soon.hour} * * *"
    more = "watch: {poll_seconds: 4}\nevaluate: {confidence: 1.0}"  # nothing is detected: AP is 0
    text = tiny.config(f"{SPACE}/store", f"{SPACE}/inbox", cron, more)
    (site.root / "datasets" / "tiny.yaml").write_text(text)
    extra = s3 | {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": site.postgres(),
        "SPECK_SCHEDULER": site.dask(s3),
        "SPECK_DATASETS": str(site.root / "datasets"),
    }
    running = server.up(site.root / "airflow", DAGS, port=0, extra=extra)
    try:
        client = running.client
        night.wait_for(lambda: len(client.dags()) == 3, 60)
        for dag in client.dags():
            client.pause(dag, False)
        assert datetime.now(UTC) < soon, "this machine was too slow to start in time"
        yield running
    finally:
        running.down()
    assert running.processes() == []


@pytest.fixture(scope="module")
def first_night(airflow, night):
    """The run that the schedule starts, and the training and evaluation it leads to."""
    client, runs = airflow.client, {}
    for dag, seconds in (("tiny_build", 400), ("tiny_train", 60), ("tiny_evaluate", 60)):
        runs[dag] = night.first_run(client, dag, seconds)
        night.succeeded(client, dag, runs[dag])
    return runs


@pytest.fixture(scope="module")
def second_night(airflow, first_night, deliver, site, night):
    """New files arrive; a worker is killed while images are cut, the task as well, and later the worker that trains."""
    client, killed = airflow.client, {}
    deliver("abcdefghijklmn")
    run = night.next_run(client, "tiny_build", [first_night["tiny_build"]])
    task = running_task(client, night, run, "tile")
    killed["worker"] = kill(site.workers("one"))
    killed["task"] = kill([psutil.Process(task["pid"])])
    night.succeeded(client, "tiny_build", run)
    runs = {"tiny_build": run, "tiny_train": night.next_run(client, "tiny_train", [first_night["tiny_train"]])}
    night.wait_for(lambda: trainings(site), 240)
    killed["trainer"] = kill(site.workers("gpu"))
    night.succeeded(client, "tiny_train", runs["tiny_train"])
    runs["tiny_evaluate"] = night.next_run(client, "tiny_evaluate", [first_night["tiny_evaluate"]])
    night.succeeded(client, "tiny_evaluate", runs["tiny_evaluate"])
    return runs, killed


def running_task(client, night, run, name):
    def found():
        task = client.tasks("tiny_build", run).get(name) or {}
        return task if task.get("state") == "running" and task.get("pid") else None

    return night.wait_for(found, 200)


def trainings(site: Site) -> list[psutil.Process]:
    """Return the training processes below the GPU worker."""
    below = [child for worker in site.workers("gpu") for child in worker.children(recursive=True)]
    return [process for process in below if "train.cli" in process.cmdline()]


def kill(processes: list[psutil.Process]) -> int:
    for process in processes:
        process.kill()
    return len(processes)


def test_a_scheduled_build_leads_to_an_evaluated_model(airflow, first_night, night):
    client = airflow.client
    assert first_night["tiny_build"].startswith("scheduled__")
    assert client.result("tiny_build", first_night["tiny_build"], "publish")["images"] == 10
    trained = client.result("tiny_train", first_night["tiny_train"], "train")
    assert trained["model"].startswith(f"{SPACE}/store/tiny/models/")
    verdict = client.result("tiny_evaluate", first_night["tiny_evaluate"], "evaluate")["gate"]
    assert verdict["reasons"] == ["AP is measured on 9 objects, fewer than gate.min_boxes (50): too few to judge by"]
    assert champion.current_champion(f"{SPACE}/store/tiny") is None
    assert night.note(client, "tiny_build", first_night["tiny_build"]).startswith("+10 images, +30 boxes")


def test_training_and_evaluation_run_on_the_gpu_worker(airflow, first_night):
    for dag, task in (("tiny_train", "train"), ("tiny_evaluate", "evaluate")):
        log = airflow.client.log(dag, first_night[dag], task)
        assert any("on a Dask worker with a GPU" in line for line in log)


def test_a_night_has_at_most_twelve_task_instances(airflow, first_night):
    assert sum(len(airflow.client.tasks(dag, run)) for dag, run in first_night.items()) <= 12


def test_new_files_trigger_an_incremental_build_that_survives_killed_processes(
    airflow, first_night, second_night, night
):
    runs, killed = second_night
    assert killed == {"worker": 1, "task": 1, "trainer": 1}
    assert runs["tiny_build"].startswith("asset_triggered__")
    client = airflow.client
    published = client.result("tiny_build", runs["tiny_build"], "publish")
    assert (published["images"], published["reused_samples"] > 0) == (14, True)
    assert client.tasks("tiny_build", runs["tiny_build"])["tile"]["try_number"] > 1
    assert night.note(client, "tiny_build", runs["tiny_build"]).startswith("+4 images, +12 boxes")


def test_the_models_of_both_nights_were_evaluated(airflow, second_night):
    runs, _ = second_night
    answer = airflow.client.result("tiny_evaluate", runs["tiny_evaluate"], "evaluate")
    assert "passed" in answer["gate"]
    assert [row["AP"] is not None for row in champion.list_models(f"{SPACE}/store/tiny")] == [True, True]


def test_a_build_without_changes_triggers_no_training_and_its_note_says_so(airflow, second_night, night):
    client = airflow.client
    before = client.runs("tiny_train")
    run = client.trigger("tiny_build")
    state, tasks = night.finished(client, "tiny_build", run)
    assert (state, tasks.pop("announce"), set(tasks.values())) == ("success", "skipped", {"success"})
    time.sleep(5)
    assert client.runs("tiny_train") == before
    assert night.note(client, "tiny_build", run) == "no change"


def test_there_are_no_import_errors_and_the_watcher_kept_its_state(airflow, second_night):
    assert airflow.client.import_errors() == {}
    seen = json.loads(store.read_bytes(f"{SPACE}/store/tiny/watch.json"))
    assert len(seen["fingerprint"]) > 8
