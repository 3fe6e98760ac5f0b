"""`make demo`: build, train and evaluate the demo dataset in a local Airflow, and print the metrics."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from etl.demo import dataset
from etl.errors import ConfigError, SpeckError
from etl.local_airflow import server
from etl.local_airflow.client import ENDED, AirflowClient, log_message
from etl.snapshots.answer import BuildAnswer, FittedAnchors
from etl.storage.paths import ModelPaths, SnapshotPaths

ROOT = Path(__file__).resolve().parents[2]
DAGS = ("demo_build", "demo_train", "demo_evaluate")
MIN_AP50 = 0.40  # combined
MIN_GAIN_SMALL = 0.10  # AP50_small of combined above that of full_image
_MARKER = ".speck-demo"  # marks a folder that may be deleted
_POLL_SECONDS = 1.0
_PROGRESS_SECONDS = 4.0  # between different lines
_MAX_QUIET_SECONDS = 8.0  # between equal lines
_PARSE_SECONDS = 120.0
_RUN_SECONDS = 3600.0
_METRICS = (
    "AP", "AP50", "AP75", "AP_very_tiny", "AP_tiny", "AP_small", "AP_medium", "AP_large", "AP50_small"
)  # fmt: skip
_METHODS = ("full_image", "tiled", "combined")


@dataclass
class DemoRuns:
    """The three runs of the demo on a running Airflow, monitored one after the other."""

    client: AirflowClient
    logs: Path
    start: float
    seconds: dict[str, float] = field(default_factory=dict)  # duration by `<dag> <task>`

    def follow(self, dag: str, run: str) -> dict[str, Any]:
        """Wait for the end of a run, printing progress; return the results of its tasks, SpeckError if it failed."""
        printed, when = "", 0.0
        while (state := self.client.state(dag, run)) not in ENDED:
            quiet = time.monotonic() - when
            if quiet >= _PROGRESS_SECONDS and (
                (line := self._progress(dag, run)) != printed or quiet >= _MAX_QUIET_SECONDS
            ):
                self._print(line)
                printed, when = line, time.monotonic()
            if time.monotonic() - self.start > _RUN_SECONDS:
                raise SpeckError(f"{dag} did not finish within {_RUN_SECONDS:.0f} s")
            time.sleep(_POLL_SECONDS)
        self._print(self._progress(dag, run))
        tasks = self.client.tasks(dag, run)
        for name, task in tasks.items():
            self.seconds[f"{dag.removeprefix('demo_')} {name}"] = round(task["duration"] or 0.0, 1)
            if task["state"] == "failed" or (task["state"] == "skipped" and name != "announce"):
                lines = "\n".join(self._log_lines(dag, run, name, task["try_number"])[-20:])
                raise SpeckError(f"{dag}: task {name} {task['state']}; end of its log:\n{lines}")
        if state != "success":
            raise SpeckError(
                f"{dag}: the run failed; states of its tasks: { {name: task['state'] for name, task in tasks.items()} }"
            )
        return {name: self.client.result(dag, run, name) for name in tasks}

    def first_run(self, dag: str) -> str:
        """Wait for the run that an Asset triggers; return its id."""
        limit = time.monotonic() + _PARSE_SECONDS
        while time.monotonic() < limit:
            if runs := self.client.runs(dag):
                return next(iter(runs))
            time.sleep(_POLL_SECONDS)
        raise SpeckError(f"{dag} was not triggered by its Asset within {_PARSE_SECONDS:.0f} s")

    def _progress(self, dag: str, run: str) -> str:
        """Return the states of a run's tasks and the last log line of the running task."""
        parts, newest = [], ""
        for name, task in self.client.tasks(dag, run).items():
            if (state := task["state"]) is None:
                continue  # not scheduled yet
            parts.append(f"{name} {task['duration']:.0f}s" if state == "success" else f"{name} {state}")
            if state == "running" and (lines := self._log_lines(dag, run, name, task["try_number"])):
                newest = f" | {lines[-1].splitlines()[-1][:120]}"
        return f"{dag}: {', '.join(parts) or 'waiting'}{newest}"

    def _log_lines(self, dag: str, run: str, task: str, attempt: int) -> list[str]:
        """Return the messages of a task's log so far."""
        log = self.logs / f"dag_id={dag}" / f"run_id={run}" / f"task_id={task}" / f"attempt={attempt}.log"
        if not log.exists():
            return []
        return [text for line in log.read_text(errors="replace").splitlines() if (text := _event(line))]

    def _print(self, line: str) -> None:
        """Print a line with the elapsed time to standard error."""
        print(f"[{time.monotonic() - self.start:5.0f} s] {line}", file=sys.stderr, flush=True)


