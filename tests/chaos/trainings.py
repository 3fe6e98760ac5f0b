"""One run of chaos on a training: faults, then a retry, then the evaluation that decides about the champion."""

from __future__ import annotations

import os
import random
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch

from etl.config import Config, load
from etl.errors import SpeckError
from etl.lifecycle import champion, retention
from etl.snapshots import snapshot as snapshots
from etl.snapshots.snapshot import Snapshot
from etl.storage import store
from etl.storage.paths import DatasetPaths
from tests.chaos import faults
from tests.chaos.outcome import Outcome, Play
from tests.chaos.surroundings import Surroundings, surroundings
from tests.conftest import Tiny
from tests.etl.conftest import Dataset
from tests.train.evaluation.random_model import save_random_model

KINDS = (*faults.SIGNALS, "new snapshot", "gc", "second training", "full disk", "clock jump", "S3")
_SITES = "abcdefghijklmnopqrstuvwxyz"  # one image each
_IMAGES = 14  # of the source that the runs start with
_SECONDS = 180.0  # that a command may take
_TYPICAL = 7.0  # seconds within which faults strike
_AS_ALWAYS = ("epochs", "steps", "ended", "planned_epochs", "batch", "nbs", "precision", "device", "weights")
_DAYS = 8  # after which gc removes what no one resumed
_COMMAND = (  # as `speck`, but every epoch is validated: which ones depends on the time that an epoch takes
    "import train.engine.trainer as trainer; trainer._VALIDATION_SHARE = 1e9; from train.cli import app; app()"
)


@dataclass(frozen=True)
class Variant:
    """The settings of a training that differ from run to run."""

    epochs: int
    workers: int  # processes that load samples
    seconds: int | None  # the time limit, which is never reached

    def options(self) -> list[str]:
        """Return the options of `speck train`."""
        values = {"epochs": self.epochs, "options.workers": self.workers, "max_seconds": self.seconds or "null"}
        return [word for key, value in values.items() for word in ("--set", f"train.{key}={value}")]

    def apply(self, config: Config) -> Config:
        """Return the configuration with these settings."""
        options = {**config.train.options, "workers": self.workers}
        values = {"epochs": self.epochs, "max_seconds": self.seconds, "options": options}
        return config.model_copy(update={"train": config.train.model_copy(update=values)})


@dataclass
class Undisturbed:
    """A training and its evaluation without any fault."""

    model: str  # id
    trained: dict[str, Any]
    evaluation: Any


@contextmanager
def prepare(folder: Path) -> Iterator[Play]:
    """Yield what plays a run on a training."""
    yield Trainings(folder).play


class Trainings:
    """The runs of a share: a store that each starts from, and the results of undisturbed trainings."""

    def __init__(self, folder: Path) -> None:
        from train.engine import trainer

        trainer._VALIDATION_SHARE = 1e9  # as in _COMMAND
        torch.set_num_threads(1)
        self.folder = folder
        self._known: dict[tuple[str, Variant], Undisturbed] = {}
        Tiny().write(folder / "data", _SITES[:12])
        config = write_config(folder / "base", folder / "data", str(folder / "base" / "store"))
        Dataset.build(config)
        first = Snapshot.open(str(snapshots.head(config)))
        self.first = save_random_model(config, first, image_size=128).rpartition("/")[2]
        champion.promote(config.home, self.first, "first", over=None)
        Tiny().write(folder / "data", _SITES[:_IMAGES])
        Dataset.build(config)

    def play(self, seed: int, number: int, folder: Path, kinds: tuple[str, ...], s3: str | None) -> Outcome:
        """Play one run in an empty folder."""
        return Run(self, seed, number, folder, kinds).play(s3)

    def undisturbed(self, variant: Variant, snapshot: str) -> Undisturbed:
        """Return what a training on the snapshot with this id comes to, in a store that nothing disturbs."""
        if (snapshot, variant) not in self._known:
            home = self.folder / f"whole{len(self._known)}"
            shutil.copytree(self.folder / "base" / "store", home / "store")
            shutil.copytree(self.folder / "data", home / "data")
            config = variant.apply(write_config(home, home / "data", str(home / "store")))
            uri = DatasetPaths(config.home).snapshot(snapshot).uri
            for images in range(_IMAGES + 1, len(_SITES) + 1):
                if store.exists(uri):
                    break
                Tiny().write(home / "data", _SITES[:images])  # as the run that published the snapshot
                Dataset.build(config)
            model, evaluation = train_and_evaluate(config, uri)
            trained = store.read_json(f"{model}/model.json")["trained"]
            self._known[snapshot, variant] = Undisturbed(model.rpartition("/")[2], trained, evaluation)
        return self._known[snapshot, variant]


