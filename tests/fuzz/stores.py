"""Stores: every file of a snapshot's folder and of a dataset's home, damaged and read by what reads it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from etl.errors import SpeckError
from etl.lifecycle import champion, retention
from etl.plan import Plan
from etl.snapshots import snapshot
from etl.snapshots.snapshot import Snapshot
from etl.snapshots.verify import verify
from etl.sources.watch import load_fingerprint
from etl.storage import lease
from tests.fuzz import valid_store
from tests.fuzz.case import ERROR, REJECT, RIGHT, Case, Target, Targets, as_text, judge, require
from tests.fuzz.mutations import Mutation, mutate_bytes, mutate_json, mutate_table, one_of
from tests.fuzz.valid_store import ValidStore

_NOT_COVERED = {"manifest.json", "audit.html", "samples.html", "audit.json", "anchors.json", "keys.parquet"}
_LEASE = {"host": "h", "pid": 1, "started": 1, "token": "t", "build": "b", "busy": True, "expires": 4e9}


def mutation_of(file: str) -> Mutation:
    """Return the mutations of a file of a store by its kind."""
    if file.endswith(".json"):
        return one_of(mutate_json, mutate_json, mutate_bytes)
    return one_of(mutate_table, mutate_bytes) if file.endswith(".parquet") else mutate_bytes


class Copy:
    """A copy of a store in which one file at a time is damaged."""

    def __init__(self, made: ValidStore, folder: Path) -> None:
        self.made, self._folder = made, folder
        self.config = made.config.model_copy(update={"store": str(folder)})
        self.home = Path(self.config.home)
        shutil.copytree(made.config.store, folder)

    def files(self, under: str = "") -> list[str]:
        """Return the files of the valid store below a folder of the home."""
        return sorted(
            path.relative_to(self.made.home).as_posix()
            for path in (self.made.home / under).rglob("*")
            if path.is_file()
        )

    def content(self, file: str) -> bytes:
        """Return a valid file."""
        return (self.made.home / file).read_bytes()

    def renew(self) -> None:
        """Make the copy equal to the valid store."""
        shutil.rmtree(self._folder)
        shutil.copytree(self.made.config.store, self._folder)

    def put(self, file: str, data: bytes) -> None:
        """Write one file of the copy."""
        path = self.home / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def snapshots(folder: Path) -> Target:
    """Return the target of the files of a snapshot: what is damaged is found by `verify`, and read without a crash."""
    copy = Copy(valid_store.make(folder), folder / "copy")
    uri = f"{copy.home}/snapshots/{copy.made.snapshot.id}"
    names = [name.rpartition("/")[2] for name in copy.files(f"snapshots/{copy.made.snapshot.id}")]
    shards = [f"shards/{shard['sha256']}.tar" for shard in copy.made.snapshot.manifest["shards"]]

    def read(file: str, data: bytes, is_same: bool) -> str:
        copy.put(file, data)
        try:
            return _read_snapshot(uri, file, is_same)
        finally:
            copy.put(file, copy.content(file))

    def case(rng: random.Random) -> Case:
        name = rng.choice([*names, "shard"])
        file = rng.choice(shards) if name == "shard" else f"snapshots/{copy.made.snapshot.id}/{name}"
        valid = copy.content(file)
        data = mutation_of(file)(rng, valid)
        return Case(file, data, partial(read, file, data, data == valid))

    return case


def _read_snapshot(uri: str, file: str, is_same: bool) -> str:
    opened = Snapshot.open(uri)
    covered = set(opened.manifest.get("files", ())) if isinstance(opened.manifest, dict) else set()
    name = file.rpartition("/")[2]
    problems = verify(opened)["bad"]
    is_covered = name in covered or name not in _NOT_COVERED
    other_shard = file.startswith("shards/") and not any(
        file.endswith(f"{s['sha256']}.tar") for s in opened.manifest["shards"]
    )
    require(bool(problems) or is_same or not is_covered or other_shard, f"verify does not see the damage of {name}")
    outcomes = [judge(Case(name, b"", partial(_touch, reader, opened))) for reader in _READERS]
    return REJECT if problems else ERROR if ERROR in outcomes else RIGHT


def _touch(reader: Callable[[Snapshot], Any], opened: Snapshot) -> str:
    reader(opened)
    return RIGHT


_READERS: list[Callable[[Snapshot], Any]] = [
    lambda opened: opened.config,
    lambda opened: opened.plan,
    lambda opened: opened.categories,
    lambda opened: opened.anchors,
    lambda opened: opened.audit,
    lambda opened: [opened.table(name) for name in ("images", "annotations", "rejects", "ledger", "samples")],
    lambda opened: opened.samples("train")[0],
]


def homes(folder: Path) -> Target:
    """Return the target of the files of a dataset's home: read by what lists, watches and cleans a dataset."""
    copy = Copy(valid_store.make(folder), folder / "copy")
    files = [name for name in copy.files() if name.count("/") < 2] + copy.files("models")
    files = [name for name in files if not name.startswith("shards/") and not name.endswith(".safetensors")]
    files += ["lock.json", "watch.json", "reviews/00000001.json"]
    made = {
        "lock.json": as_text(_LEASE),
        "watch.json": as_text({"fingerprint": "x"}),
        "reviews/00000001.json": copy.made.answers(),
    }

    def read(file: str, data: bytes) -> str:
        copy.put(file, data)
        try:
            outcomes = [judge(Case(file, b"", partial(_call, reader, copy))) for reader in _HOME_READERS]
            return ERROR if ERROR in outcomes else RIGHT
        finally:
            copy.renew()

    def case(rng: random.Random) -> Case:
        file = rng.choice(files)
        data = mutation_of(file)(rng, made[file] if file in made else copy.content(file))
        return Case(file, data, partial(read, file, data))

    return case


