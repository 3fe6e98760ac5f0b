"""Garbage collection: delete what the retention policy of a dataset no longer keeps and what nothing refers to."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from etl.config import Config
from etl.document import Document
from etl.errors import StoreError
from etl.lifecycle import champion
from etl.lifecycle.promotion_log import read_copy, restore_copy
from etl.snapshots import snapshot
from etl.snapshots.publications import log_sequences, read_head, read_log_entry
from etl.storage import lease, partials, store
from etl.storage.paths import (
    FOLD,
    LABEL_ERRORS,
    MANIFEST,
    MISSING,
    MODEL_JSON,
    REFUSED_HTML,
    RUN_JSON,
    WEIGHTS,
    DatasetPaths,
    ModelPaths,
    shard_file,
    split_uri,
)
from etl.storage.work import WorkDir

log = logging.getLogger("speck")

_RUN_DAYS = 7  # after which an unfinished training, a half model and a partial file are deleted
_SUSPECTS = 10  # newest lists of label errors of a dataset that are kept
_REFUSALS = 10  # newest refused builds of a dataset whose rejects are kept
_AUDIT_HOURS = 24  # after which the work folder of an audit, which holds no lease, is deleted


class _Run(Document):
    snapshot: str  # URI, or id of older runs


def collect_garbage(config: Config) -> dict[str, Any]:
    """Remove old snapshots, models and label errors, unused shards and trials, and leftover work; return the answer.

    The newest `retention.snapshots` are kept, and the snapshots of the head, the champion, its predecessor, the newest
    model and unfinished trainings, those of `speck find-errors` too. StoreError, which names the owner, while a build
    holds the lease on the dataset; StoreError, with nothing removed, if a file that decides what is kept is missing or
    damaged.
    """
    with lease.hold(config.home):
        return _collect(config)


def _collect(config: Config) -> dict[str, Any]:
    paths = DatasetPaths(config.home)
    snapshot_files, shard_files, work_files = (_listing(uri) for uri in (paths.snapshots, paths.shards, paths.work))
    snapshots = _folders(snapshot_files)
    published = {name for name in snapshots if f"{name}/{MANIFEST}" in snapshot_files}
    _check_documents(config.home)
    _check_pointers(config, published)
    _check_manifests(config, snapshots, published)
    restore_copy(config.home)
    kept = snapshots_to_keep(config) & published
    needed = {
        shard_file(entry["sha256"])
        for name in sorted(kept)
        for entry in snapshot.Snapshot.open(paths.snapshot(name).uri).manifest["shards"]
    }
    old_snapshots = sorted(snapshots - kept)
    for name in old_snapshots:
        lease.confirm(config.home)  # a build that took it over may need what is removed here
        store.delete(paths.snapshot(name).manifest)  # first, so that a half-removed folder is not a snapshot
        store.delete(paths.snapshot(name).uri)
        log.info("gc: removed snapshot %s", name)
    shards = sorted(shard_files.keys() - needed)
    for name in shards:
        lease.confirm(config.home)
        store.delete(f"{paths.shards}/{name}")
    lease.confirm(config.home)
    work = [name for name in sorted(_folders(work_files)) if _is_abandoned(WorkDir(paths.work_dir(name)))]
    for name in work:
        WorkDir(paths.work_dir(name)).delete()
    models = _old_models(config)
    unfinished = _unfinished_runs(config.home)
    kept_models = [row for row in champion.list_models(config.home) if row["id"] not in models]
    needed_runs = {row["run"] for row in kept_models} | unfinished.keys()
    for name in models:
        model = paths.model(name)
        run = store.read_json(model.model_json).get("run")
        if run is not None and run not in needed_runs:
            store.delete(paths.run(run).uri)
        _remove_model(model)
    for name, age in unfinished.items():
        if age > timedelta(days=_RUN_DAYS):
            store.delete(paths.run(name).uri)
    _remove_half_models(config.home)
    partials.clear(config.home, _RUN_DAYS)
    trials = _unused_trials(config)
    for name in trials:
        store.delete(paths.trial(name))
    label_errors = _remove_old_label_errors(config.home)
    remove_old_refusals(config.home)
    freed = sum(size for path, size in snapshot_files.items() if path.split("/")[0] in old_snapshots)
    freed += sum(shard_files[name] for name in shards)
    freed += sum(size for path, size in work_files.items() if path.split("/")[0] in work)
    counts = {"shards": len(shards), "work": len(work), "trials": len(trials), "label_errors": label_errors}
    return {"kept": len(kept), "removed": {"snapshots": old_snapshots, "models": models, **counts, "bytes": freed}}


def remove_leftovers(home: str, build_id: str) -> None:
    """Remove the leftovers of killed builds; call it from the build `build_id`, which holds the lease.

    Work folders are removed if no attempt of a build can resume them: those already published, those half removed, and
    those started with a plan that is no longer the dataset's. Partially written files are removed too.
    """
    paths = DatasetPaths(home)
    published = {entry.get("build") for entry in snapshot.history(home)}
    plan = snapshot.load_plan(home)
    pinned = plan.model_dump(mode="json") if plan is not None else None
    folders = sorted(_folders(_listing(paths.work)) - {build_id})
    without_lease = [name for name in folders if "-" in name]  # of audits and plan previews, which can run now
    for name in folders:
        if name in without_lease:
            continue
        work = WorkDir(paths.work_dir(name))
        if not work.exists or name in published or work.build["plan"] != pinned:
            work.delete()
            log.info("removed leftover work of build %s", name)
    for folder in (paths.shards, paths.snapshots, paths.log):
        partials.clear(folder)
    for file in (paths.plan, paths.head, *(() if without_lease else (paths.seen, paths.pixels))):
        partials.clear_of(file)


def remove_old_refusals(home: str) -> None:
    """Delete what refused builds left, except the newest ten."""
    paths = DatasetPaths(home)
    pages = [paths.refusal(name).html for name in _folders(_listing(paths.refused))]
    newest = sorted(filter(store.exists, pages), key=lambda uri: (store.modified_time(uri), uri))[-_REFUSALS:]
    for uri in sorted(set(pages) - set(newest)):
        store.delete(uri.removesuffix(f"/{REFUSED_HTML}"))


def snapshots_to_keep(config: Config) -> set[str]:
    """Return the ids of the snapshots to keep."""
    published: list[str] = []
    for entry in reversed(snapshot.history(config.home)):
        if entry["snapshot"] not in published:
            published.append(entry["snapshot"])
    kept = set(published[: config.retention.snapshots])
    if (head := snapshot.head(config)) is not None:
        kept.add(split_uri(head).id)
    newest = [row["id"] for row in champion.list_models(config.home)[-1:]]  # it may not be evaluated yet
    of_models = [_snapshot_of(config.home, model) for model in (*champion.champion_and_previous(config.home), *newest)]
    in_training = [split_uri(uri).id for uri in _in_training(config.home)]
    return kept | {name for name in (*of_models, *in_training) if name is not None}


def _check_documents(home: str) -> None:
    """Raise StoreError if a small file that decides what is kept is damaged, or a log entry is missing."""
    paths, sequences = DatasetPaths(home), log_sequences(home)
    try:
        if store.exists(paths.head):
            read_head(home)
        for sequence in range(min(sequences, default=1), max(sequences, default=0) + 1):
            read_log_entry(home, sequence)
        if store.exists(paths.champion):
            read_copy(home)
        champion.list_models(home)
        _in_training(home)
    except StoreError as error:
        raise StoreError(f"{error}; nothing was removed; mend it first: `speck repair CONFIG`, or a backup") from error


def _check_pointers(config: Config, published: set[str]) -> None:
    """Raise StoreError if the files that name the newest snapshot or the champion are missing or inconsistent."""
    paths, log = DatasetPaths(config.home), snapshot.history(config.home)
    if published and not log and snapshot.head(config) is None:
        cure = "run `speck build` if the first build was interrupted, else restore them first"
        raise _damage_error(paths.head, f"it and log/ are missing, but snapshots exist: {len(published)}", cure)
    promotions = champion.history(config.home)
    pointers = ((paths.head, log, paths.log_entry), (paths.champion, promotions, paths.promotion))
    for pointer, entries, entry_uri in pointers:
        if not store.exists(pointer):
            continue
        sequence = store.read_json(pointer)["sequence"]
        if all(entry["sequence"] != sequence for entry in entries):
            raise _damage_error(entry_uri(sequence), f"missing, but {split_uri(pointer).id} refers to it")


def _check_manifests(config: Config, snapshots: set[str], published: set[str]) -> None:
    """Raise StoreError if a model to keep is missing, or the manifest of a snapshot that is in use."""
    home, head, paths = config.home, snapshot.head(config), DatasetPaths(config.home)
    needed = {} if head is None else {head: "head.json refers to it"}
    for model in champion.champion_and_previous(home):
        uri = paths.model(model).model_json
        if not store.exists(uri):
            raise _damage_error(uri, "missing, but it is the champion or its predecessor")
        needed[str(store.read_json(uri)["snapshot"])] = f"model {model} was trained on it"
    trained = [*_in_training(home), *(str(row["snapshot"]) for row in champion.list_models(home)[-1:])]
    needed |= {uri: "a training or the newest model needs it" for uri in trained if split_uri(uri).id in snapshots}
    for uri, reason in needed.items():
        name = split_uri(uri).id
        if name not in published and not paths.is_of_trial(uri):  # a trial has its own snapshots
            raise _damage_error(paths.snapshot(name).manifest, f"missing, but {reason}")


def _damage_error(uri: str, reason: str, cure: str = "restore the file first") -> StoreError:
    return StoreError(f"{uri}: {reason}; nothing was removed; {cure}")


def _in_training(home: str) -> list[str]:
    """Return the URIs (ids for older runs) of the snapshots of unfinished trainings, of cross-fitted models too."""
    paths = DatasetPaths(home)
    records = [uri for of in (paths.run("*"), paths.label_errors("*")) for uri in store.glob(of.run_json)]
    return [_Run.from_json(uri, store.read_bytes(uri)).snapshot for uri in records]


def _old_models(config: Config) -> list[str]:
    """Return the ids of the models beyond `retention.models`, except the champion, its predecessor and the year's."""
    ids = [row["id"] for row in champion.list_models(config.home)]
    kept = {*champion.champion_and_previous(config.home), *champion.champions_of_year(config.home, datetime.now(UTC))}
    return sorted(set(ids[: -config.retention.models]) - kept)


