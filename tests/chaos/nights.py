"""One night of chaos in a live Airflow: a build, the training and the evaluation that it leads to, and faults."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from etl.config import load
from etl.lifecycle import champion
from etl.local_airflow.client import AirflowError
from etl.snapshots import snapshot as snapshots
from etl.storage import store
from tests.chaos.outcome import Outcome, Play
from tests.chaos.stack import start
from tests.chaos.trainings import check_models
from tests.conftest import Tiny
from tests.etl.conftest import Dataset

KINDS = (
    "kill task", "kill scheduler", "kill training", "kill api-server", "kill Dask worker", "terminate task",
    "kill dag-processor", "kill Dask scheduler", "kill triggerer", "suspend scheduler",
)  # fmt: skip
DAGS = ("tiny_build", "tiny_train", "tiny_evaluate")
_SITES = "abcdefghijklmnopqrstuvwxyz"
_SECONDS = 1200.0  # within which a night ends
_TYPICAL = 75.0  # seconds of a night


@contextmanager
def prepare(folder: Path) -> Iterator[Play]:
    """Yield what plays a night in an Airflow that is started for all of them."""
    nights = Nights(folder)
    try:
        yield nights.play
    finally:
        nights.stack.end()


class Nights:
    """A dataset in a live Airflow, and the same in a store that nothing disturbs."""

    def __init__(self, folder: Path) -> None:
        self.data, self.sites = folder / "data", ""
        (folder / "datasets").mkdir()
        more = "gate: {min_boxes: 5}\nretention: {snapshots: 3, models: 3}\n"
        train = "epochs: 12, max_seconds: null, options: {nbs: 8, optimizer: AdamW, lr0: 0.01, warmup_epochs: 1}"
        files = {"datasets": "cluster: {workers: 1}\n", "whole": ""}
        for name, cluster in files.items():
            (folder / name).mkdir(exist_ok=True)
            text = Tiny().config(folder / f"{name}-store", self.data, "0 0 1 1 *", more + cluster)
            (folder / name / "tiny.yaml").write_text(text.replace("epochs: 2", train))
        self.config, self.whole = load(folder / "datasets" / "tiny.yaml"), load(folder / "whole" / "tiny.yaml")
        self.stack = start(folder / "airflow", folder / "datasets")

    def play(self, seed: int, number: int, _: Path, kinds: tuple[str, ...], __: str | None) -> Outcome:
        """Play one night."""
        return Night(self, seed, number, kinds).play()

    def deliver(self, sites: str) -> None:
        """Let the source hold an image of each site."""
        for path in self.data.glob("*.jpg"):
            if path.stem not in sites:
                path.unlink()
        Tiny().write(self.data, sites)
        self.sites = sites


class Night:
    """One change of the source, and the runs that it leads to."""

    def __init__(self, nights: Nights, seed: int, number: int, kinds: Sequence[str]) -> None:
        self._rng = random.Random(f"airflow/{seed}/{number}")
        chosen = [kinds[number % len(kinds)], *self._rng.choices(kinds, k=self._rng.choice([0, 1, 2]))]
        self.outcome = Outcome(number, chosen)
        self._nights, self._stack = nights, nights.stack
        self._client, self._home = nights.stack.client, nights.config.home

    def play(self) -> Outcome:
        """Build, train and evaluate under faults, repeat what failed, and check what must hold."""
        before = self._nights.sites
        while (sites := "".join(sorted(self._rng.sample(_SITES, self._rng.randint(12, 16))))) == before:
            continue
        known = {dag: set(self._client.runs(dag)) for dag in DAGS}
        champion_before = champion.current_champion(self._home)
        self._nights.deliver(sites)
        self._client.trigger("tiny_build")
        self._strike()
        if unended := self._stack.wait_until_idle(_SECONDS):
            self.outcome.problems.append(f"runs that do not end: {unended}")
            return self.outcome
        start = time.monotonic()
        self._repeat(known)
        self.outcome.recovery = round(time.monotonic() - start, 2)
        Dataset.build(self._nights.whole)
        self._check_runs(known, before, sites)
        self._check_store(champion_before)
        return self.outcome

    def _strike(self) -> None:
        moments = sorted(self._rng.uniform(0, _TYPICAL) for _ in self.outcome.faults)
        start = time.monotonic()
        for moment, kind in zip(moments, self.outcome.faults, strict=True):
            time.sleep(max(0.0, start + moment - time.monotonic()))
            for _ in range(40):  # until there is something to strike
                if self._stack.strike(kind, self._rng):
                    self.outcome.struck += 1
                    break
                time.sleep(1)

    def _repeat(self, known: dict[str, set[str]]) -> None:
        """Run again, without faults, what failed or was not started, as a person would."""
        for dag in DAGS:
            states = self._new_runs(dag, known)
            self.outcome.exits.append(int("success" not in states.values()))
            if "success" in states.values():
                continue
            if dag != "tiny_build" and not states:
                runs = {each: self._new_runs(each, known) for each in DAGS}
                self.outcome.problems.append(f"no run followed: {runs}")
            self._call(lambda dag=dag: self._client.trigger(dag))
            if unended := self._stack.wait_until_idle(_SECONDS):
                self.outcome.problems.append(f"runs that do not end when repeated: {unended}")
            if "success" not in self._new_runs(dag, known).values():
                self.outcome.problems.append(f"{dag} does not succeed when it is repeated")

    def _new_runs(self, dag: str, known: dict[str, set[str]]) -> dict[str, str]:
        return {run: state for run, state in self._client.runs(dag).items() if run not in known[dag]}

    def _call(self, request: Any) -> None:
        for _ in range(30):
            try:
                request()
                return
            except AirflowError:
                time.sleep(2)
        self.outcome.problems.append("Airflow does not answer")

    def _check_runs(self, known: dict[str, set[str]], before: str, sites: str) -> None:
        added, removed = len(set(sites) - set(before)), len(set(before) - set(sites))
        change = f"+{added} images" if not removed else f"+{added} -{removed} images"
        notes: dict[str, list[str]] = {dag: [] for dag in DAGS}
        for dag in DAGS:
            for run in self._new_runs(dag, known):
                record = self._client.call("GET", f"dags/{dag}/dagRuns/{run}")
                tasks = {name: task["state"] for name, task in self._client.tasks(dag, run).items()}
                if record["state"] == "success":
                    notes[dag].append(record["note"] or "")
                if set(tasks.values()) - {"success", "failed", "skipped", "upstream_failed"}:
                    self.outcome.problems.append(f"{dag} {run} has ended as {record['state']} with {tasks}")
        builds = sum(note.startswith(f"{change}, ") for note in notes["tiny_build"])
        if (
            "failed" not in self._new_runs("tiny_build", known).values() and builds != 1
        ):  # a failed one may have published
            self.outcome.problems.append(f"the note of the build is {notes['tiny_build']}, expected {change}")
        if wrong := [note for note in notes["tiny_train"] if not note.startswith(("model ", "no training"))]:
            self.outcome.problems.append(f"notes of trainings: {wrong}")
        newest = champion.current_champion(self._home)
        for note in notes["tiny_evaluate"]:
            is_champion = ", promoted" in note or "it is the champion" in note
            last = champion.list_models(self._home)[-1]["id"]
            if is_champion != (newest == last) or ("not promoted: it is the champion" in note):
                self.outcome.problems.append(f"note of an evaluation: {note}; champion {newest}, newest model {last}")
        if left := [*self._stack.running("train.cli"), *self._stack.running("dask ")]:
            self.outcome.problems.append(f"processes left: {[process.cmdline() for process in left]}")

    def _check_store(self, champion_before: str | None) -> None:
        found, config, whole = self.outcome.problems, self._nights.config, self._nights.whole
        published, right = snapshots.history(self._home), snapshots.history(whole.home)
        if [entry["snapshot"] for entry in published] != [entry["snapshot"] for entry in right]:
            ids = [[entry["snapshot"] for entry in log[-3:]] for log in (published, right)]
            found.append(f"the last snapshots are {ids[0]}, undisturbed {ids[1]}")
        newest = champion.list_models(self._home)[-1]
        evaluation = f"{newest['uri']}/evaluation.json"
        passed = store.exists(evaluation) and store.read_json(evaluation)["gate"]["passed"]
        self.outcome.check_champion(self._home, newest["id"] if passed else champion_before)
        self.outcome.verify(self._home)
        self.outcome.collect_garbage(config)
        self.outcome.verify(self._home)
        found += check_models(self._home)
