"""One run of chaos: builds that meet faults, then an undisturbed one, and what must hold after it."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from etl.config import Config, load
from etl.errors import SpeckError
from etl.lifecycle import champion
from etl.snapshots.snapshot import Snapshot
from etl.storage import store
from tests.chaos import faults
from tests.chaos.outcome import Outcome, Play
from tests.chaos.surroundings import Surroundings, surroundings
from tests.chaos.truth import boxes_of_snapshot, boxes_of_sources
from tests.etl.conftest import DaskProcesses, Dataset, H, W
from tests.etl.execution.test_code_version import copy_package
from tests.train.evaluation.random_model import save_random_model

NAMES = ("car", "bus")
KINDS = (*faults.SIGNALS, "kill scheduler", "stale worker", "full disk", "clock jump", "S3", "source change")
_SECONDS = 240.0  # that a build may take
_TYPICAL = 8.0  # seconds within which faults strike


@contextmanager
def prepare(_: Path) -> Iterator[Play]:
    """Yield what plays a run."""
    yield lambda *arguments: Run(*arguments).play()


class Run:
    """The dataset, the store and the faults of one run; all follow from seed and number."""

    def __init__(self, seed: int, number: int, folder: Path, kinds: tuple[str, ...], s3: str | None) -> None:
        self._rng = random.Random(f"{seed}/{number}")
        self.outcome = Outcome(number, faults.choose(kinds, number, self._rng))
        self._folder, self._s3 = folder, s3
        self._dataset = make_dataset(folder / "data", number)
        self._seed = seed

    def play(self) -> Outcome:
        """Disturb one or two builds, make one undisturbed, and check what must hold."""
        name, seed = f"{self._folder.name}-{self.outcome.number}", self._seed + self.outcome.number
        with surroundings(self._folder, name, self.outcome.faults, self._s3, seed) as place:
            self._play(place)
            self.outcome.requests = dict(place.weather.counts)
        return self.outcome

    def _play(self, place: Surroundings) -> None:
        whole, uri = str(self._folder / "whole"), place.uri
        for each in (whole, uri):
            self._write_config(each)
            self._build(each)
        config = self._dataset.config(uri, tile={"size": 64, "scales": [1.0]})
        first = Snapshot.open(_newest(config.home))
        best = save_random_model(config, first, run="r").rpartition("/")[2]
        champion.promote(config.home, best, "first", over=None)
        faults.change_source(self._dataset, self._rng)
        for _ in range(self._rng.choice([1, 1, 2])):
            self._disturb(place)
        place.calm()
        start = time.monotonic()
        last = self._build(uri)
        self.outcome.recovery = round(time.monotonic() - start, 2)
        self._build(whole)
        if last:
            check_build(self.outcome, load(self._file(uri)), f"{whole}/grown", self._dataset)
            self.outcome.check_champion(config.home, best)
            if not store.exists(f"{config.home}/models/{best}/weights.safetensors"):
                self.outcome.problems.append("gc removed the champion")

    def _disturb(self, place: Surroundings) -> None:
        dask = None
        options = ["--workers", str(self._rng.choice([0, 2]))]
        if {"kill scheduler", "stale worker"} & set(self.outcome.faults):
            folder = self._folder / f"dask{len(self.outcome.exits)}"
            folder.mkdir()
            dask = DaskProcesses(folder)
            dask.add(tree=Path(__file__).parents[2])
            if "stale worker" in self.outcome.faults:
                copy = copy_package(folder)
                changed = copy / "stages" / "tile.py"
                changed.write_text(changed.read_text() + "\nVERSION = 999\n")
                dask.add(tree=folder)
            options = ["--scheduler", dask.address]
        elif "kill worker" in self.outcome.faults:
            options = ["--workers", "2"]
        if "S3" in self.outcome.faults:
            place.disturb(self._rng)
        line = [sys.executable, "-m", "train.cli", "build", str(self._file(place.uri)), *options, "--json"]
        strikes = [(self._rng.uniform(0, _TYPICAL), self._strike(kind, place, dask)) for kind in self.outcome.faults]
        log = self._folder / "build.log"
        try:
            disturbed = faults.run_disturbed(line, place.environ, log, strikes, self._rng, _SECONDS)
        finally:
            if dask is not None:
                dask.end()
        self.outcome.add("speck build", disturbed, log)

    def _strike(self, kind: str, place: Surroundings, dask: DaskProcesses | None) -> faults.Injection:
        if kind == "source change":
            return lambda _, rng: faults.change_source(self._dataset, rng)
        if kind == "kill scheduler" and dask is not None:
            return lambda *_: dask.end()
        return faults.injection(kind, place.disk, place.clock)

    def _build(self, uri: str) -> bool:
        """Build without a fault; return whether that succeeded."""
        return build_undisturbed(self.outcome, load(self._file(uri)))

    def _file(self, uri: str) -> Path:
        return self._folder / ("whole.yaml" if uri.endswith("/whole") else "d.yaml")

    def _write_config(self, uri: str) -> None:
        write_config(self._file(uri), uri, str(self._dataset.folder))


def make_dataset(folder: Path, number: int) -> Dataset:
    """Return the twelve images of the run with this number."""
    dataset = Dataset(folder)
    for image in range(12):
        dataset.put(f"{chr(97 + image)}{number}_5", Dataset.boxes(100 * number + image), 100 * number + image)
    return dataset


def write_config(file: Path, uri: str, images: str) -> Config:
    """Write the dataset file of a store, and return what it says."""
    file.write_text(
        f"name: grown\nstore: {uri}\nsource: {{format: yolo, images: '{images}', categories: [car, bus], "
        "max_rejects: 1.0}\ntile: {size: 64, scales: [1.0]}\nshard: {max_mb: 0.12}\n"
    )
    return load(file)


def build_undisturbed(outcome: Outcome, config: Config) -> bool:
    """Build without a fault; return whether that succeeded."""
    for attempt in range(4):
        try:
            Dataset.build(config)
            return True
        except SpeckError as error:
            if "locked by" not in str(error) or attempt == 3:
                outcome.problems.append(f"the undisturbed build failed: {error}")
                return False
            time.sleep(20)  # a lease outlives a process whose end cannot be seen
    return False


def check_build(outcome: Outcome, config: Config, whole: str, dataset: Dataset) -> None:
    """Note how the newest snapshot differs from that of an undisturbed store and from the label files."""
    newest, expected = _newest(config.home), _newest(whole)
    if _id(newest) != _id(expected):
        outcome.problems.append(f"snapshot {_id(newest)}, undisturbed {_id(expected)}")
    tables = [store.read_bytes(f"{newest}/{name}.parquet") for name in ("images", "annotations")]
    written, kept = boxes_of_sources(dataset.folder, NAMES, (W, H)), boxes_of_snapshot(*tables)
    if written != kept:
        outcome.problems.append(f"boxes lost: {written - kept}, doubled: {kept - written}")
    outcome.verify(config.home)
    outcome.collect_garbage(config)
    outcome.verify(config.home)


def _newest(home: str) -> str:
    head: Mapping[str, str] = json.loads(store.read_bytes(f"{home}/head.json"))
    return f"{home}/snapshots/{head['snapshot']}"


def _id(uri: str) -> str:
    return uri.rpartition("/")[2]