def _remove_model(model: ModelPaths) -> None:
    """Delete a model, so that what is left of it when this is interrupted is a model, or a half one."""
    for file in _listing(model.uri):
        if file not in (MODEL_JSON, WEIGHTS):
            store.delete(f"{model.uri}/{file}")
    store.delete(model.model_json)
    store.delete(model.uri)


def _remove_half_models(home: str) -> None:
    """Delete, a week after their last write, models without model.json of which the weights or nothing else is left.

    Weights alone are those of a training that was killed before it wrote model.json, or of a `speck gc`; files without
    weights those of an evaluation of a model that was removed meanwhile.
    """
    files = _listing(DatasetPaths(home).models)
    for name in sorted(_folders(files)):
        inside = [path for path in files if path.startswith(f"{name}/")]
        is_half = inside == [f"{name}/{WEIGHTS}"] or not {f"{name}/{WEIGHTS}", f"{name}/{MODEL_JSON}"} & {*inside}
        if not is_half:
            continue
        model = DatasetPaths(home).model(name)
        last = max(store.modified_time(f"{DatasetPaths(home).models}/{path}").astimezone(UTC) for path in inside)
        is_old = datetime.now(UTC) - last > timedelta(days=_RUN_DAYS)
        if is_old and not store.exists(model.model_json):  # it may have been written meanwhile
            store.delete(model.uri)


