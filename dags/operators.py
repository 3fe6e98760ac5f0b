"""The tasks of the DAGs: a stage of the build, a training or evaluation as a process of its own, and their plans."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from plugins.report_links import AuditLink, EvaluationLink

from etl.config import load

FANNED_OUT = frozenset({"ingest", "audit", "tile"})  # these stages run on Dask, the others in the task
_GRACE_SECONDS = 3.0  # Airflow kills a task 5 s after on_kill
_TAIL_LINES = 20


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

    template_fields: Sequence[str] = ("work",)
    ui_color = "#e8f0fe"

    def __init__(self, *, stage: str, config: str, work: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stage = stage
        self.config = config  # path of the dataset file
        self.work = work  # URI of the build's tables, from ingest
        if stage == "publish":
            self.operator_extra_links = (AuditLink(),)
        self._cluster: Any = None

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Return the stage's answer."""
        # Dask reads this when first imported: its own comings and goings would bury the stage's progress in the log.
        os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "warning")
        from etl import cluster, jobs

        stage = getattr(jobs, self.stage)
        with readable_failures():
            subject = load(self.config) if self.work is None else self.work
            if self.stage not in FANNED_OUT:
                return stage(subject)
            with cluster.connect(os.environ.get("SPECK_SCHEDULER") or None) as self._cluster:
                return stage(subject, self._cluster)

    def on_kill(self) -> None:
        """Cancel the work on Dask, which a dying task would leave running."""
        if self._cluster is not None:
            self._cluster.cancel()


