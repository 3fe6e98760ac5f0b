"""The tasks of the DAGs: build stages, the run's Dask cluster, the announcement, training and evaluation."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from speck_links import AuditLink, DashboardLink, EvaluationLink, PerformanceLink
from speck_notes import NOTE_KEY

from etl.config import load
from etl.numbers import count, count_of
from etl.stages import DISTRIBUTED
from speck_dags import (
    datasets,  # noqa: F401 - adds the plugins folder to sys.path
    forms,
)

if TYPE_CHECKING:
    from etl.execution.process import CommandResult

_GPU_WAIT_SECONDS, _GPU_POLL_SECONDS = 600.0, 15.0


@contextmanager
def fail_without_retry() -> Iterator[None]:
    """Turn errors of the configuration and the source into AirflowFailException: a retry cannot succeed.

    An error that quotes credentials, as libraries do, becomes one without them: users see the traceback in the log.
    """
    from etl import credentials
    from etl.errors import ConfigError, SourceError

    try:
        yield
    except (ConfigError, SourceError) as error:
        raise AirflowFailException(str(error)) from (None if credentials.are_in(error) else error)
    except Exception as error:
        if not credentials.are_in(error):
            raise
        raise AirflowException(credentials.hide(f"{type(error).__name__}: {error}")) from None


class StageOperator(BaseOperator):
    """Runs one stage of the build; returns URIs and numbers, which the next tasks read from XCom."""

    template_fields: Sequence[str] = ("work", "scheduler")
    ui_color = "#e8f0fe"

    def __init__(self, *, stage: str, config: str, work: Any = None, scheduler: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stage = stage
        self.scheduler = scheduler  # address of the run's Dask cluster
        self.config = config  # path of the dataset file
        self.work = work  # URI of the build's work folder, from ingest
        self.operator_extra_links = (DashboardLink(), PerformanceLink()) if stage in DISTRIBUTED else ()
        if stage == "publish":
            self.operator_extra_links = (AuditLink(),)
        self.dashboard: str | None = None  # address of the Dask dashboard, once connected
        self._cluster: Any = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the result of the stage."""
        from etl.jobs import build

        with fail_without_retry():
            if self.stage not in DISTRIBUTED:
                return build.run_stage(self.stage, self.work)
            with self.connect_cluster(context) as cluster:
                return build.run_stage(self.stage, self.work, cluster)

    @contextmanager
    def connect_cluster(self, context: Context) -> Iterator[Any]:
        """Yield the Dask cluster; store its performance report in the dataset's store, replacing the last one."""
        # Dask reads this when first imported: its connection messages would bury the stage's progress in the log.
        os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "warning")
        from etl.execution import cluster, run_cluster
        from etl.storage import store
        from etl.storage.paths import DatasetPaths

        config = load(self.config)  # read before the work starts: the file may be edited meanwhile
        own: AbstractContextManager[None] = nullcontext()
        if self.scheduler:
            own = run_cluster.keep_alive(qualified_run_id(context), self.scheduler, config.cluster.workers or 1)
        with TemporaryDirectory(prefix="speck-") as folder, own:
            report = Path(folder) / "performance.html"
            try:
                address = self.scheduler or os.environ.get("SPECK_SCHEDULER") or None
                with cluster.connect(address, report=report) as self._cluster:
                    self.dashboard = self._cluster.dashboard_link
                    context["ti"].xcom_push(key=DashboardLink().xcom_key, value=self.dashboard)
                    yield self._cluster
            finally:
                if report.exists():
                    store.upload(report, DatasetPaths(config.home).performance(self.stage))

    def on_kill(self) -> None:
        """Cancel the work on Dask, which would otherwise continue after the task is killed."""
        if self._cluster is not None:
            self._cluster.cancel()