def _unused_trials(config: Config) -> list[str]:
    """Return the names of the trials without a running build whose snapshots no training or model uses."""
    paths = DatasetPaths(config.home)
    names = sorted(_folders(_listing(paths.trials)))
    used = [*_in_training(config.home), *(str(row["snapshot"]) for row in champion.list_models(config.home))]
    uris = [paths.snapshot(reference).uri for reference in used]
    homes = {name: f"{paths.trial(name)}/{config.name}" for name in names}
    return [
        name
        for name, home in homes.items()
        if lease.active_lease(home) is None and not any(uri.startswith(f"{home}/") for uri in uris)
    ]


def _remove_old_label_errors(home: str) -> int:
    """Delete lists of label errors, except the newest ten, unfinished ones, and those by champion and newest model.

    Fold models are deleted a week after their last write, and the record of their run with the last one: the run was
    not resumed. Return the number of deleted lists.
    """
    lists: dict[str, datetime] = {}  # last write of each
    runs: defaultdict[str, dict[str, datetime]] = defaultdict(dict)  # by list: of its record and each fold model
    for folder in (f"{home}/{LABEL_ERRORS}", f"{home}/{MISSING}"):
        for path in _listing(folder):
            name, *inside = path.split("/")
            uri, time = f"{folder}/{name}", store.modified_time(f"{folder}/{path}").astimezone(UTC)
            is_of_run = bool(inside) and inside[0].startswith((FOLD, RUN_JSON))
            times, part = (runs[uri], inside[0]) if is_of_run else (lists, uri)
            times[part] = max(times.get(part, time), time)
    for uri, parts in runs.items():
        for part, time in parts.items():
            last = max(parts.values()) if part == RUN_JSON else time
            if datetime.now(UTC) - last > timedelta(days=_RUN_DAYS):
                store.delete(f"{uri}/{part}")
    newest = [row["id"] for row in champion.list_models(home)[-1:]]
    models = {champion.current_champion(home), *newest}
    oldest_first = sorted(lists, key=lambda uri: (lists[uri], uri))
    old = [
        uri
        for uri in oldest_first[:-_SUSPECTS]
        if split_uri(uri).id not in models and RUN_JSON not in runs.get(uri, {})
    ]
    for uri in old:
        store.delete(uri)
    return len(old)


