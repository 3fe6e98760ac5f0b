"""Verify a snapshot against its manifest: the SHA-256 of every table, shard and sample."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl import schema
from etl.errors import StoreError
from etl.snapshots.snapshot import Snapshot
from etl.storage import store

log = logging.getLogger("speck")


def verify(snapshot: Snapshot) -> dict[str, Any]:
    """Return the answer of `speck verify`: the number of samples, and {what, name, reason} of each problem."""
    bad: list[dict[str, str]] = []
    for name, entry in sorted(snapshot.manifest["tables"].items()):
        _check_content(snapshot.paths.table(name), entry["sha256"], "table", name, bad)
    samples = _read_samples(snapshot)
    listed = {entry["sha256"]: entry for entry in snapshot.manifest["shards"]}
    checked = 0
    for sha256, entry in listed.items():
        data = _check_content(snapshot.shard_uri(sha256), sha256, "shard", sha256, bad)
        rows = samples.filter(pc.equal(samples["shard"], sha256)).select(["sample_id", "offset", "size", "sha256"])
        if rows.num_rows != entry["samples"]:
            bad.append(_problem("shard", sha256, f"{rows.num_rows} samples in its table, {entry['samples']} expected"))
        checked += rows.num_rows
        if data is not None:
            bad += [
                _problem("sample", row["sample_id"], "its content is damaged")
                for row in rows.to_pylist()
                if not _is_intact(data, row)
            ]
        log.info("verify: checked %d samples of shard %s", rows.num_rows, sha256[:12])
    strays = samples.filter(pc.invert(pc.is_in(samples["shard"], pa.array(list(listed), pa.string()))))
    bad += [_problem("sample", name, "its shard is not in the manifest") for name in strays["sample_id"].to_pylist()]
    return {"snapshot": snapshot.uri, "samples": checked + strays.num_rows, "shards": len(listed), "bad": bad}


def _read_samples(snapshot: Snapshot) -> pa.Table:
    """Return the table samples, empty if it cannot be read: the hash of the table reports that."""
    try:
        return snapshot.table("samples")
    except StoreError:
        return schema.SAMPLES.empty_table()


def _check_content(uri: str, sha256: str, what: str, name: str, bad: list[dict[str, str]]) -> bytes | None:
    try:
        data = store.read_bytes(uri)
    except StoreError as error:
        bad.append(_problem(what, name, str(error)))
        return None
    if hashlib.sha256(data).hexdigest() != sha256:
        bad.append(_problem(what, name, f"its SHA-256 is not {sha256[:12]}…"))
    return data


def _is_intact(data: bytes, row: dict[str, Any]) -> bool:
    image = data[row["offset"] : row["offset"] + row["size"]]
    return hashlib.sha256(image).hexdigest() == str(row["sha256"])


def _problem(what: str, name: str, reason: str) -> dict[str, str]:
    return {"what": what, "name": name, "reason": reason}
