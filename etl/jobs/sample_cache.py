"""The sample cache: samples taken from the newest snapshot, for units with an unchanged key.

A unit is what an image makes at once: its base samples, or the augmented samples that use one of its sets of donors. A
key is a digest of everything that determines the bytes of a unit's samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl import schema
from etl.boxes import XYXY
from etl.columns import find_places
from etl.config import Config, SplitRatios
from etl.errors import StoreError
from etl.execution.cluster import Cluster
from etl.ids import digest
from etl.imaging.wide import PixelSettings
from etl.jobs.parts import BoxIndex
from etl.plan import Plan
from etl.snapshots.intact import file_damage, newest_intact
from etl.snapshots.snapshot import Snapshot
from etl.sources.images import pixel_settings
from etl.stages.augment.donors import SETS, Donors, donor_set
from etl.storage import checksum, mended, paths, shard, store
from etl.storage.work import WorkDir

Numbers = NDArray[np.int64]

KEYS = pa.schema([("unit", pa.string()), ("key", pa.string())])
_STAGES = ("tile", "augment", "shard")  # whose code makes samples
_IMAGE = ("image_id", "sha256", "width", "height", "format", "exif_orientation", "exif_applied", "split")
_BOX = ("annotation_id", "category", *XYXY, "crowd", "ignore", "difficult", "truncated", "occluded")
_AUGMENTED = ("train", schema.DIVIDED)  # splits of images with augmented samples
_SAMPLE_STAGES = pa.array(["tile", "augment"])  # whose ledger rows have a sample_id
_IMAGES_AT_ONCE = 100  # whose boxes are Python objects
_NONE: Numbers = np.empty(0, np.int64)
_SPAN_BYTES = 64_000_000  # most that is read at once


class ShardEntry(TypedDict):
    """A shard as a snapshot's manifest lists it."""

    sha256: str
    bytes: int
    samples: int
    split: str


class Span(NamedTuple):
    """Consecutive samples whose tar blocks follow each other in one file."""

    origin: str  # URI of the tar
    start: int
    lengths: list[int]  # bytes of each sample's blocks


def sample_keys(
    images: pa.Table,
    boxes: BoxIndex,
    plan: Plan,
    config: Config,
    versions: Mapping[str, int],
    donors: Donors,
) -> pa.Table:
    """Return the keys, sorted by unit.

    `boxes` are those after the ontology, in the order of their image's samples; `donors` names the images whose pixels
    are in an image's augmented samples.
    """
    shared = [
        plan.tile.model_dump(mode="json"),
        plan.codec,
        [config.shard.jpeg, config.shard.quality],
        [versions[stage] for stage in _STAGES],
    ]
    of_train = [plan.negatives, plan.negatives_far]
    of_split = {split: digest(shared, of_train if split == "train" else None) for split in schema.SPLITS}
    if isinstance(config.source.split, SplitRatios):
        of_split[schema.DIVIDED] = digest(shared, of_train, config.source.split.model_dump(mode="json"))
    rows = images.filter(pc.is_in(images["split"], pa.array(list(of_split)))).select(list(_IMAGE))
    settings_of_pixels = pixel_settings(config, plan.pixel_range)
    own: dict[str, str] = {}
    for start in range(0, rows.num_rows, _IMAGES_AT_ONCE):
        some = rows.slice(start, _IMAGES_AT_ONCE)
        of_image = _boxes_by_image(boxes.boxes_of(some))
        for row in some.to_pylist():
            pixels, name = _pixels_of(row, settings_of_pixels), row["image_id"]
            own[name] = digest(pixels, of_image.get(name, []), of_split[row["split"]])
    keys = dict(own)
    is_augmented = pc.is_in(rows["split"], pa.array(_AUGMENTED))
    augmented = rows.filter(is_augmented)["image_id"].to_pylist() if config.augment.copies else []
    settings = [part.model_dump(mode="json") for part in (plan.rate, config.augment)]
    for image in augmented:
        for number, names in enumerate(donors.get(image, [()] * SETS)):
            keys[unit_of(image, number)] = digest(own[image], settings, [own[name] for name in names])
    return pa.table({"unit": sorted(keys), "key": [keys[name] for name in sorted(keys)]}, schema=KEYS)


def unit_of(image: str, number: int | None) -> str:
    """Return the unit of an image's augmented samples that use a set of donors; of its base samples for None."""
    return image if number is None else f"{image}/{number}"