class Run:
    """The store, the variant and the faults of one run; all follow from seed and number."""

    def __init__(self, trainings: Trainings, seed: int, number: int, folder: Path, kinds: Sequence[str]) -> None:
        self._rng = random.Random(f"training/{seed}/{number}")
        chosen = faults.choose(kinds, number, self._rng)
        self.outcome = Outcome(number, chosen)
        self._trainings, self._seed, self._folder = trainings, seed, folder
        loaders = 2 if "kill worker" in chosen else self._rng.choice([0, 0, 2])
        limit = 3600 if "clock jump" in chosen else self._rng.choice([None, None, 3600])
        self._variant = Variant(self._rng.choice([1, 5]), loaders, limit)
        self._names_snapshot = self._rng.random() < 0.7  # as Airflow does; else the newest is trained on
        shutil.copytree(trainings.folder / "data", folder / "data")

    def play(self, s3: str | None) -> Outcome:
        """Disturb a training and perhaps its evaluation, repeat both, and check what must hold."""
        name, seed = f"{self._folder.name}-t{self.outcome.number}", self._seed + self.outcome.number
        with surroundings(self._folder, name, self.outcome.faults, s3, seed) as place:
            self._play(place)
            self.outcome.requests = dict(place.weather.counts)
        return self.outcome

    def _play(self, place: Surroundings) -> None:
        copy_store(self._trainings.folder / "base" / "store", place.uri)
        config = self._config = self._variant.apply(write_config(self._folder, self._folder / "data", place.uri))
        target = str(snapshots.head(config))
        named = ["--snapshot", target] if self._names_snapshot else []
        self._disturb(place, ["train", *named, *self._variant.options()], "training speck")
        place.calm()
        start = time.monotonic()
        chosen = target if named and store.exists(f"{target}/manifest.json") else str(snapshots.head(config))
        try:
            model = train(config, chosen)
            if self._rng.random() < 0.4:
                self._disturb(place, ["evaluate", "--model", model, "--snapshot", chosen, "--promote"], "")
                place.calm()
            evaluation = evaluate(config, chosen, model)
        except SpeckError as error:
            self.outcome.problems.append(f"the undisturbed retry failed: {error}")
            return
        self.outcome.recovery = round(time.monotonic() - start, 2)
        self._check_result(model, chosen, evaluation)
        self._check_store(place)

    def _disturb(self, place: Surroundings, arguments: list[str], sign: str) -> None:
        log = self._folder / f"{arguments[0]}.log"
        line = [sys.executable, "-c", _COMMAND, arguments[0], str(self._folder / "d.yaml"), *arguments[1:], "--json"]
        late = self._rng.random() < 0.8  # most faults strike when it is at work, not while it starts
        strikes = [(self._rng.uniform(0, _TYPICAL), self._strike(kind, place, line)) for kind in self.outcome.faults]
        if "S3" in self.outcome.faults:
            place.disturb(self._rng)
        disturbed = faults.run_disturbed(line, place.environ, log, strikes, self._rng, _SECONDS, sign if late else "")
        for thread in [each for each in threading.enumerate() if each.name.startswith("speck-chaos")]:
            thread.join()
        self.outcome.add(f"speck {arguments[0]}", disturbed, log)
        if (disturbed.code or 0) > 0 and not {"SIGINT", "SIGTERM"} & set(self.outcome.faults):
            self._check_log(log)

    def _strike(self, kind: str, place: Surroundings, line: list[str]) -> faults.Injection:
        if kind == "new snapshot":
            return lambda *_: self._publish()
        if kind == "gc":
            return lambda *_: (self._publish(), retention.collect_garbage(self._config))
        if kind == "second training":
            return partial(self._start_second, place, line)
        return faults.injection(kind, place.disk, place.clock)

    def _publish(self) -> None:
        """Publish a newer snapshot."""
        number = len(list((self._folder / "data").glob("*.jpg")))
        Tiny().write(self._folder / "data", _SITES[: number + 1])
        try:
            Dataset.build(self._config)
        except (SpeckError, OSError):
            if not {"S3", "full disk"} & set(self.outcome.faults):
                raise

    def _start_second(self, place: Surroundings, line: list[str], *_: Any) -> None:
        """Start the same command again beside the first, as Airflow does when it has lost sight of a task."""
        log, rng = self._folder / "second.log", random.Random(self._rng.random())
        arguments = (line, place.environ, log, [], rng, _SECONDS)
        threading.Thread(target=faults.run_disturbed, args=arguments, name="speck-chaos-second").start()

    def _check_log(self, log: Path) -> None:
        text = log.read_text(errors="replace")
        if "Traceback" in text:
            self.outcome.problems.append(f"a traceback: {text.strip().splitlines()[-1][:300]}")

    def _check_result(self, model: str, chosen: str, evaluation: Any) -> None:
        found, name = self.outcome.problems, model.rpartition("/")[2]
        expected = self._expect(chosen)
        trained = store.read_json(f"{model}/model.json")["trained"]
        keys = _AS_ALWAYS if self._variant.seconds else (*_AS_ALWAYS, "best_epoch", "history")
        if others := {key: trained[key] for key in keys if trained[key] != expected.trained[key]}:
            found.append(f"recorded about the training: {others}, undisturbed {expected.trained}")
        if not self._variant.seconds and name != expected.model:
            found.append(f"model {name}, undisturbed {expected.model}")
        if not self._variant.seconds and (differing := differences(evaluation, expected.evaluation)):
            found.append(f"the metrics are not those of an undisturbed evaluation: {differing}")
        better = bool(evaluation.combined.AP)  # the first champion detects nothing
        self.outcome.check_champion(self._config.home, name if better else self._trainings.first)

    def _expect(self, chosen: str) -> Undisturbed:
        return self._trainings.undisturbed(self._variant, chosen.rpartition("/")[2])

    def _check_store(self, place: Surroundings) -> None:
        home, found = self._config.home, self.outcome.problems
        self.outcome.verify(home)
        if (local := store.local_path(home)) is not None:
            make_older(local)
        self.outcome.collect_garbage(self._config)
        self.outcome.verify(home)
        found += check_models(home)
        runs = folders_of(f"{home}/runs")
        used = {row["run"] for row in champion.list_models(home)}
        if local is not None and (left := sorted(runs - used)):
            found.append(f"gc left runs: {left}")
        if local is not None and (left := [str(path) for path in local.rglob(".*") if path.is_file()]):
            found.append(f"gc left partial files: {left}")