def _unfinished_runs(home: str) -> dict[str, timedelta]:
    """Return the time since the last write of each unfinished training; finished runs are deleted with their model."""
    paths = DatasetPaths(home)
    files = _listing(paths.runs)
    last_write: dict[str, datetime] = {}
    for path in files:
        name = path.split("/")[0]
        if f"{name}/{RUN_JSON}" in files:
            time = store.modified_time(f"{paths.runs}/{path}").astimezone(UTC)
            last_write[name] = max(last_write.get(name, time), time)
    return {name: datetime.now(UTC) - time for name, time in last_write.items()}


def _snapshot_of(home: str, model: str) -> str | None:
    try:
        content = store.read_json(DatasetPaths(home).model(model).model_json)
    except StoreError:  # the model does not exist
        return None
    return split_uri(str(content["snapshot"])).id


def _listing(uri: str) -> dict[str, int]:
    """Return the size in bytes of each file below a folder by relative path; empty if the folder does not exist."""
    return {file.path: file.size for file in store.list_files(uri)} if store.exists(uri) else {}


def _folders(files: Iterable[str]) -> set[str]:
    """Return the first components of relative paths."""
    return {path.split("/")[0] for path in files}


def _is_abandoned(work: WorkDir) -> bool:
    """Return whether a work folder is unused: a build would hold the lease, an audit takes less than a day."""
    if "-" not in work.build_id:
        return True
    files = [work.build_json] if work.exists else [f"{work.uri}/{path}" for path in _listing(work.uri)]
    times = [store.modified_time(file).astimezone(UTC) for file in files]
    return all(datetime.now(UTC) - time > timedelta(hours=_AUDIT_HOURS) for time in times)