def unit_column(samples: pa.Table) -> pa.Array:
    """Return the unit of each sample."""
    kinds = pc.struct_field(samples["recipe"], "kind").to_pylist()
    rows = zip(samples["image_id"].to_pylist(), samples["sample_id"].to_pylist(), kinds, strict=True)
    return pa.array(
        [unit_of(image, None if kind == schema.BASE else donor_set(name)) for image, name, kind in rows], pa.string()
    )


def _pixels_of(image: Mapping[str, object], settings: PixelSettings) -> list[object]:
    """Return what determines the upright pixels of an image and the split that uses them."""
    orientation = image["exif_orientation"] if image["exif_applied"] else 1
    own = [*(image[name] for name in ("image_id", "sha256", "width", "height", "split")), orientation]
    return [*own, *settings.key(image["format"])]


def _boxes_by_image(annotations: pa.Table) -> dict[str, list[tuple[Any, ...]]]:
    boxes: dict[str, list[tuple[Any, ...]]] = {}
    columns = [annotations[name].to_pylist() for name in ("image_id", *_BOX)]
    for image, *box in zip(*columns, strict=True):
        boxes.setdefault(image, []).append(tuple(box))
    return boxes


def plan_reuse(work: WorkDir, keys: pa.Table, cluster: Cluster) -> pa.Array:
    """Write the keys of this build and the snapshot to reuse; return the units whose samples it holds."""
    earlier = newest_intact(work.config, ("samples", "ledger")) if not work.full else None
    unchanged = pa.array([], pa.string()) if earlier is None else _unchanged_units(earlier, keys, cluster)
    work.write("tile", "keys", keys)
    work.write("tile", "kept", pa.table({"unit": unchanged}))
    reused = earlier.uri if earlier is not None and len(unchanged) else None
    store.write_json(work.path("tile", "reuse.json"), {"snapshot": reused})
    return unchanged


def _unchanged_units(earlier: Snapshot, keys: pa.Table, cluster: Cluster) -> pa.Array:
    """Return the units that have the same key in the snapshot and whose shards are all intact."""
    earlier_keys = _load_keys(earlier)
    rows = pc.index_in(keys["unit"], earlier_keys["unit"].combine_chunks())
    is_same = pc.equal(earlier_keys["key"].take(rows), keys["key"])
    same = keys.filter(pc.fill_null(is_same, False))["unit"].combine_chunks()
    needed: set[str] = set()
    for units, shards in _units_in_shards(earlier):
        needed.update(pc.unique(shards.filter(pc.is_in(units, same))).to_pylist())
    damaged = pa.array(_damaged_shards(earlier, needed, cluster), pa.string())
    if not len(damaged):
        return same
    incomplete = [units.filter(pc.is_in(shards, damaged)) for units, shards in _units_in_shards(earlier)]
    return same.filter(pc.invert(pc.is_in(same, pa.concat_arrays(incomplete))))


def _units_in_shards(earlier: Snapshot) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Yield the unit and the shard of each sample of a snapshot, piece by piece."""
    for samples in earlier.pieces("samples", ["image_id", "sample_id", "recipe", "shard"]):
        yield unit_column(samples), samples["shard"].combine_chunks()


def _load_keys(earlier: Snapshot) -> pa.Table:
    """Return the keys of a snapshot; empty if they are damaged, or of an older version, which made other samples."""
    try:
        if (problem := file_damage(earlier, paths.KEYS)) is not None:
            raise StoreError(problem)
        keys = store.read_table(earlier.paths.keys)
    except StoreError as error:
        mended.report(error, "every sample is made again")
        return KEYS.empty_table()
    return keys if keys.schema.names == KEYS.names else KEYS.empty_table()


def _damaged_shards(snapshot: Snapshot, needed: Container[str], cluster: Cluster) -> list[str]:
    """Return the sha256 of each needed shard of the snapshot that is missing or damaged."""
    entries = [entry for entry in snapshot.manifest["shards"] if entry["sha256"] in needed]
    files = [(snapshot.shard_uri(entry["sha256"]), entry["sha256"], entry["bytes"]) for entry in entries]
    damaged = []
    for (uri, sha256, _), reason in zip(files, cluster.map(_shard_damage, files, label="check shards"), strict=True):
        if reason is not None:
            mended.report(f"{uri}: {reason}", "its samples are made again")
            damaged.append(sha256)
    return damaged


def _shard_damage(file: tuple[str, str, int]) -> str | None:
    return checksum.damage(*file)


def reused_samples(work: WorkDir) -> Iterator[pa.Table]:
    """Yield the index rows taken from the earlier snapshot, with the place of each one's tar blocks."""
    earlier = _snapshot_to_reuse(work)
    if earlier is None:
        yield with_location(schema.SAMPLES.empty_table(), [], [], [])
        return
    kept = work.read("tile", "kept")["unit"].combine_chunks()
    shard_of, starts, lengths = _locate_samples(earlier)
    uris = pa.array([earlier.shard_uri(entry["sha256"]) for entry in earlier.manifest["shards"]], pa.string())
    end = 0
    for samples in earlier.pieces("samples"):
        own = slice(end, end := end + samples.num_rows)
        origins = uris.take(pa.array(shard_of[own]))
        table = with_location(samples.cast(schema.SAMPLES), origins, starts[own], lengths[own])
        yield table.filter(pc.is_in(unit_column(samples), kept))


