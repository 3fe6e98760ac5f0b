"""Clean-up: what the retention of a dataset no longer keeps, and what nothing refers to any more."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from etl.config import Config
from etl.errors import StoreError
from etl.lifecycle import champion
from etl.snapshots import snapshot
from etl.storage import lease, store
from etl.storage.paths import MANIFEST, RUN_JSON, DatasetPaths, shard_file, split_uri
from etl.storage.work import WorkDir

log = logging.getLogger("speck")

_RUN_DAYS = 7  # after which a training that did not go on is given up
_AUDIT_HOURS = 24  # after which the work of an audit, which takes no lease, is a dead one's


def collect_garbage(config: Config) -> dict[str, Any]:
    """Remove old snapshots, shards no kept one needs, trials and work of dead builds; return the answer of `speck gc`.

    The newest `retention.snapshots` stay, and whatever head, champion and its predecessor stand for. It holds the
    dataset's lease itself, and so never works beside a build: StoreError, naming the owner, while one runs. StoreError,
    too, with nothing removed, when a file is damaged that says what must stay.
    """
    with lease.hold(config.home):
        return _collect(config)


def _collect(config: Config) -> dict[str, Any]:
    paths = DatasetPaths(config.home)
    snapshot_files, shard_files, work_files = (_listing(uri) for uri in (paths.snapshots, paths.shards, paths.work))
    there = _folders(snapshot_files)
    published = {name for name in there if f"{name}/{MANIFEST}" in snapshot_files}
    _check_pointers(config, published)
    _check_manifests(config, there, published)
    kept = snapshots_to_keep(config) & published
    needed = {
        shard_file(entry["sha256"])
        for name in sorted(kept)
        for entry in snapshot.Snapshot.open(paths.snapshot(name).uri).manifest["shards"]
    }
    gone = sorted(there - kept)
    for name in gone:
        store.delete(paths.snapshot(name).manifest)  # first: what is half removed is no snapshot
        store.delete(paths.snapshot(name).uri)
        log.info("gc: removed snapshot %s", name)
    shards = sorted(shard_files.keys() - needed)
    for name in shards:
        store.delete(f"{paths.shards}/{name}")
    work = [name for name in sorted(_folders(work_files)) if _is_dead(WorkDir(paths.work_dir(name)))]
    for name in work:
        WorkDir(paths.work_dir(name)).delete()
    models = _old_models(config)
    at_work = _runs(config.home)
    needed_runs = {row["run"] for row in champion.list_models(config.home) if row["id"] not in models} | at_work.keys()
    for name in models:
        model = paths.model(name)
        run = store.read_json(model.model_json).get("run")
        if run is not None and run not in needed_runs:
            store.delete(paths.run(run).uri)
        store.delete(model.model_json)  # first: what is half removed is no model
        store.delete(model.uri)
    for name, age in at_work.items():
        if age > timedelta(days=_RUN_DAYS):
            store.delete(paths.run(name).uri)
    trials = _trials(config)
    for name in trials:
        store.delete(paths.trial(name))
    freed = sum(size for path, size in snapshot_files.items() if path.split("/")[0] in gone)
    freed += sum(shard_files[name] for name in shards)
    freed += sum(size for path, size in work_files.items() if path.split("/")[0] in work)
    counts = {"shards": len(shards), "work": len(work), "trials": len(trials)}
    return {"kept": len(kept), "removed": {"snapshots": gone, "models": models, **counts, "bytes": freed}}


def remove_leftovers(home: str, build_id: str) -> None:
    """Remove what builds that were killed left behind, for the build that holds the lease and keeps its own work.

    That is the work no try of a build can go on with: published by a process that could not clean up any more, half
    removed by one, or begun under another plan than the dataset has by now, and so under an id that no build has. And
    it is the files that were being written.
    """
    paths = DatasetPaths(home)
    published = {entry.get("build") for entry in snapshot.history(home)}
    plan = snapshot.load_plan(home)
    pinned = plan.model_dump(mode="json") if plan is not None else None
    there = sorted(_folders(_listing(paths.work)) - {build_id})
    beside = [name for name in there if "-" in name]  # of an audit or an outlook, which take no lease
    for name in there:
        if name in beside:
            continue
        work = WorkDir(paths.work_dir(name))
        if not work.exists or name in published or work.build["plan"] != pinned:
            work.delete()
            log.info("removed leftover work of build %s", name)
    for folder in (paths.shards, paths.snapshots, paths.log):
        store.clear_partials(folder)
    for file in (paths.plan, paths.head, *(() if beside else (paths.seen,))):
        store.clear_partials_of(file)


def snapshots_to_keep(config: Config) -> set[str]:
    """Return the ids of the snapshots that must stay."""
    published: list[str] = []
    for entry in reversed(snapshot.history(config.home)):
        if entry["snapshot"] not in published:
            published.append(entry["snapshot"])
    found = set(published[: config.retention.snapshots])
    if (head := snapshot.head(config)) is not None:
        found.add(split_uri(head).id)
    newest = [row["id"] for row in champion.list_models(config.home)[-1:]]  # it may not be judged yet
    stood_on = [_snapshot_of(config.home, model) for model in (*champion.champion_and_previous(config.home), *newest)]
    in_training = [split_uri(uri).id for uri in _in_training(config.home)]
    return found | {name for name in (*stood_on, *in_training) if name is not None}


def _check_pointers(config: Config, published: set[str]) -> None:
    """Raise StoreError when the files that name the newest snapshot and the champion are lost or contradict."""
    paths, log = DatasetPaths(config.home), snapshot.history(config.home)
    if published and not log and snapshot.head(config) is None:
        raise _refusal(paths.head, f"it and log/ are missing, but {len(published)} snapshots exist")
    promotions = champion.history(config.home)
    pointers = ((paths.head, log, paths.log_entry), (paths.champion, promotions, paths.promotion))
    for pointer, entries, entry_uri in pointers:
        if not store.exists(pointer):
            continue
        sequence = store.read_json(pointer)["sequence"]
        if all(entry["sequence"] != sequence for entry in entries):
            raise _refusal(entry_uri(sequence), f"missing, but {split_uri(pointer).id} refers to it")


def _check_manifests(config: Config, there: set[str], published: set[str]) -> None:
    """Raise StoreError when a model that must stay is lost, or the manifest of a snapshot that something needs."""
    home, head, paths = config.home, snapshot.head(config), DatasetPaths(config.home)
    needed = {} if head is None else {head: "head.json refers to it"}
    for model in champion.champion_and_previous(home):
        uri = paths.model(model).model_json
        if not store.exists(uri):
            raise _refusal(uri, "missing, but it is the champion or its predecessor")
        needed[str(store.read_json(uri)["snapshot"])] = f"model {model} was trained on it"
    trained = [*_in_training(home), *(str(row["snapshot"]) for row in champion.list_models(home)[-1:])]
    needed |= {uri: "a training or the newest model needs it" for uri in trained if split_uri(uri).id in there}
    for uri, reason in needed.items():
        name = split_uri(uri).id
        if name not in published and not paths.is_of_trial(uri):  # a trial has snapshots of its own
            raise _refusal(paths.snapshot(name).manifest, f"missing, but {reason}")


def _refusal(uri: str, reason: str) -> StoreError:
    return StoreError(f"{uri}: {reason}; nothing was removed, restore the file first")


def _in_training(home: str) -> list[str]:
    """Return the URIs (of older runs: ids) of the snapshots that unfinished trainings read."""
    return [str(store.read_json(uri)["snapshot"]) for uri in store.glob(DatasetPaths(home).run("*").run_json)]


def _old_models(config: Config) -> list[str]:
    """Return the ids of the models that `retention.models` no longer keeps, neither champion nor predecessor."""
    ids = [row["id"] for row in champion.list_models(config.home)]
    return sorted(set(ids[: -config.retention.models]) - set(champion.champion_and_previous(config.home)))


def _trials(config: Config) -> list[str]:
    """Return the trials that no build is at work on and no training or model needs."""
    paths = DatasetPaths(config.home)
    there = sorted(_folders(_listing(paths.trials)))
    needed = [*_in_training(config.home), *(str(row["snapshot"]) for row in champion.list_models(config.home))]
    homes = {name: f"{paths.trial(name)}/{config.name}" for name in there}
    return [
        name
        for name, home in homes.items()
        if lease.active_lease(home) is None and not any(uri.startswith(f"{home}/") for uri in needed)
    ]


def _runs(home: str) -> dict[str, timedelta]:
    """Return how long ago each unfinished training was last at work; what a finished one left goes with its model."""
    paths = DatasetPaths(home)
    files = _listing(paths.runs)
    newest: dict[str, datetime] = {}
    for path in files:
        name = path.split("/")[0]
        if f"{name}/{RUN_JSON}" in files:
            time = store.modified_time(f"{paths.runs}/{path}").astimezone(UTC)
            newest[name] = max(newest.get(name, time), time)
    return {name: datetime.now(UTC) - time for name, time in newest.items()}


def _snapshot_of(home: str, model: str) -> str | None:
    try:
        said = store.read_json(DatasetPaths(home).model(model).model_json)
    except StoreError:  # the model itself is gone
        return None
    return split_uri(str(said["snapshot"])).id


def _listing(uri: str) -> dict[str, int]:
    """Return the size of each file below a folder, by its path there; nothing where no folder is."""
    return {file.path: file.size for file in store.list_files(uri)} if store.exists(uri) else {}


def _folders(files: Iterable[str]) -> set[str]:
    """Return the names of the first folders of these paths."""
    return {path.split("/")[0] for path in files}


def _is_dead(work: WorkDir) -> bool:
    """Return whether no one works in a folder any more: a build would hold the lease, an audit is done within a day."""
    if "-" not in work.build_id:
        return True
    if not work.exists:
        return False
    age = datetime.now(UTC) - store.modified_time(work.build_json).astimezone(UTC)
    return age > timedelta(hours=_AUDIT_HOURS)