class IngestOperator(StageOperator):
    """Runs the first stage with the options of the form; a dry run only prints the plan and skips the other stages."""

    def __init__(self, *, config: str, **kwargs: Any) -> None:
        super().__init__(stage="ingest", config=config, **kwargs)

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the result of ingest, including `work`, the URI of the work folder that the other stages read."""
        from etl.jobs import build, ingest
        from etl.lifecycle import trial
        from etl.reports import plan_table

        form = forms.read_form(self, context)
        with fail_without_retry():
            config = trial.load_trial_config(self.config, forms.config_overrides(form))
            with self.connect_cluster(context) as cluster:
                if not form["dry_run"]:
                    return ingest.run(config, cluster, full=form["full"])
                preview = build.plan_source(config, cluster)
        plan_table.show(preview)
        kept = f"{count(preview.boxes)} of {count_of(preview.annotations, 'box')}"
        note = f"dry run, nothing was built: {kept} would be kept"
        context["ti"].xcom_push(key=NOTE_KEY, value=note)
        raise AirflowSkipException(note)


def qualified_run_id(context: Context) -> str:
    """Return the id of the run with its DAG's: unique among all runs."""
    return f"{context['dag_run'].dag_id}/{context['dag_run'].run_id}"


class ClusterUpOperator(BaseOperator):
    """Starts a Dask cluster for the run on this machine; returns its address."""

    def __init__(self, *, workers: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.workers = workers
        self._run: str | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Return {address}."""
        from etl.execution import run_cluster

        self._run = qualified_run_id(context)
        return {"address": run_cluster.up(self._run, self.workers)}

    def on_kill(self) -> None:
        """Stop the processes started so far."""
        from etl.execution import run_cluster

        if self._run is not None:
            run_cluster.down(self._run)


class ClusterDownOperator(BaseOperator):
    """Stops the run's Dask cluster, whether or not the run succeeded."""

    def execute(self, context: Context) -> None:
        """Stop the processes of the cluster."""
        from etl.execution import run_cluster

        run_cluster.down(qualified_run_id(context))


class AnnounceOperator(BaseOperator):
    """Emits the snapshot's Asset with {uri, change, note}; skipped if nothing changed or the build was a trial.

    First it reads the share of the snapshot that is due, all of it within 30 days: a damaged one is not announced.
    """

    template_fields: Sequence[str] = ("published",)

    def __init__(self, *, published: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.published = published  # the result of publish

    def execute(self, context: Context) -> None:
        """Attach the snapshot's URI to the Asset event of this task."""
        from etl.dashboard import run_notes
        from etl.snapshots.answer import BuildAnswer

        answer = BuildAnswer.from_dict("the result of publish", self.published)
        note, uri = run_notes.describe_build(answer), answer.snapshot
        trial = bool(forms.config_overrides(context["params"]))
        context["ti"].xcom_push(key=NOTE_KEY, value=f"trial: {note}" if trial else note)
        if trial:
            raise AirflowSkipException(f"trial builds do not trigger training: {uri}")
        self._verify_due(uri)
        if not answer.published:
            raise AirflowSkipException(f"no change since {uri}: training is not triggered")
        event = context["outlet_events"][self.outlets[0]]
        event.extra = {"uri": uri, "change": answer.change.to_dict(), "note": note}

    def _verify_due(self, uri: str) -> None:
        from etl.one_line import one_line
        from etl.snapshots import rotation

        answer = rotation.verify_due(uri)
        if bad := answer["bad"]:
            first = "{what} {name}: {reason}".format_map(bad[0])
            found = f"{uri}: {count_of(len(bad), 'problem')}, the first: {first}; to mend it: {answer['command']}"
            raise AirflowFailException(one_line(found))
        self.log.info("verified %s of %s", count_of(answer["bytes"], "byte"), uri)


class ProcessOperator(BaseOperator):
    """Runs a command of train.cli on a Dask worker with the resource GPU, or as a local process; logs its output."""

    template_fields: Sequence[str] = ("plan",)
    ui_color = "#fef3e0"

    def __init__(self, *, config: str, plan: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config  # path of the dataset file
        self.plan = plan  # the result of the plan task
        self._stop: Any = None

    def run_command(self, command: str, *arguments: str) -> dict[str, Any]:
        """Run a command on the dataset file; return the JSON object on the last line of its standard output."""
        result = self._run_on_dask(command, *arguments) if os.environ.get("SPECK_SCHEDULER") else None
        if result is None:
            result = self._run_locally(command, *arguments)
        if result.exit_code != 0:
            failure = AirflowFailException if result.exit_code == 2 else AirflowException  # 2: invalid configuration
            raise failure(f"{command} ended with {result}:\n" + "\n".join(result.tail))
        try:
            return dict(json.loads(result.last_line))
        except (ValueError, TypeError) as error:
            raise AirflowException(f"{command} printed no JSON result, its last line: {result.last_line!r}") from error

    def on_kill(self) -> None:
        """Stop the command and all its child processes."""
        if self._stop is not None:
            self._stop()

    def _run_locally(self, command: str, *arguments: str) -> CommandResult:
        from etl.execution.process import Command

        python = os.environ.get("SPECK_TRAIN_PYTHON") or sys.executable
        # -P: a train.py in the current folder, such as YOLOv5's, must not hide the package.
        line = [python, "-P", "-m", "train.cli", command, self.config, *arguments, "--json"]
        self.log.info("running %s", " ".join(line))
        process = Command(line, self.log.info)
        self._stop = process.stop
        return process.run()

    def _run_on_dask(self, command: str, *arguments: str) -> CommandResult | None:
        """Run the command on a Dask worker with the resource GPU; return None if there is no such worker."""
        from etl import credentials
        from etl.config import yaml
        from etl.execution import cluster

        with cluster.connect(os.environ["SPECK_SCHEDULER"]) as workers:
            if not self._has_gpu_worker(workers):
                return None
            self._stop = workers.cancel
            name = Path(self.config).name
            line = ["-m", "train.cli", command, f"{{{name}}}", *arguments, "--json"]
            self.log.info("running %s on a Dask worker with a GPU", " ".join(line))
            # resolved here: the worker has other variables and paths
            settings = yaml.text(credentials.restore_all(load(self.config).resolved()))
            return workers.run_command(line, {name: settings}, self.log.info, resource="GPU")

    def _has_gpu_worker(self, workers: Any) -> bool:
        """Return whether a worker has the resource GPU; without Torch here, wait for one that may be restarting."""
        trains_here = os.environ.get("SPECK_TRAIN_PYTHON") or importlib.util.find_spec("torch") is not None
        deadline = time.monotonic() + _GPU_WAIT_SECONDS
        while not (offered := workers.offers("GPU")) and not trains_here:
            if time.monotonic() > deadline:
                raise AirflowException("no Dask worker has the resource GPU, and Torch is not installed here")
            self.log.info("waiting for a Dask worker with the resource GPU: Torch is not installed here")
            time.sleep(_GPU_POLL_SECONDS)
        return bool(offered)


class TrainOperator(ProcessOperator):
    """Trains on the planned snapshot; emits the model's Asset with {uri, snapshot, note}."""

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the result of `speck train`."""
        from etl.dashboard import run_notes

        plan = self.plan
        options = [word for key, value in plan["changes"].items() for word in ("--set", f"{key}={json.dumps(value)}")]
        answer = self.run_command("train", "--snapshot", plan["snapshot"], *options)
        note = run_notes.describe_training(answer, plan["reason"])
        context["ti"].xcom_push(key=NOTE_KEY, value=note)
        event = context["outlet_events"][self.outlets[0]]
        event.extra = {"uri": answer["model"], "snapshot": plan["snapshot"], "note": note}
        return answer


class EvaluateOperator(ProcessOperator):
    """Evaluates the planned model on the planned snapshot; promotes it if it passes the gate."""

    operator_extra_links = (EvaluationLink(),)

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the result of `speck evaluate`."""
        from etl.dashboard import run_notes
        from etl.evaluation import Evaluation
        from etl.storage.paths import split_uri

        plan, config = self.plan, load(self.config)
        # No model is promoted on val of a trial: the champion was evaluated on other images.
        own_snapshot = split_uri(plan["snapshot"]).home == config.home
        promote = ["--promote"] if own_snapshot else []
        answer = self.run_command("evaluate", "--snapshot", plan["snapshot"], "--model", plan["model"], *promote)
        evaluation = Evaluation.from_dict("speck evaluate --json", answer)
        note = run_notes.describe_evaluation(evaluation)
        context["ti"].xcom_push(key=NOTE_KEY, value=note)
        return answer