def _locate_samples(earlier: Snapshot) -> tuple[Numbers, Numbers, Numbers]:
    """Return the number of each sample's shard [N], and start and length of its tar blocks there."""
    shards = earlier.manifest["shards"]
    names, shard_of, starts = [entry["sha256"] for entry in shards], [_NONE], [_NONE]
    for samples in earlier.pieces("samples", ["shard", "offset"]):
        shard_of.append(find_places(samples["shard"], names))
        starts.append(samples["offset"].to_numpy() - shard.IMAGE_OFFSET)
    numbers, begins = np.concatenate(shard_of), np.concatenate(starts)
    ends = np.array([entry["bytes"] - len(shard.END) for entry in shards], np.int64)
    order = np.lexsort((begins, numbers))
    is_last = np.append(np.diff(numbers[order]) != 0, True)[: len(order)]
    lengths = np.empty(len(order), np.int64)
    lengths[order] = np.where(is_last, ends[numbers[order]], np.roll(begins[order], -1)) - begins[order]
    return numbers, begins, lengths


def reused_ledger(work: WorkDir, reused: pa.ChunkedArray) -> Iterator[pa.Table]:
    """Yield the ledger rows of the samples with these ids, which are taken from the earlier snapshot."""
    earlier, names = _snapshot_to_reuse(work), reused.combine_chunks()
    for piece in earlier.pieces("ledger") if earlier is not None else ():
        is_reused = pc.is_in(piece["sample_id"], names)
        yield piece.filter(pc.and_(pc.is_in(piece["stage"], _SAMPLE_STAGES), is_reused)).cast(schema.LEDGER)


def earlier_shards(work: WorkDir) -> dict[str, ShardEntry]:
    """Return the shards of the snapshot to reuse by URI, as its manifest lists them."""
    earlier = _snapshot_to_reuse(work)
    if earlier is None:
        return {}
    return {earlier.shard_uri(entry["sha256"]): entry for entry in earlier.manifest["shards"]}


def with_location(samples: pa.Table, origin: Sequence[str] | pa.Array, start: Any, length: Any) -> pa.Table:
    """Return the index rows with the place of their blocks: origin (URI of a tar), start and length in bytes."""
    for name, values, kind in (
        ("origin", origin, pa.string()),
        ("start", start, pa.int64()),
        ("length", length, pa.int64()),
    ):
        samples = samples.append_column(name, pa.array(values, kind))
    return samples


def contiguous_spans(rows: pa.Table) -> Iterator[Span]:
    """Yield spans of rows whose blocks follow each other in one tar, in order, each of at most 64 MB."""
    span: Span | None = None
    end = 0
    for origin, start, length in zip(*(rows[name].to_pylist() for name in ("origin", "start", "length")), strict=True):
        if span and (origin, start) == (span.origin, end) and end - span.start + length <= _SPAN_BYTES:
            span.lengths.append(length)
        else:
            if span:
                yield span
            span = Span(origin, start, [length])
        end = start + length
    if span:
        yield span


def check_blocks(rows: pa.Table, data: bytes) -> None:
    """Raise StoreError unless the tar blocks hold the images that the index rows list."""
    base = 0
    for name, size, sha256, length in zip(
        *(rows[name].to_pylist() for name in ("sample_id", "size", "sha256", "length")), strict=True
    ):
        image = data[base + shard.IMAGE_OFFSET : base + shard.IMAGE_OFFSET + size]
        if hashlib.sha256(image).hexdigest() != sha256:
            raise StoreError(
                f"sample {name} is damaged in {rows['origin'][0]}: it changed during the build; run `speck build` again"
            )
        base += length


def _snapshot_to_reuse(work: WorkDir) -> Snapshot | None:
    uri = store.read_json(work.path("tile", "reuse.json"))["snapshot"]
    return None if uri is None else Snapshot.open(uri)
