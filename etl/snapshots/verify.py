"""Whether a snapshot is what its manifest says: every table, every shard, every sample's bytes against their hash."""

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
    """Return the answer of `speck verify`: samples looked at, and one entry {what, name, reason} per thing amiss."""
    bad: list[dict[str, str]] = []
    for name, entry in sorted(snapshot.manifest["tables"].items()):
        _content(snapshot.paths.table(name), entry["sha256"], "table", name, bad)
    samples = _samples(snapshot)
    listed = {entry["sha256"]: entry for entry in snapshot.manifest["shards"]}
    seen = 0
    for sha256, entry in listed.items():
        data = _content(snapshot.shard_uri(sha256), sha256, "shard", sha256, bad)
        rows = samples.filter(pc.equal(samples["shard"], sha256)).select(["sample_id", "offset", "size", "sha256"])
        if rows.num_rows != entry["samples"]:
            bad.append(_amiss("shard", sha256, f"{rows.num_rows} samples in the index, {entry['samples']} expected"))
        seen += rows.num_rows
        if data is not None:
            bad += [
                _amiss("sample", row["sample_id"], "wrong bytes") for row in rows.to_pylist() if not _holds(data, row)
            ]
        log.info("verify: checked %d samples of shard %s", rows.num_rows, sha256[:12])
    strays = samples.filter(pc.invert(pc.is_in(samples["shard"], pa.array(list(listed), pa.string()))))
    bad += [_amiss("sample", name, "in no shard of the manifest") for name in strays["sample_id"].to_pylist()]
    return {"snapshot": snapshot.uri, "samples": seen + strays.num_rows, "shards": len(listed), "bad": bad}


def _samples(snapshot: Snapshot) -> pa.Table:
    """Return the index, or an empty one where it cannot be read, which the table's hash has told already."""
    try:
        return snapshot.table("samples")
    except StoreError:
        return schema.SAMPLES.empty_table()


def _content(uri: str, sha256: str, what: str, name: str, bad: list[dict[str, str]]) -> bytes | None:
    try:
        data = store.read_bytes(uri)
    except StoreError as error:
        bad.append(_amiss(what, name, str(error)))
        return None
    if hashlib.sha256(data).hexdigest() != sha256:
        bad.append(_amiss(what, name, f"its content is not {sha256[:12]}…"))
    return data


def _holds(data: bytes, row: dict[str, Any]) -> bool:
    image = data[row["offset"] : row["offset"] + row["size"]]
    return hashlib.sha256(image).hexdigest() == str(row["sha256"])


def _amiss(what: str, name: str, reason: str) -> dict[str, str]:
    return {"what": what, "name": name, "reason": reason}
