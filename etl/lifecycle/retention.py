"""Clean-up: what the retention of a dataset no longer keeps, and what nothing refers to any more."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from etl.config import Config
from etl.errors import StoreError
from etl.lifecycle import champion
from etl.snapshots import snapshot
from etl.storage import lease, store
from etl.storage.work import Work

log = logging.getLogger("speck")

_RUN_DAYS = 7  # after which a training that did not go on is given up
_AUDIT_HOURS = 24  # after which the work of an audit, which takes no lease, is a dead one's


def collect(config: Config) -> dict[str, Any]:
    """Remove old snapshots, shards no kept one needs, trials and work of dead builds; return the answer of `speck gc`.

    The newest `retention.snapshots` stay, and whatever head, champion and its predecessor stand for. It holds the
    dataset's lease itself, and so never works beside a build: StoreError, naming the owner, while one runs. StoreError,
    too, with nothing removed, when a file is damaged that says what must stay.
    """
    with lease.held(config.home):
        return _collect(config)


def _collect(config: Config) -> dict[str, Any]:
    home = config.home
    files = {folder: _listing(home, folder) for folder in ("snapshots", "shards", "work")}
    there = {path.split("/")[0] for path in files["snapshots"]}
    published = {name for name in there if f"{name}/manifest.json" in files["snapshots"]}
    _check_pointers(config, published)
    _check_manifests(config, there, published)
    kept = wanted(config) & published
    needed = {
        f"{entry['sha256']}.tar"
        for name in sorted(kept)
        for entry in snapshot.Snapshot.open(store.join(home, "snapshots", name)).manifest["shards"]
    }
    gone = sorted(there - kept)
    for name in gone:
        folder = store.join(home, "snapshots", name)
        store.delete(store.join(folder, "manifest.json"))  # first: what is half removed is no snapshot
        store.delete(folder)
        log.info("gc: removed snapshot %s", name)
    shards = sorted(files["shards"].keys() - needed)
    for name in shards:
        store.delete(store.join(home, "shards", name))
    work = sorted({path.split("/")[0] for path in files["work"]})
    work = [name for name in work if _is_dead(store.join(home, "work", name))]
    for name in work:
        Work(store.join(home, "work", name)).delete()
    models = _old_models(config)
    at_work = _runs(home)
    needed_runs = {row["run"] for row in champion.models(home) if row["id"] not in models} | at_work.keys()
    for name in models:
        run = store.read_json(store.join(home, "models", name, "model.json")).get("run")
        if run is not None and run not in needed_runs:
            store.delete(store.join(home, "runs", run))
        store.delete(store.join(home, "models", name, "model.json"))  # first: what is half removed is no model
        store.delete(store.join(home, "models", name))
    for name, age in at_work.items():
        if age > timedelta(days=_RUN_DAYS):
            store.delete(store.join(home, "runs", name))
    trials = _trials(config)
    for name in trials:
        store.delete(store.join(home, "trials", name))
    freed = sum(size for path, size in files["snapshots"].items() if path.split("/")[0] in gone)
    freed += sum(files["shards"][name] for name in shards)
    freed += sum(size for path, size in files["work"].items() if path.split("/")[0] in work)
    counts = {"shards": len(shards), "work": len(work), "trials": len(trials)}
    return {"kept": len(kept), "removed": {"snapshots": gone, "models": models, **counts, "bytes": freed}}


def sweep(home: str, build_id: str) -> None:
    """Remove what builds that were killed left behind, for the build that holds the lease and keeps its own work.

    That is the work no try of a build can go on with: published by a process that could not clean up any more, half
    removed by one, or begun under another plan than the dataset has by now, and so under an id that no build has. And
    it is the files that were being written.
    """
    published = {entry.get("build") for entry in snapshot.history(home)}
    plan = snapshot.load_plan(home)
    pinned = plan.model_dump(mode="json") if plan is not None else None
    there = sorted({path.split("/")[0] for path in _listing(home, "work")} - {build_id})
    beside = [name for name in there if "-" in name]  # of an audit or an outlook, which take no lease
    for name in there:
        if name in beside:
            continue
        work = Work(store.join(home, "work", name))
        if not work.exists or name in published or work.build["plan"] != pinned:
            work.delete()
            log.info("removed the work of build %s, which ended before it could", name)
    for folder in ("shards", "snapshots", "log"):
        store.clear_partials(store.join(home, folder))
    for file in ("plan.json", "head.json", *(() if beside else ("seen.parquet",))):
        store.clear_partials(home, file)


def wanted(config: Config) -> set[str]:
    """Return the ids of the snapshots that must stay."""
    published: list[str] = []
    for entry in reversed(snapshot.history(config.home)):
        if entry["snapshot"] not in published:
            published.append(entry["snapshot"])
    found = set(published[: config.retention.snapshots])
    if (head := snapshot.head(config)) is not None:
        found.add(head.rsplit("/", 1)[1])
    newest = [row["id"] for row in champion.models(config.home)[-1:]]  # it may not be judged yet
    stood_on = [_snapshot_of(config.home, model) for model in (*champion.standing(config.home), *newest)]
    in_training = [uri.rsplit("/", 1)[-1] for uri in _in_training(config.home)]
    return found | {name for name in (*stood_on, *in_training) if name is not None}


def _check_pointers(config: Config, published: set[str]) -> None:
    """Raise StoreError when the files that name the newest snapshot and the champion are lost or contradict."""
    home, log = config.home, snapshot.history(config.home)
    if published and not log and snapshot.head(config) is None:
        raise _refusal(store.join(home, "head.json"), f"it and log/ are missing, but {len(published)} snapshots exist")
    pointers = (("head.json", "log", log), ("champion.json", "promotions", champion.history(home)))
    for pointer, folder, entries in pointers:
        uri = store.join(home, pointer)
        if not store.exists(uri):
            continue
        sequence = store.read_json(uri)["sequence"]
        if all(entry["sequence"] != sequence for entry in entries):
            raise _refusal(store.join(home, folder, f"{sequence:08d}.json"), f"missing, but {pointer} refers to it")


def _check_manifests(config: Config, there: set[str], published: set[str]) -> None:
    """Raise StoreError when a model that must stay is lost, or the manifest of a snapshot that something needs."""
    home, head = config.home, snapshot.head(config)
    needed = {} if head is None else {head: "head.json refers to it"}
    for model in champion.standing(home):
        uri = store.join(home, "models", model, "model.json")
        if not store.exists(uri):
            raise _refusal(uri, "missing, but it is the champion or its predecessor")
        needed[str(store.read_json(uri)["snapshot"])] = f"model {model} was trained on it"
    trained = [*_in_training(home), *(str(row["snapshot"]) for row in champion.models(home)[-1:])]
    needed |= {uri: "a training or the newest model needs it" for uri in trained if _id_of(uri) in there}
    for uri, reason in needed.items():
        of_trial = uri.removeprefix(home).rstrip("/").split("/")[-5:-4] == [
            "trials"
        ]  # they have snapshots of their own
        if not of_trial and _id_of(uri) not in published:
            manifest = store.join(home, "snapshots", _id_of(uri), "manifest.json")
            raise _refusal(manifest, f"missing, but {reason}")


def _refusal(uri: str, reason: str) -> StoreError:
    return StoreError(f"{uri}: {reason}; nothing was removed, restore the file first")


def _id_of(uri: str) -> str:
    return uri.rstrip("/").rsplit("/", 1)[-1]


def _in_training(home: str) -> list[str]:
    """Return the URIs (of older runs: ids) of the snapshots that unfinished trainings read."""
    return [str(store.read_json(uri)["snapshot"]) for uri in store.glob(store.join(home, "runs", "*", "run.json"))]


def _old_models(config: Config) -> list[str]:
    """Return the ids of the models that `retention.models` no longer keeps, neither champion nor predecessor."""
    ids = [row["id"] for row in champion.models(config.home)]
    return sorted(set(ids[: -config.retention.models]) - set(champion.standing(config.home)))


def _trials(config: Config) -> list[str]:
    """Return the trials that no build is at work on and no training or model needs."""
    there = sorted({path.split("/")[0] for path in _listing(config.home, "trials")})
    needed = [*_in_training(config.home), *(str(row["snapshot"]) for row in champion.models(config.home))]
    homes = {name: store.join(config.home, "trials", name, config.name) for name in there}
    return [
        name
        for name, home in homes.items()
        if lease.running(home) is None and not any(uri.startswith(f"{home}/") for uri in needed)
    ]


def _runs(home: str) -> dict[str, timedelta]:
    """Return how long ago each unfinished training was last at work; what a finished one left goes with its model."""
    marked = {uri.split("/")[-2] for uri in store.glob(store.join(home, "runs", "*", "run.json"))}
    newest: dict[str, datetime] = {}
    for uri in store.glob(store.join(home, "runs", "*", "*")):
        name, time = uri.split("/")[-2], store.modified(uri).astimezone(UTC)
        newest[name] = max(newest.get(name, time), time)
    return {name: datetime.now(UTC) - time for name, time in newest.items() if name in marked}


def _snapshot_of(home: str, model: str) -> str | None:
    try:
        said = store.read_json(store.join(home, "models", model, "model.json"))
    except StoreError:  # the model itself is gone
        return None
    return _id_of(str(said["snapshot"]))


def _listing(home: str, folder: str) -> dict[str, int]:
    uri = store.join(home, folder)
    return {file.path: file.size for file in store.listing(uri)} if store.exists(uri) else {}


def _is_dead(work: str) -> bool:
    """Return whether no one works in a folder any more: a build would hold the lease, an audit is done within a day."""
    if "-" not in work.rsplit("/", 1)[1]:
        return True
    mark = store.join(work, "build.json")
    if not store.exists(mark):
        return False
    age = datetime.now(UTC) - store.modified(mark).astimezone(UTC)
    return age > timedelta(hours=_AUDIT_HOURS)
