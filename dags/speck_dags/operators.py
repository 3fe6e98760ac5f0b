"""The tasks of the DAGs: a stage of the build, its announcement, a training or evaluation as a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from speck_links import AuditLink, DashboardLink, EvaluationLink, PerformanceLink

from etl.config import load
from etl.stages import DISTRIBUTED
from speck_dags import (
    datasets,  # noqa: F401 - it puts the plugins on the path
    forms,
)

_TRAINER_SECONDS, _WAIT_SECONDS = 600.0, 15.0
NOTE = "note"  # the XCom of a line for people, which the run's note is made of


@contextmanager
def readable_failures() -> Iterator[None]:
    """Fail at once, in the error's own words, where trying again cannot help."""
    from etl.errors import ConfigError, SourceError

    try:
        yield
    except (ConfigError, SourceError) as error:
        raise AirflowFailException(str(error)) from error


class StageOperator(BaseOperator):
    """Runs one stage of the build; gives its small answer (URIs and numbers) to the next tasks."""

    template_fields: Sequence[str] = ("work", "scheduler")
    ui_color = "#e8f0fe"

    def __init__(self, *, stage: str, config: str, work: Any = None, scheduler: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stage = stage
        self.scheduler = scheduler  # address of the run's own Dask cluster
        self.config = config  # path of the dataset file
        self.work = work  # URI of the build's tables, from ingest
        self.operator_extra_links = (DashboardLink(), PerformanceLink()) if stage in DISTRIBUTED else ()
        if stage == "publish":
            self.operator_extra_links = (AuditLink(),)
        self.dashboard: str | None = None  # address of the Dask dashboard, once there is a cluster
        self._cluster: Any = None

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Return the stage's answer."""
        from etl.jobs import build

        with readable_failures():
            if self.stage not in DISTRIBUTED:
                return build.run_stage(self.stage, self.work)
            with self.cluster(context) as cluster:
                return build.run_stage(self.stage, self.work, cluster)

    @contextmanager
    def cluster(self, context: Mapping[str, Any]) -> Iterator[Any]:
        """Give the Dask cluster; what it did is a page of the dataset's store, until the next run of this stage."""
        # Dask reads this when first imported: its own comings and goings would bury the stage's progress in the log.
        os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "warning")
        from etl.execution import cluster
        from etl.storage import store
        from etl.storage.paths import DatasetPaths

        home = load(self.config).home  # before the work: the file may be edited meanwhile
        with TemporaryDirectory(prefix="speck-") as folder:
            report = Path(folder) / "performance.html"
            try:
                address = self.scheduler or os.environ.get("SPECK_SCHEDULER") or None
                with cluster.connect(address, report=report) as self._cluster:
                    self.dashboard = self._cluster.dashboard_link
                    context["ti"].xcom_push(key=DashboardLink().xcom_key, value=self.dashboard)
                    yield self._cluster
            finally:
                if report.exists():
                    store.upload(report, DatasetPaths(home).performance(self.stage))

    def on_kill(self) -> None:
        """Cancel the work on Dask, which a dying task would leave running."""
        if self._cluster is not None:
            self._cluster.cancel()


class IngestOperator(StageOperator):
    """Runs the first stage, as the form says: in full, a trial, or a dry run after which nothing follows."""

    def __init__(self, *, config: str, **kwargs: Any) -> None:
        super().__init__(stage="ingest", config=config, **kwargs)

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer of ingest, whose `work` the other stages go on from."""
        from etl.jobs import build, ingest
        from etl.lifecycle import trial
        from etl.reports import plan_table

        form = forms.filled(self, context)
        with readable_failures():
            config = trial.configured(self.config, forms.changes(form))
            with self.cluster(context) as cluster:
                if not form["dry_run"]:
                    return ingest.run(config, cluster, full=form["full"])
                found = build.plan_source(config, cluster)
        plan_table.show(found)
        said = f"dry run, nothing was built: {found['boxes']:,} of {found['annotations']:,} boxes would go on"
        context["ti"].xcom_push(key=NOTE, value=said)
        raise AirflowSkipException(said)


def run_of(context: Mapping[str, Any]) -> str:
    """Return a text that names a run among all."""
    return f"{context['dag_run'].dag_id}/{context['dag_run'].run_id}"


class ClusterUpOperator(BaseOperator):
    """Starts a Dask cluster for the run on this machine; gives its address."""

    def __init__(self, *, workers: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.workers = workers
        self._run: str | None = None

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Return {address}."""
        from etl.execution import run_cluster

        self._run = run_of(context)
        return {"address": run_cluster.up(self._run, self.workers)}

    def on_kill(self) -> None:
        """Stop what was started so far."""
        from etl.execution import run_cluster

        if self._run is not None:
            run_cluster.down(self._run)


class ClusterDownOperator(BaseOperator):
    """Stops the run's Dask cluster, however the run went."""

    def execute(self, context: Mapping[str, Any]) -> None:
        """Stop its processes."""
        from etl.execution import run_cluster

        run_cluster.down(run_of(context))