def run(home: Path | None, seed: int) -> int:
    """Run the demo in an empty folder, by default `.demo` of the checkout; print the result, return the exit code."""
    # SIGTERM and SIGHUP raise SystemExit, so that the `with` around Airflow stops its processes.
    previous = {number: signal.signal(number, _exit_on_signal) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        return _run((home or ROOT / ".demo").resolve(), seed)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _run(home: Path, seed: int) -> int:
    start = time.monotonic()
    _create_home(home)
    print(f"demo dataset with seed {seed} in {home}", file=sys.stderr, flush=True)
    dataset.write_dataset(home / "data", seed)
    print("starting Airflow (about half a minute)", file=sys.stderr, flush=True)
    with server.up(home / "airflow", ROOT / "dags", extra=_environment(home)) as running:
        print(f"Airflow: {running.url}  user {running.user}  password {running.password}", file=sys.stderr, flush=True)
        runs = DemoRuns(running.client, running.home / "logs", start)
        _wait_for_dags(runs.client)
        for dag in DAGS:
            runs.client.pause(dag, False)
        try:
            build = runs.follow("demo_build", runs.client.trigger("demo_build"))
            train = runs.follow("demo_train", runs.first_run("demo_train"))
            evaluate = runs.follow("demo_evaluate", runs.first_run("demo_evaluate"))
        except SpeckError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            return error.exit_code
    seconds = round(time.monotonic() - start, 1)
    built = BuildAnswer.from_dict("the result of publish", build["publish"])
    return _report(built, train["train"], evaluate["evaluate"], runs.seconds, seconds)


def summarize(built: BuildAnswer, train: Mapping[str, Any], evaluate: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics that decide whether the demo succeeded, with the URIs of snapshot and model."""
    small = {method: evaluate[method]["AP50_small"] for method in ("full_image", "combined")}
    return {
        "AP50": evaluate["combined"]["AP50"],
        "AP50_small": small,
        "AP50_small_full_image": small["full_image"],
        "AP50_small_combined": small["combined"],
        "snapshot": built.snapshot,
        "model": train["model"],
    }


def list_shortfalls(metrics: Mapping[str, Any]) -> list[str]:
    """Return a message for each metric that is below its minimum."""
    combined, full = metrics["AP50_small_combined"] or 0.0, metrics["AP50_small_full_image"] or 0.0
    messages = []
    if (metrics["AP50"] or 0.0) < MIN_AP50:
        messages.append(f"combined AP50 is {_format(metrics['AP50'])}, expected at least {MIN_AP50}")
    if combined - full < MIN_GAIN_SMALL:
        messages.append(
            f"combined AP50_small exceeds full_image by {combined - full:.3f}, expected at least {MIN_GAIN_SMALL}"
        )
    return messages


def format_table(built: BuildAnswer, evaluate: Mapping[str, Any], seconds: Mapping[str, float]) -> str:
    """Return the demo's result as a plain-text table."""
    rows = [
        f"{'images':12}{built.images}",
        f"{'boxes':12}{built.annotations}",
        f"{'rejects':12}{_counts(built.rejects)}",
        f"{'samples':12}{_counts(built.samples)}",
        f"{'anchors':12}{_anchors(built.anchors)}, best possible recall {_format(built.anchors.bpr)}",
        "",
        f"{'':14}" + "".join(f"{method:>12}" for method in _METHODS),
        *(
            f"{metric:14}" + "".join(f"{_format(evaluate[method].get(metric)):>12}" for method in _METHODS)
            for metric in _METRICS
        ),
        "",
        f"{'seconds':12}{', '.join(f'{name} {value:.1f}' for name, value in seconds.items())}",
    ]
    return "\n".join(rows)


def _report(
    built: BuildAnswer,
    train: Mapping[str, Any],
    evaluate: Mapping[str, Any],
    stages: Mapping[str, float],
    seconds: float,
) -> int:
    metrics = summarize(built, train, evaluate) | {"seconds": seconds}
    print(format_table(built, evaluate, stages))
    print(f"{'reports':12}{SnapshotPaths(built.snapshot).audit_html}")
    print(f"{'':12}{evaluate.get('html') or ModelPaths(metrics['model']).evaluation_html}", flush=True)
    shortfalls = list_shortfalls(metrics)
    for line in shortfalls:
        print(f"error: {line}", file=sys.stderr, flush=True)
    print(json.dumps(metrics), flush=True)
    return 1 if shortfalls else 0


def _create_home(home: Path) -> None:
    """Create an empty, marked folder in place of an earlier demo's; ConfigError if it holds other files."""
    if home.exists():
        if any(home.iterdir()) and not (home / _MARKER).exists():
            raise ConfigError(
                "demo", "folder", f"{home}, which holds other files", "a new, an empty or an earlier demo's folder"
            )
        server.down(home / "airflow")
        shutil.rmtree(home)
    home.mkdir(parents=True)
    (home / _MARKER).touch()


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _environment(home: Path) -> dict[str, str]:
    return {
        "SPECK_DEMO": str(home / "data"),
        "SPECK_STORE": str(home / "store"),
        "SPECK_DATASETS": str(ROOT / "dags" / "datasets"),
        "SPECK_SCHEDULER": "",
        "SPECK_TRAIN_PYTHON": sys.executable,
    }


def _wait_for_dags(client: AirflowClient) -> None:
    missing = set(DAGS)
    for _ in server.poll("the DAGs are parsed", _PARSE_SECONDS):
        missing = set(DAGS).difference(client.dags())
        if not missing:
            return
    errors = "\n".join(client.import_errors().values())
    raise SpeckError(f"Airflow did not parse {', '.join(sorted(missing))} within {_PARSE_SECONDS:.0f} s\n{errors}")


def _event(line: str) -> str:
    """Return the message of one JSON line of a task log."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    return log_message(entry)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def _anchors(fitted: FittedAnchors) -> str:
    levels = zip(fitted.strides, fitted.anchors, strict=True)
    return "; ".join(f"stride {stride}: {' '.join(f'{w:.0f}x{h:.0f}' for w, h in sizes)}" for stride, sizes in levels)


def _format(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