def _call(reader: Callable[[Copy], Any], copy: Copy) -> str:
    reader(copy)
    return RIGHT


def _load_plan(copy: Copy) -> Plan | None:
    return snapshot.load_plan(copy.config.home)


_HOME_READERS: list[Callable[[Copy], Any]] = [
    lambda copy: snapshot.head(copy.config),
    lambda copy: snapshot.history(copy.config.home),
    _load_plan,
    lambda copy: lease.active_lease(copy.config.home),
    lambda copy: load_fingerprint(copy.config),
    lambda copy: champion.list_models(copy.config.home),
    lambda copy: champion.current_champion(copy.config.home),
    lambda copy: _collect_nothing_needed(copy),
]


def _collect_nothing_needed(copy: Copy) -> None:
    try:
        retention.collect_garbage(copy.config)
    finally:
        require_nothing_needed_is_gone(copy.made, copy.home)


def require_nothing_needed_is_gone(made: ValidStore, home: Path) -> None:
    """After `speck gc` the newest snapshot and the champion in a copy of the home are whole, whatever was damaged."""
    for path in (made.home / "snapshots" / made.snapshot.id).iterdir():
        require((home / path.relative_to(made.home)).exists(), f"gc removed {path.name} of the newest snapshot")
    for shard in made.snapshot.manifest["shards"]:
        require((home / "shards" / f"{shard['sha256']}.tar").exists(), "gc removed a shard that is needed")
    model = made.model.rpartition("/")[2]
    require((home / "models" / model / "weights.safetensors").exists(), "gc removed the champion")


def builds(folder: Path) -> Target:
    """Return the target of builds on a damaged store: the same snapshot as on a whole one, or an error."""
    copy = Copy(valid_store.make(folder), folder / "copy")
    newest = f"snapshots/{copy.made.snapshot.id}"
    files = ["head.json", "plan.json", "seen.parquet", "pixels.parquet", *copy.files("log"), *copy.files(newest)]

    def read(file: str, data: bytes) -> str:
        copy.put(file, data)
        try:
            answer = copy.made.dataset.build(copy.config)
        except SpeckError:
            raise
        else:
            found = answer["snapshot"].rpartition("/")[2]
            require(found == copy.made.snapshot.id or file == "plan.json", f"another snapshot, after damage of {file}")
            return RIGHT
        finally:
            copy.renew()

    def case(rng: random.Random) -> Case:
        file = rng.choice(files)
        mutate = mutation_of(file) if file.endswith(".json") else mutate_bytes
        data = mutate(rng, copy.content(file))
        return Case(file, data, partial(read, file, data))

    return case


TARGETS: Targets = {"snapshots": (6, snapshots), "homes": (5, homes), "builds": (1, builds)}
