"""`make demo`: a real Airflow builds, trains and evaluates the demo dataset, and the figures are printed."""

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
from etl.local_airflow.client import ENDED, AirflowClient, message
from etl.storage.paths import ModelPaths, SnapshotPaths

ROOT = Path(__file__).resolve().parents[2]
DAGS = ("demo_build", "demo_train", "demo_evaluate")
MIN_AP50 = 0.40  # combined
MIN_GAIN_SMALL = 0.10  # AP50_small of combined above that of full_image
_OWNED = ".speck-demo"  # marks the folder as one that may be removed
_POLL_SECONDS = 1.0
_PROGRESS_SECONDS = 4.0  # between lines that differ
_MAX_QUIET_SECONDS = 8.0  # between equal ones
_PARSE_SECONDS = 120.0
_RUN_SECONDS = 3600.0
_MEASURES = (
    "AP", "AP50", "AP75", "AP_very_tiny", "AP_tiny", "AP_small", "AP_medium", "AP_large", "AP50_small"
)  # fmt: skip
_METHODS = ("full_image", "tiled", "combined")


@dataclass
class Watched:
    """The three runs of the demo on a running Airflow, followed one after the other."""

    client: AirflowClient
    logs: Path
    start: float
    seconds: dict[str, float] = field(default_factory=dict)  # by `<dag> <task>`

    def follow(self, dag: str, run: str) -> dict[str, Any]:
        """Return what a run's tasks answered once it has ended, with progress lines; SpeckError if it failed."""
        said, when = "", 0.0
        while (state := self.client.state(dag, run)) not in ENDED:
            quiet = time.monotonic() - when
            if quiet >= _PROGRESS_SECONDS and (
                (line := self.progress(dag, run)) != said or quiet >= _MAX_QUIET_SECONDS
            ):
                self.say(line)
                said, when = line, time.monotonic()
            if time.monotonic() - self.start > _RUN_SECONDS:
                raise SpeckError(f"{dag} has not ended after {_RUN_SECONDS:.0f} s")
            time.sleep(_POLL_SECONDS)
        self.say(self.progress(dag, run))
        tasks = self.client.tasks(dag, run)
        for name, task in tasks.items():
            self.seconds[f"{dag.removeprefix('demo_')} {name}"] = round(task["duration"] or 0.0, 1)
            if task["state"] == "failed" or (task["state"] == "skipped" and name != "announce"):
                lines = "\n".join(self.lines(dag, run, name, task["try_number"])[-20:])
                raise SpeckError(f"{dag}: task {name} {task['state']}; the end of its log:\n{lines}")
        if state != "success":
            raise SpeckError(
                f"{dag}: the run failed, its tasks: { {name: task['state'] for name, task in tasks.items()} }"
            )
        return {name: self.client.answer(dag, run, name) for name in tasks}

    def first_run(self, dag: str) -> str:
        """Return the id of the run that an Asset starts."""
        limit = time.monotonic() + _PARSE_SECONDS
        while time.monotonic() < limit:
            if runs := self.client.runs(dag):
                return next(iter(runs))
            time.sleep(_POLL_SECONDS)
        raise SpeckError(f"{dag} was not started by its Asset within {_PARSE_SECONDS:.0f} s")

    def progress(self, dag: str, run: str) -> str:
        """Return the states of a run's tasks and the newest log line of the one that runs."""
        parts, newest = [], ""
        for name, task in self.client.tasks(dag, run).items():
            if (state := task["state"]) is None:
                continue  # its turn has not come
            parts.append(f"{name} {task['duration']:.0f}s" if state == "success" else f"{name} {state}")
            if state == "running" and (lines := self.lines(dag, run, name, task["try_number"])):
                newest = f" | {lines[-1].splitlines()[-1][:120]}"
        return f"{dag}: {', '.join(parts) or 'waiting'}{newest}"

    def lines(self, dag: str, run: str, task: str, attempt: int) -> list[str]:
        """Return what a task has logged so far."""
        log = self.logs / f"dag_id={dag}" / f"run_id={run}" / f"task_id={task}" / f"attempt={attempt}.log"
        if not log.exists():
            return []
        return [text for line in log.read_text(errors="replace").splitlines() if (text := _event(line))]

    def say(self, line: str) -> None:
        """Print a line of progress."""
        print(f"[{time.monotonic() - self.start:5.0f} s] {line}", file=sys.stderr, flush=True)