def check_models(home: str) -> list[str]:
    """Return what is wrong with the models of a store: half written, or damaged."""
    from train.models.model import load_saved_model

    found = []
    for name in sorted(folders_of(f"{home}/models")):
        model = DatasetPaths(home).model(name)
        if not store.exists(model.model_json):
            found.append(f"half a model is left: {model.uri}")
            continue
        try:
            load_saved_model(model.uri)
        except SpeckError as error:
            found.append(f"a model that cannot be used: {error}")
    return found


def train(config: Config, snapshot: str) -> str:
    """Train undisturbed in this process; return the model's URI."""
    from train.engine import run

    return run.train(config, Snapshot.open(snapshot))["model"]


def evaluate(config: Config, snapshot: str, model: str) -> Any:
    """Evaluate undisturbed in this process, and promote the model if the gate passes it."""
    from train.evaluation import run

    return run.evaluate(config, Snapshot.open(snapshot), model, promote=True)


def train_and_evaluate(config: Config, snapshot: str) -> tuple[str, Any]:
    """Train and evaluate undisturbed; return the model's URI and its evaluation."""
    model = train(config, snapshot)
    return model, evaluate(config, snapshot, model)


def write_config(folder: Path, data: Path, uri: str) -> Config:
    """Write the dataset file of a store, and return what it says."""
    folder.mkdir(exist_ok=True)
    text = Tiny().config(uri, data, "0 2 * * *", "gate: {min_boxes: 5}\nretention: {snapshots: 1}\n")
    settings = "options: {nbs: 8, optimizer: AdamW, lr0: 0.01, warmup_epochs: 1}, device: cpu"
    (folder / "d.yaml").write_text(text.replace("device: cpu", settings))
    return load(folder / "d.yaml")


def copy_store(source: Path, uri: str) -> None:
    """Copy a local store to a URI."""
    for file in source.rglob("*"):
        if file.is_file():
            store.write_bytes(store.join(uri, file.relative_to(source).as_posix()), file.read_bytes())


def make_older(folder: Path) -> None:
    """Let the files of unfinished work be so old that gc removes them."""
    for path in [*folder.glob("runs/**/*"), *folder.rglob(".*")]:
        moment = path.stat().st_mtime - timedelta(days=_DAYS).total_seconds()
        os.utime(path, (moment, moment))


def folders_of(uri: str) -> set[str]:
    """Return the names of the folders below a URI."""
    return {file.path.split("/")[0] for file in store.list_files(uri)} if store.exists(uri) else set()


def differences(evaluation: Any, expected: Any) -> dict[str, Any]:
    """Return the metrics that differ, found and expected."""
    metrics, right = (each.combined.model_dump(exclude={"seconds_per_image"}) for each in (evaluation, expected))
    return {key: (value, right[key]) for key, value in metrics.items() if value != right[key]}