class AnnounceOperator(BaseOperator):
    """Emits the snapshot's Asset with {uri, change}; skipped when the build published nothing new, or was a trial."""

    template_fields: Sequence[str] = ("published",)

    def __init__(self, *, published: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.published = published  # the answer of publish

    def execute(self, context: Mapping[str, Any]) -> None:
        """Attach the snapshot's URI to the event that the success of this task emits."""
        from etl.dashboard import run_notes

        said, uri = run_notes.of_build(self.published), self.published["snapshot"]
        trial = bool(forms.changes(context["params"]))
        context["ti"].xcom_push(key=NOTE, value=f"a trial: {said}" if trial else said)
        if trial:
            raise AirflowSkipException(f"a trial is not announced: {uri}")
        if not self.published["published"]:
            raise AirflowSkipException(f"nothing has changed since {uri}: nothing to announce")
        event = context["outlet_events"][self.outlets[0]]
        event.extra = {"uri": uri, "change": self.published.get("change"), "note": said}


class ProcessOperator(BaseOperator):
    """Runs a command of train.cli, on a Dask worker that offers a GPU or as a process here; its lines go to the log."""

    template_fields: Sequence[str] = ("plan",)
    ui_color = "#fef3e0"

    def __init__(self, *, config: str, plan: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config  # path of the dataset file
        self.plan = plan  # the answer of the plan task
        self._stop: Any = None

    def run(self, command: str, *arguments: str) -> dict[str, Any]:
        """Return the JSON object on the last line of the standard output of a command on the dataset file."""
        ending = self._remote(command, *arguments) if os.environ.get("SPECK_SCHEDULER") else None
        if ending is None:
            ending = self._local(command, *arguments)
        if ending.code != 0:
            failure = AirflowFailException if ending.code == 2 else AirflowException  # 2: the config is wrong
            raise failure(f"{command} ended with {ending}:\n" + "\n".join(ending.tail))
        try:
            return dict(json.loads(ending.answer))
        except (ValueError, TypeError) as error:
            raise AirflowException(
                f"{command} ended without a JSON answer, its last line: {ending.answer!r}"
            ) from error

    def on_kill(self) -> None:
        """End the command, with every process it has started."""
        if self._stop is not None:
            self._stop()

    def _local(self, command: str, *arguments: str) -> Any:
        from etl.execution.process import Command

        python = os.environ.get("SPECK_TRAIN_PYTHON") or sys.executable
        # -P: a train.py in the current folder, such as YOLOv5's, must not hide the package.
        line = [python, "-P", "-m", "train.cli", command, self.config, *arguments, "--json"]
        self.log.info("running %s", " ".join(line))
        process = Command(line, self.log.info)
        self._stop = process.stop
        return process.run()

    def _remote(self, command: str, *arguments: str) -> Any:
        """Return how the command ended on a Dask worker that offers a GPU, None where there is none."""
        from etl.config import yaml
        from etl.execution import cluster

        with cluster.connect(os.environ["SPECK_SCHEDULER"]) as workers:
            if not self._offered(workers):
                return None
            self._stop = workers.cancel
            name = Path(self.config).name
            line = ["-m", "train.cli", command, f"{{{name}}}", *arguments, "--json"]
            self.log.info("running %s on a Dask worker that offers a GPU", " ".join(line))
            settings = yaml.text(load(self.config).resolved())  # its variables and paths are this machine's
            return workers.command(line, {name: settings}, self.log.info, resource="GPU")

    def _offered(self, workers: Any) -> bool:
        """Return whether a worker offers a GPU; where nothing can train here, wait for one that may be restarting."""
        trains_here = os.environ.get("SPECK_TRAIN_PYTHON") or importlib.util.find_spec("torch") is not None
        deadline = time.monotonic() + _TRAINER_SECONDS
        while not (found := workers.offers("GPU")) and not trains_here:
            if time.monotonic() > deadline:
                raise AirflowException("no Dask worker offers a GPU, and there is no Torch in this environment")
            self.log.info("waiting for a Dask worker that offers a GPU: there is no Torch in this environment")
            time.sleep(_WAIT_SECONDS)
        return bool(found)


class TrainOperator(ProcessOperator):
    """Trains on the planned snapshot; emits the model's Asset with {uri, snapshot}."""

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer of `speck train`."""
        from etl.dashboard import run_notes

        plan = self.plan
        settings = [word for key, value in plan["changes"].items() for word in ("--set", f"{key}={json.dumps(value)}")]
        answer = self.run("train", "--snapshot", plan["snapshot"], *settings)
        said = run_notes.of_training(answer, plan["reason"])
        context["ti"].xcom_push(key=NOTE, value=said)
        event = context["outlet_events"][self.outlets[0]]
        event.extra = {"uri": answer["model"], "snapshot": plan["snapshot"], "note": said}
        return answer


class EvaluateOperator(ProcessOperator):
    """Evaluates the planned model on the planned snapshot; one that passes the gate becomes the champion."""

    operator_extra_links = (EvaluationLink(),)

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer of `speck evaluate`."""
        from etl.dashboard import run_notes
        from etl.lifecycle import retrain
        from etl.storage.paths import split_uri

        plan, config = self.plan, load(self.config)
        # A trial's images are not those that the champion was judged on.
        own = split_uri(plan["snapshot"]).home == config.home and "/" not in retrain.trained_on(plan["model"])
        answer = self.run(
            "evaluate", "--snapshot", plan["snapshot"], "--model", plan["model"], *(["--promote"] if own else [])
        )
        context["ti"].xcom_push(key=NOTE, value=run_notes.of_evaluation(answer, config.gate.metric))
        return answer
