"""Which images' samples the newest snapshot holds already: those for which all that decides their bytes is the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl import schema
from etl.boxes import XYXY
from etl.config import Config, SplitRatios
from etl.errors import StoreError
from etl.ids import digest
from etl.plan import Plan
from etl.snapshots.snapshot import Snapshot, head
from etl.stages.augment.donors import Donors
from etl.storage import shard, store
from etl.storage.work import Work

FILE = "keys.parquet"  # beside a snapshot's tables; its content alone, so that a lost one costs a full build at most
KEYS = pa.schema([("image_id", pa.string()), ("key", pa.string())])
_STAGES = ("tile", "augment", "shard")  # whose code makes samples
_IMAGE = ("image_id", "sha256", "width", "height", "exif_orientation", "exif_applied", "split")
_BOX = ("annotation_id", "category", *XYXY, "crowd", "ignore", "difficult", "truncated", "occluded")
_EVENTS = pa.array(["tile", "augment"])  # ledger stages that speak of samples
_RUN_BYTES = 64_000_000  # read at once


def keys(
    images: pa.Table,
    annotations: pa.Table,
    plan: Plan,
    config: Config,
    versions: Mapping[str, int],
    donors: Donors,
) -> pa.Table:
    """Return a digest of all that decides the bytes of each image's samples, by image_id.

    `annotations` are the boxes that go on, in the order of their image's samples; `donors` names the other images
    that give pixels to an image's samples.
    """
    shared: list[Any] = [
        plan.tile.model_dump(mode="json"),
        plan.codec,
        [config.shard.jpeg, config.shard.quality],
        [versions[stage] for stage in _STAGES],
    ]
    settings = [part.model_dump(mode="json") for part in (plan.rate, config.augment)]
    of_train = [plan.negatives, plan.negatives_far, *settings]
    of_split = {split: digest(shared, of_train if split == "train" else None) for split in schema.SPLITS}
    if isinstance(config.source.split, SplitRatios):
        of_split[schema.DIVIDED] = digest(shared, of_train, config.source.split.model_dump(mode="json"))
    boxes = _by_image(annotations)
    rows = [row for row in images.select(list(_IMAGE)).to_pylist() if row["split"] in of_split]
    own = {row["image_id"]: digest(_seen(row), boxes.get(row["image_id"], []), of_split[row["split"]]) for row in rows}
    found = {name: digest(key, [own[d] for d in donors.get(name, ())]) for name, key in own.items()}
    return pa.table({"image_id": sorted(found), "key": [found[name] for name in sorted(found)]}, schema=KEYS)


def _seen(image: dict[str, Any]) -> list[Any]:
    turned = image["exif_orientation"] if image["exif_applied"] else 1
    return [*(image[name] for name in ("image_id", "sha256", "width", "height", "split")), turned]


def _by_image(annotations: pa.Table) -> dict[str, list[tuple[Any, ...]]]:
    found: dict[str, list[tuple[Any, ...]]] = {}
    columns = [annotations[name].to_pylist() for name in ("image_id", *_BOX)]
    for image, *box in zip(*columns, strict=True):
        found.setdefault(image, []).append(tuple(box))
    return found


def settle(work: Work, now: pa.Table) -> pa.Array:
    """Note the keys of this build and the snapshot it takes samples from; return the images whose samples it has."""
    uri = head(work.config) if not work.full else None
    unchanged = pa.array([], pa.string())
    if uri is not None and store.exists(store.join(uri, "manifest.json")):
        unchanged = _unchanged(Snapshot.open(uri), now)
    work.write("tile", "keys", now)
    work.write("tile", "kept", pa.table({"image_id": unchanged}))
    store.write_json(work.path("tile", "reuse.json"), {"snapshot": uri if len(unchanged) else None})
    return unchanged


def _unchanged(before: Snapshot, now: pa.Table) -> pa.Array:
    """Return the ids of the images whose key is the same in the snapshot and whose shards are all still there."""
    uri = store.join(before.uri, FILE)
    if not store.exists(uri):
        return pa.array([], pa.string())
    old = store.read_table(uri)
    there = pc.equal(old["key"].take(pc.index_in(now["image_id"], old["image_id"].combine_chunks())), now["key"])
    same = now.filter(pc.fill_null(there, False))["image_id"].combine_chunks()
    folder = store.join(before.home, "shards")
    sizes = {file.path: file.size for file in store.listing(folder)} if store.exists(folder) else {}
    lost = [
        entry["sha256"] for entry in before.manifest["shards"] if sizes.get(f"{entry['sha256']}.tar") != entry["bytes"]
    ]
    if not lost:
        return same
    samples = before.table("samples").select(["image_id", "shard"])
    gone = samples.filter(pc.is_in(samples["shard"], pa.array(lost)))["image_id"].combine_chunks()
    return same.filter(pc.invert(pc.is_in(same, gone)))


def kept_samples(work: Work) -> pa.Table:
    """Return the index rows taken from the earlier snapshot, with origin, start and length of each one's tar blocks."""
    before = _source(work)
    if before is None:
        return located(schema.SAMPLES.empty_table(), [], [], [])
    samples = before.table("samples").cast(schema.SAMPLES)
    names = samples["shard"].to_pylist()
    starts = samples["offset"].to_numpy() - shard.IMAGE_OFFSET
    ends = {entry["sha256"]: entry["bytes"] - len(shard.END) for entry in before.manifest["shards"]}
    lengths = np.empty(len(names), np.int64)
    for name, group in groupby(sorted(range(len(names)), key=lambda row: (names[row], starts[row])), names.__getitem__):
        rows = list(group)
        lengths[rows] = np.diff(np.append(starts[rows], ends[name]))
    table = located(samples, [before.shard_uri(name) for name in names], starts, lengths)
    return table.filter(pc.is_in(samples["image_id"], work.read("tile", "kept")["image_id"].combine_chunks()))


