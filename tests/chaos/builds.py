"""One run of chaos: builds that meet faults, then an undisturbed one, and what must hold after it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from etl.config import load
from etl.errors import SpeckError
from etl.lifecycle import champion, retention
from etl.snapshots.snapshot import Snapshot, history
from etl.snapshots.verify import verify
from etl.storage import store
from tests.chaos import faults, proxy
from tests.chaos.truth import boxes_of_snapshot, boxes_of_sources
from tests.etl.conftest import BUCKET, DaskProcesses, Dataset, H, W
from tests.etl.execution.test_code_version import copy_package
from tests.train.evaluation.random_model import save_random_model

NAMES = ("car", "bus")
KINDS = (*faults.SIGNALS, "kill scheduler", "stale worker", "full disk", "clock jump", "S3", "source change")
_SECONDS = 240.0  # that a build may take
_TYPICAL = 8.0  # seconds within which faults strike


@dataclass
class Outcome:
    """What came of a run."""

    number: int
    faults: list[str]
    exits: list[int] = field(default_factory=list)  # of the disturbed builds
    recovery: float = 0.0  # seconds of the undisturbed build
    requests: dict[str, int] = field(default_factory=dict)  # to S3, by fault
    problems: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


class Run:
    """The dataset, the store and the faults of one run; all follow from seed and number."""

    def __init__(self, seed: int, number: int, folder: Path, kinds: tuple[str, ...], s3: str | None) -> None:
        self._rng = random.Random(f"{seed}/{number}")
        chosen = [kinds[number % len(kinds)]]
        if self._rng.random() < 0.4:
            chosen.append(self._rng.choice(kinds))
        self.outcome = Outcome(number, chosen)
        self._folder, self._s3 = folder, s3
        self._dataset = Dataset(folder / "data")
        for image in range(12):
            self._dataset.put(f"{chr(97 + image)}{number}_5", Dataset.boxes(100 * number + image), 100 * number + image)
        self._weather = proxy.Weather(seed + number)
        self._environ = {"OMP_NUM_THREADS": "1"}

    def play(self) -> Outcome:
        """Disturb one or two builds, make one undisturbed, and check what must hold."""
        disk = faults.FullDisk(self._folder / "disk", 24) if "full disk" in self.outcome.faults else None
        try:
            if "S3" not in self.outcome.faults:
                self._play(str((disk.folder if disk else self._folder) / "store"), disk)
                return self.outcome
            assert self._s3 is not None
            with proxy.serve(self._s3, self._weather) as address:
                self._environ |= _s3_environ(address)
                os.environ.update(_s3_environ(self._s3))  # this process asks the server itself
                self._play(f"s3://{BUCKET}/{self._folder.name}-{self.outcome.number}", disk)
                self.outcome.requests = dict(self._weather.counts)
            return self.outcome
        finally:
            if disk is not None:
                disk.close()

    def _play(self, uri: str, disk: faults.FullDisk | None) -> None:
        whole = str(self._folder / "whole")
        for each in (whole, uri):
            self._write_config(each)
            self._build(each)
        config = self._dataset.config(uri, tile={"size": 64, "scales": [1.0]})
        first = Snapshot.open(_newest(config.home))
        best = save_random_model(config, first, run="r").rpartition("/")[2]
        champion.promote(config.home, best, "first", over=None)
        faults.change_source(self._dataset, self._rng)
        for _ in range(self._rng.choice([1, 1, 2])):
            self._disturb(uri, disk)
        self._weather.share = 0.0
        if disk is not None:
            disk.empty()
        start = time.monotonic()
        last = self._build(uri)
        self.outcome.recovery = round(time.monotonic() - start, 2)
        self._build(whole)
        if last:
            self._check(config.home, f"{whole}/grown", best, uri)

    def _disturb(self, uri: str, disk: faults.FullDisk | None) -> None:
        environ, clock, dask = dict(self._environ), faults.Clock(self._folder), None
        if "clock jump" in self.outcome.faults:
            environ |= clock.environ()
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
        self._weather.share = self._rng.choice([0.02, 0.1, 0.4]) if "S3" in self.outcome.faults else 0.0
        log = (self._folder / "build.log").open("ab")
        line = [sys.executable, "-m", "train.cli", "build", str(self._file(uri)), *options, "--json"]
        process = subprocess.Popen(line, env=os.environ | environ, stdout=log, stderr=log, start_new_session=True)
        try:
            for kind in self.outcome.faults:
                moment = self._rng.uniform(0, _TYPICAL)
                try:
                    process.wait(moment)
                except subprocess.TimeoutExpired:
                    self._strike(kind, process, disk, clock, dask)
            self.outcome.exits.append(process.wait(_SECONDS))
        except subprocess.TimeoutExpired:
            self.outcome.problems.append(f"a build with {', '.join(self.outcome.faults)} does not end")
        finally:
            faults.kill_build(process, self._rng)
            process.wait()
            log.close()
            if dask is not None:
                dask.end()

    def _strike(self, kind: str, process: Any, disk: Any, clock: faults.Clock, dask: DaskProcesses | None) -> None:
        if kind in faults.SIGNALS:
            faults.SIGNALS[kind](process, self._rng)
        elif kind == "clock jump":
            clock.jump(process, self._rng)
        elif kind == "full disk":
            disk.fill(process, self._rng)
        elif kind == "source change":
            faults.change_source(self._dataset, self._rng)
        elif kind == "kill scheduler" and dask is not None:
            dask.end()

    def _build(self, uri: str) -> bool:
        """Build without a fault; return whether that succeeded."""
        for attempt in range(4):
            try:
                Dataset.build(load(self._file(uri)))
                return True
            except SpeckError as error:
                if "locked by" not in str(error) or attempt == 3:
                    self.outcome.problems.append(f"the undisturbed build failed: {error}")
                    return False
                time.sleep(20)  # a lease outlives a process whose end cannot be seen
        return False

    def _check(self, home: str, whole: str, best: str, uri: str) -> None:
        newest, expected = _newest(home), _newest(whole)
        found = self.outcome.problems
        if _id(newest) != _id(expected):
            found.append(f"snapshot {_id(newest)}, undisturbed {_id(expected)}")
        tables = [store.read_bytes(f"{newest}/{name}.parquet") for name in ("images", "annotations")]
        written, kept = boxes_of_sources(self._dataset.folder, NAMES, (W, H)), boxes_of_snapshot(*tables)
        if written != kept:
            found.append(f"boxes lost: {written - kept}, doubled: {kept - written}")
        self._verify(home)
        if champion.current_champion(home) != best:
            found.append(f"the champion is {champion.current_champion(home)}, not {best}")
        try:
            retention.collect_garbage(load(self._file(uri)))
        except SpeckError as error:
            found.append(f"gc: {error}")
        self._verify(home)
        if not store.exists(f"{home}/models/{best}/weights.safetensors"):
            found.append("gc removed the champion")

    def _verify(self, home: str) -> None:
        for uri in {entry["uri"] for entry in history(home)}:
            if store.exists(f"{uri}/manifest.json") and (bad := verify(Snapshot.open(uri))["bad"]):
                self.outcome.problems.append(f"verify {uri}: {bad[:5]}")

    def _file(self, uri: str) -> Path:
        return self._folder / ("whole.yaml" if uri.endswith("/whole") else "d.yaml")

    def _write_config(self, uri: str) -> None:
        self._file(uri).write_text(
            f"name: grown\nstore: {uri}\nsource: {{format: yolo, images: {self._dataset.folder}, "
            "categories: [car, bus], max_rejects: 1.0}\ntile: {size: 64, scales: [1.0]}\nshard: {max_mb: 0.12}\n"
        )


def _newest(home: str) -> str:
    head: Mapping[str, str] = json.loads(store.read_bytes(f"{home}/head.json"))
    return f"{home}/snapshots/{head['snapshot']}"


def _id(uri: str) -> str:
    return uri.rpartition("/")[2]


def _s3_environ(address: str) -> dict[str, str]:
    keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "test")
    return {"AWS_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1", **keys}


def count(outcomes: list[dict[str, Any]]) -> dict[str, Counter[str]]:
    """Return, by fault, how many runs it struck and how many had a problem."""
    counts: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        for kind in outcome["faults"]:
            counts.setdefault(kind, Counter()).update(runs=1, problems=int(bool(outcome["problems"])))
    return counts