class AnnounceOperator(BaseOperator):
    """Emits the snapshot's Asset with {uri, change}; skipped when the build published nothing new."""

    template_fields: Sequence[str] = ("published",)

    def __init__(self, *, published: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.published = published  # the answer of publish

    def execute(self, context: Mapping[str, Any]) -> None:
        """Attach the snapshot's URI to the event that the success of this task emits."""
        if not self.published["published"]:
            raise AirflowSkipException(f"nothing has changed since {self.published['snapshot']}: nothing to announce")
        context["outlet_events"][self.outlets[0]].extra = {
            "uri": self.published["snapshot"],
            "change": self.published.get("change"),
        }


class ProcessOperator(BaseOperator):
    """Runs a command of train.cli in a process group of its own; what it prints goes to the task log."""

    template_fields: Sequence[str] = ("plan",)
    ui_color = "#fef3e0"

    def __init__(self, *, config: str, plan: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config  # path of the dataset file
        self.plan = plan  # the answer of the plan task
        self._process: subprocess.Popen[str] | None = None

    def run(self, *arguments: str) -> dict[str, Any]:
        """Return the JSON object on the last line of the command's standard output."""
        python = os.environ.get("SPECK_TRAIN_PYTHON") or sys.executable
        command = [python, "-m", "train.cli", *arguments, "--json"]
        self.log.info("running %s", " ".join(command))
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
            preexec_fn=_die_with_parent(),
        )
        try:
            answer, tail = self._stream(self._process)
            code = self._process.wait()
        finally:
            self.on_kill()
        if code != 0:
            failure = AirflowFailException if code == 2 else AirflowException  # 2: the command or the config is wrong
            raise failure(f"{arguments[0]} ended with {_ending(code)}:\n" + "\n".join(tail))
        try:
            return dict(json.loads(answer))
        except (ValueError, TypeError) as error:
            raise AirflowException(f"{arguments[0]} ended without a JSON answer, its last line: {answer!r}") from error

    def on_kill(self) -> None:
        """End the command's whole process group: a request first, then by force."""
        process = self._process
        if process is None or not _signal_group(process, signal.SIGTERM):
            return
        deadline = time.monotonic() + _GRACE_SECONDS
        while time.monotonic() < deadline and _running(process):
            time.sleep(0.05)
        _signal_group(process, signal.SIGKILL)

    def _stream(self, process: subprocess.Popen[str]) -> tuple[str, Sequence[str]]:
        """Log the lines of both streams as they come; return the last line of the first and the last lines of both."""
        assert process.stdout is not None
        assert process.stderr is not None
        tail: deque[str] = deque(maxlen=_TAIL_LINES)

        def follow(lines: Iterator[str]) -> str:
            last = ""
            for line in lines:
                if line := line.rstrip():
                    self.log.info(line)
                    tail.append(line)
                    last = line
            return last

        errors = threading.Thread(target=follow, args=(process.stderr,), daemon=True)
        errors.start()
        answer = follow(process.stdout)
        errors.join(_GRACE_SECONDS)
        return answer, tail


class TrainOperator(ProcessOperator):
    """Trains on the planned snapshot; emits the model's Asset with {uri, snapshot}."""

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer of `speck train`."""
        epochs = () if self.plan["epochs"] is None else ("--epochs", str(self.plan["epochs"]))
        answer = self.run("train", self.config, "--snapshot", self.plan["snapshot"], *epochs)
        context["outlet_events"][self.outlets[0]].extra = {"uri": answer["model"], "snapshot": self.plan["snapshot"]}
        return answer


class EvaluateOperator(ProcessOperator):
    """Evaluates the planned model on the planned snapshot; one that passes the gate becomes the champion."""

    operator_extra_links = (EvaluationLink(),)

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer of `speck evaluate`."""
        plan = self.plan
        return self.run("evaluate", self.config, "--snapshot", plan["snapshot"], "--model", plan["model"], "--promote")


class PlanOperator(BaseOperator):
    """Pins what a run works on, from the form, the events that started the run or the store, in this order."""

    def __init__(self, *, config: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config  # path of the dataset file

    def wanted(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Return the filled-in form; a key that it does not have fails the run."""
        form = self.dag.params.dump()
        if unknown := sorted((context["dag_run"].conf or {}).keys() - form.keys()):
            raise AirflowFailException(f"unknown in conf: {', '.join(unknown)}; known: {', '.join(sorted(form))}")
        return dict(context["params"])

    def event(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the newest of the events that started the run says, empty in a manual run."""
        events = [event for several in context["triggering_asset_events"].values() for event in several]
        return dict(max(events, key=lambda event: event.timestamp).extra) if events else {}


class PlanTraining(PlanOperator):
    """Pins the snapshot to train on; skips the run, saying why, when a training is not worth it."""

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Return {snapshot, epochs, reason}."""
        from etl import retrain, snapshot

        with readable_failures():
            config = load(self.config)
            wanted, event = self.wanted(context), self.event(context)
            uri = wanted["snapshot"] or event.get("uri") or snapshot.head(config)
            if uri is None:
                raise AirflowFailException(f"{config.name} has no snapshot yet: run {config.name}_build first")
            asked = not event  # a person started this run
            reason = "asked for" if asked else retrain.reason_to_train(config, uri)
        if reason is None:
            raise AirflowSkipException(
                f"no training: less than {config.retrain.min_change:.1%} of the boxes changed since the snapshot "
                "of the last model, and the settings are the same"
            )
        self.log.info("training on %s: %s", uri, reason)
        return {"snapshot": uri, "epochs": wanted["epochs"], "reason": reason}


class PlanEvaluation(PlanOperator):
    """Pins the model to judge and the snapshot whose images it is judged on."""

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Return {model, snapshot}."""
        from etl import retrain

        with readable_failures():
            config = load(self.config)
            wanted, event = self.wanted(context), self.event(context)
            model = wanted["model"] or event.get("uri") or retrain.newest_model(config)
            if model is None:
                raise AirflowFailException(f"{config.name} has no model yet: run {config.name}_train first")
            snapshot = wanted["snapshot"] or event.get("snapshot") or retrain.snapshot_of(model)
        return {"model": model, "snapshot": snapshot}


def _die_with_parent() -> Any:
    """Return what a new process runs first, so that the kernel ends it with a killed task (Linux)."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _running(process: subprocess.Popen[str]) -> bool:
    """Return whether the process has not ended; leaves its exit code for whoever waits for it."""
    if process.returncode is not None:
        return False
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def _signal_group(process: subprocess.Popen[str], number: int) -> bool:
    """Return whether anything was left of the process's group to take the signal."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
