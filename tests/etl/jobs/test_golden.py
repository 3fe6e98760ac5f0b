"""The bytes each stage makes of a fixed input, held by digest: they change only together with the stage's VERSION.

After a change that is meant, raise the stage's VERSION and run this file with SPECK_GOLDEN=write.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from etl.config import load
from etl.execution import cluster
from etl.ids import digest
from etl.jobs import build, versions
from etl.snapshots.snapshot import Snapshot
from etl.storage import shard, store

GOLDEN = Path(__file__).with_name("golden.json")


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """A small dataset with a crowd of sizes, a fault of each kind and a renamed class, built in this process."""
    folder = tmp_path_factory.mktemp("golden")
    rng = np.random.default_rng(11)
    for number in range(6):
        ramp = np.linspace(20, 200, 360, dtype=np.float64)[None, :, None] + rng.normal(0, 8, (260, 360, 3))
        cv2.imwrite(str(folder / f"site{number}_1.png"), np.clip(ramp, 0, 255).astype(np.uint8))
        centres, sides = rng.uniform(0.05, 0.95, (9, 2)), rng.uniform(0.01, 0.2, (9, 2))
        lines = [
            f"{n % 3} {c[0]:.6f} {c[1]:.6f} {s[0]:.6f} {s[1]:.6f}"
            for n, (c, s) in enumerate(zip(centres, sides, strict=True))
        ]
        (folder / f"site{number}_1.txt").write_text("\n".join([*lines, "0 0.5 0.5 0 0", "nonsense"]) + "\n")
    (folder / "lost.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (folder / "classes.txt").write_text("car\nvan\nbike\n")
    (folder / "set.yaml").write_text(
        "name: golden\nstore: store\nsource: {format: yolo, images: ., max_rejects: 0.5, allow: [leaking_splits]}\n"
        "ontology: {rename: {van: car}, min_side: 3}\ntile: {size: 128, overlap: 0.25}\n"
        "augment: {quality: false, mosaic: 0}\nshard: {jpeg: encode}\n"
    )
    with cluster.serial() as here:
        return Snapshot.open(build.build(load(folder / "set.yaml"), here).snapshot)


def rows(table: pa.Table, *columns: str) -> list[dict[str, Any]]:
    return list(table.select(columns).to_pylist())


def found(snapshot: Snapshot) -> dict[str, str]:
    """The digest of what each stage made; pixels of augmented samples are left out, they follow the CPU."""
    images, ledger, samples = (snapshot.table(name) for name in ("images", "ledger", "samples"))
    ingested = [name for name in images.column_names if name not in ("group", "sequence", "frame", "split")]
    by_kind: dict[bool, list[Any]] = {True: [], False: []}
    for row in samples.to_pylist():
        base = row["recipe"]["kind"] == "tile"
        data = store.read_range(snapshot.shard_uri(row["shard"]), row["offset"], row["size"])
        assert hashlib.sha256(data).hexdigest() == row["sha256"]
        pixels = row["sha256"] if base else None
        boxes = [[round(box[side], 3) for side in ("x0", "y0", "x1", "y1")] + [box["category"]] for box in row["boxes"]]
        by_kind[base].append([row["sample_id"], row["split"], boxes, len(row["ignore"]), pixels])
    blocks = hashlib.sha256(shard.sample_blocks("0123456789abcdef", b"image", b"{}")[0]).hexdigest()
    return {
        "ingest": digest(rows(images, *ingested), snapshot.table("annotations").to_pylist()),
        "split": digest(rows(images, "path", "group", "sequence", "frame", "split")),
        "remap": digest([row for row in ledger.to_pylist() if row["stage"] in ("remap", "final")]),
        "tile": digest(by_kind[True]),
        "augment": digest(by_kind[False]),
        "shard": digest(blocks, list(shard.shard_starts(((f"{n:016x}", 1000 + n) for n in range(200)), 20_000))),
        "anchors": digest({key: value for key, value in snapshot.anchors.items() if key != "bpr_curve"}),
    }


def test_no_stage_changes_its_bytes_without_raising_its_version(snapshot: Snapshot) -> None:
    now = {stage: {"version": versions.VERSIONS[stage], "digest": value} for stage, value in found(snapshot).items()}
    if os.environ.get("SPECK_GOLDEN") == "write":
        GOLDEN.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n")
    held = json.loads(GOLDEN.read_text())
    changed = [stage for stage in held if now[stage] != held[stage]]
    assert not changed, f"raise the VERSION of {changed} if this is meant, then hold the new bytes (see above)"