def run(home: Path | None, seed: int) -> int:
    """Make everything anew below home (`.demo` of the checkout), print what came of it; return the exit code."""
    # A stop of the demo is a stop of all it started: an exception passes through the `with` that owns the processes.
    previous = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        return _run((home or ROOT / ".demo").resolve(), seed)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _run(home: Path, seed: int) -> int:
    start = time.monotonic()
    _make_new(home)
    print(f"demo dataset, seed {seed}, and all that follows from it: {home}", file=sys.stderr, flush=True)
    dataset.write_dataset(home / "data", seed)
    print("starting Airflow (about half a minute)", file=sys.stderr, flush=True)
    with server.up(home / "airflow", ROOT / "dags", extra=_environment(home)) as running:
        print(f"Airflow: {running.url}  user {running.user}  password {running.password}", file=sys.stderr, flush=True)
        watched = Watched(running.client, running.home / "logs", start)
        _wait_for_dags(watched.client)
        for dag in DAGS:
            watched.client.pause(dag, False)
        try:
            build = watched.follow("demo_build", watched.client.trigger("demo_build"))
            train = watched.follow("demo_train", watched.first_run("demo_train"))
            evaluate = watched.follow("demo_evaluate", watched.first_run("demo_evaluate"))
        except SpeckError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            return error.exit_code
    seconds = round(time.monotonic() - start, 1)
    return _report(build["publish"], train["train"], evaluate["evaluate"], watched.seconds, seconds)


def summary(publish: Mapping[str, Any], train: Mapping[str, Any], evaluate: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures that the demo is judged by."""
    small = {method: evaluate[method]["AP50_small"] for method in ("full_image", "combined")}
    return {
        "AP50": evaluate["combined"]["AP50"],
        "AP50_small": small,
        "AP50_small_full_image": small["full_image"],
        "AP50_small_combined": small["combined"],
        "snapshot": publish["snapshot"],
        "model": train["model"],
    }


def shortfalls(figures: Mapping[str, Any]) -> list[str]:
    """Return in words what keeps the demo from being a success."""
    combined, full = figures["AP50_small_combined"] or 0.0, figures["AP50_small_full_image"] or 0.0
    found = []
    if (figures["AP50"] or 0.0) < MIN_AP50:
        found.append(f"combined AP50 is {_figure(figures['AP50'])}, expected at least {MIN_AP50}")
    if combined - full < MIN_GAIN_SMALL:
        found.append(
            f"combined AP50_small gains {combined - full:.3f} on full_image, expected at least {MIN_GAIN_SMALL}"
        )
    return found


def table(publish: Mapping[str, Any], evaluate: Mapping[str, Any], seconds: Mapping[str, float]) -> str:
    """Return the demo's result as lines of text for a person."""
    anchors = publish["anchors"]
    rows = [
        f"{'images':12}{publish['images']}",
        f"{'boxes':12}{publish['annotations']}",
        f"{'rejects':12}{_counts(publish['rejects'])}",
        f"{'samples':12}{_counts(publish['samples'])}",
        f"{'anchors':12}{_anchors(anchors)}, best possible recall {_figure(anchors.get('bpr'))}",
        "",
        f"{'':14}" + "".join(f"{method:>12}" for method in _METHODS),
        *(
            f"{measure:14}" + "".join(f"{_figure(evaluate[method].get(measure)):>12}" for method in _METHODS)
            for measure in _MEASURES
        ),
        "",
        f"{'seconds':12}{', '.join(f'{name} {value:.1f}' for name, value in seconds.items())}",
    ]
    return "\n".join(rows)


def _report(
    publish: Mapping[str, Any],
    train: Mapping[str, Any],
    evaluate: Mapping[str, Any],
    stages: Mapping[str, float],
    seconds: float,
) -> int:
    figures = summary(publish, train, evaluate) | {"seconds": seconds}
    print(table(publish, evaluate, stages))
    print(f"{'reports':12}{SnapshotPaths(publish['snapshot']).audit_html}")
    print(f"{'':12}{evaluate.get('html') or ModelPaths(figures['model']).evaluation_html}", flush=True)
    missed = shortfalls(figures)
    for line in missed:
        print(f"error: {line}", file=sys.stderr, flush=True)
    print(json.dumps(figures), flush=True)
    return 1 if missed else 0


def _make_new(home: Path) -> None:
    """Leave an empty folder that is marked as the demo's; refuse to remove one that is not."""
    if home.exists():
        if any(home.iterdir()) and not (home / _OWNED).exists():
            raise ConfigError(
                "demo", "folder", f"{home}, which holds something else", "a new, empty or earlier demo folder"
            )
        server.down(home / "airflow")
        shutil.rmtree(home)
    home.mkdir(parents=True)
    (home / _OWNED).touch()


def _leave(number: int, frame: FrameType | None) -> None:
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
    for _ in server.beats("it has read the DAGs", _PARSE_SECONDS):
        missing = set(DAGS).difference(client.dags())
        if not missing:
            return
    errors = "\n".join(client.import_errors().values())
    raise SpeckError(f"Airflow has not read {', '.join(sorted(missing))} within {_PARSE_SECONDS:.0f} s\n{errors}")


def _event(line: str) -> str:
    """Return the message of one JSON line of a task log."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    return message(entry)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def _anchors(anchors: Mapping[str, Any]) -> str:
    levels = zip(anchors.get("strides") or (), anchors.get("anchors") or (), strict=False)
    return "; ".join(f"stride {stride}: {' '.join(f'{w:.0f}x{h:.0f}' for w, h in sizes)}" for stride, sizes in levels)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