def kept_ledger(work: Work, samples: pa.Table) -> pa.Table:
    """Return the ledger rows of the samples that were taken from the earlier snapshot."""
    before = _source(work)
    if before is None:
        return schema.LEDGER.empty_table()
    ledger = before.table("ledger").cast(schema.LEDGER)
    mine = pc.is_in(ledger["sample_id"], samples["sample_id"].combine_chunks())
    return ledger.filter(pc.and_(pc.is_in(ledger["stage"], _EVENTS), mine))


def kept_shards(work: Work) -> dict[str, dict[str, Any]]:
    """Return the manifest's entries of the earlier snapshot's shards by URI."""
    before = _source(work)
    return {} if before is None else {before.shard_uri(entry["sha256"]): entry for entry in before.manifest["shards"]}


def located(samples: pa.Table, origin: Sequence[str], start: Any, length: Any) -> pa.Table:
    """Return the index rows with the tar (URI) that holds each one's blocks, and where in it."""
    for name, values, kind in (
        ("origin", origin, pa.string()),
        ("start", start, pa.int64()),
        ("length", length, pa.int64()),
    ):
        samples = samples.append_column(name, pa.array(values, kind))
    return samples


def runs(rows: pa.Table) -> Iterator[tuple[str, int, list[int]]]:
    """Yield (origin, start, lengths) of rows whose blocks follow each other in one tar, in order of the rows."""
    origin, start, end, lengths = "", 0, 0, [0]
    for one, first, length in zip(*(rows[name].to_pylist() for name in ("origin", "start", "length")), strict=True):
        if one == origin and first == end and end - start + length <= _RUN_BYTES:
            lengths.append(length)
        else:
            if origin:
                yield origin, start, lengths
            origin, start, lengths = one, first, [length]
        end = first + length
    if origin:
        yield origin, start, lengths


def check(rows: pa.Table, data: bytes) -> None:
    """Raise StoreError unless the blocks of these rows hold the images that the index says."""
    base = 0
    for name, size, sha256, length in zip(
        *(rows[name].to_pylist() for name in ("sample_id", "size", "sha256", "length")), strict=True
    ):
        image = data[base + shard.IMAGE_OFFSET : base + shard.IMAGE_OFFSET + size]
        if hashlib.sha256(image).hexdigest() != sha256:
            raise StoreError(f"sample {name} is damaged in {rows['origin'][0]}: see `speck verify`")
        base += length


def _source(work: Work) -> Snapshot | None:
    uri = store.read_json(work.path("tile", "reuse.json"))["snapshot"]
    return None if uri is None else Snapshot.open(uri)
