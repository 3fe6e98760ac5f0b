"""Assemble samples into shards.

New samples come from the parts of the build; reused ones are copied byte for byte from shards of the earlier snapshot.
A shard whose samples are exactly those of an earlier shard is neither read nor written. The borders follow from the
samples' content (`etl.storage.shard.shard_starts`), so the shards do not depend on how the images were cut into parts.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl import schema
from etl.jobs import sample_cache
from etl.jobs.sample_cache import ShardEntry
from etl.numbers import count_of
from etl.storage import checksum, shard, store
from etl.storage.paths import DatasetPaths
from etl.storage.work import WorkDir

log = logging.getLogger("speck")

_LOCATION = ["origin", "start", "length"]  # columns of the index that a snapshot does not have


@dataclass(frozen=True)
class Assembled:
    """Everything a snapshot holds about its samples."""

    samples: pa.Table
    shards: list[ShardEntry]
    read_ledger: Callable[[], Iterator[pa.Table]]  # rows of the stages tile and augment, part by part
    reused: int  # samples taken from the earlier snapshot


def read_sample_indexes(work: WorkDir) -> Iterator[pa.Table]:
    """Yield the index rows of every sample with the place of its blocks, part by part and the reused ones last."""
    for uri in store.read_json(work.path("tile", "parts.json")):
        table = store.read_table(f"{uri}.samples.parquet")
        starts, lengths = table["offset"].to_numpy(), table["length"].to_numpy()
        samples = table.drop_columns(["length"]).cast(schema.SAMPLES)
        yield sample_cache.with_location(samples, [f"{uri}.tar"] * table.num_rows, starts, lengths)
    yield sample_cache.reused_samples(work)


def assemble_shards(work: WorkDir, images: pa.Table) -> Assembled:
    """Write the shards that do not exist yet, and return everything a snapshot holds about its samples."""
    *new, reused = read_sample_indexes(work)
    samples = _order_samples(pa.concat_tables([*new, reused]), images)
    earlier = sample_cache.earlier_shards(work)
    tables, entries = [], []
    with tempfile.TemporaryDirectory(prefix="speck-") as folder:
        for number, rows in enumerate(_cut_shards(samples, int(work.config.shard.max_mb * 1_000_000))):
            entry = earlier.get(rows["origin"][0].as_py())
            if entry is None or not _is_earlier_shard(rows, entry):
                rows, entry = _write_shard(work.config.home, Path(folder) / f"{number}.tar", rows, earlier)
            tables.append(rows.drop_columns(_LOCATION))
            entries.append(entry)
    return Assembled(
        samples=pa.concat_tables(tables) if tables else schema.SAMPLES.empty_table(),
        shards=entries,
        read_ledger=partial(_read_ledgers, work, reused["sample_id"]),
        reused=reused.num_rows,
    )


def _read_ledgers(work: WorkDir, reused: pa.ChunkedArray) -> Iterator[pa.Table]:
    """Yield the ledger rows of the new parts, and last those of the samples that are reused."""
    for uri in store.read_json(work.path("tile", "parts.json")):
        yield store.read_table(f"{uri}.ledger.parquet")
    yield from sample_cache.reused_ledger(work, reused)


def _order_samples(samples: pa.Table, images: pa.Table) -> pa.Table:
    """Return the rows by split, then image path, then unit, then their order within the unit."""
    paths = images["path"].take(pc.index_in(samples["image_id"], images["image_id"].combine_chunks()))
    order = pa.table(
        {
            "split": pc.index_in(samples["split"], pa.array(schema.SPLITS)),
            "path": paths,
            "unit": sample_cache.unit_column(samples),
            "row": pa.array(np.arange(samples.num_rows)),
        }
    )
    return samples.take(pc.sort_indices(order, sort_keys=[(name, "ascending") for name in order.column_names]))


def _cut_shards(samples: pa.Table, max_bytes: int) -> Iterator[pa.Table]:
    """Yield the rows of each shard; a shard holds whole images of one split."""
    for split in schema.SPLITS:
        rows = samples.filter(pc.equal(samples["split"], split))
        ids, sizes = rows["image_id"].to_pylist(), rows["length"].to_numpy()
        firsts = [row for row, name in enumerate(ids) if row == 0 or name != ids[row - 1]]
        images = [(ids[first], int(sizes[first:end].sum())) for first, end in pairwise([*firsts, len(ids)])]
        starts = [first for first, new in zip(firsts, shard.shard_starts(images, max_bytes), strict=True) if new]
        for first, end in pairwise([*starts, len(ids)]):
            yield rows.slice(first, end - first)


def _is_earlier_shard(rows: pa.Table, entry: ShardEntry) -> bool:
    """Return whether these are exactly the samples of an earlier shard, in its order."""
    if rows.num_rows != entry["samples"] or pc.count_distinct(rows["origin"]).as_py() != 1:
        return False
    starts, lengths = rows["start"].to_numpy(), rows["length"].to_numpy()
    ends = np.append(0, np.cumsum(lengths))
    return bool((starts == ends[:-1]).all()) and int(ends[-1]) + len(shard.END) == entry["bytes"]


def _write_shard(
    home: str, local: Path, rows: pa.Table, earlier: Mapping[str, ShardEntry]
) -> tuple[pa.Table, ShardEntry]:
    """Write a shard to the store unless it exists; return its index rows and its entry for the manifest."""
    writer = shard.ShardWriter(local)
    copied = 0
    for span in sample_cache.contiguous_spans(rows):
        if span.origin in earlier:
            data = store.read_range(span.origin, span.start, sum(span.lengths))
            sample_cache.check_blocks(rows.slice(copied, len(span.lengths)), data)
            writer.add(data)
        else:
            for piece in store.read_pieces(span.origin, span.start, sum(span.lengths)):
                writer.add(piece)
        copied += len(span.lengths)
    written = writer.close()
    uri = DatasetPaths(home).shard(written.sha256)
    if checksum.damage(uri, written.sha256, written.size) is not None:
        store.upload(written.path, uri)
    samples = count_of(rows.num_rows, "sample")
    log.info("publish: wrote shard %s, %s, %.1f MB", written.sha256[:12], samples, written.size / 1e6)
    entry = ShardEntry(sha256=written.sha256, bytes=written.size, samples=rows.num_rows, split=rows["split"][0].as_py())
    return _in_shard(rows, written.sha256), entry


def _in_shard(rows: pa.Table, sha256: str) -> pa.Table:
    """Return the index rows with the shard that holds them and the offsets of their images in it."""
    lengths = rows["length"].to_numpy()
    offsets = pa.array(np.cumsum(lengths) - lengths + shard.IMAGE_OFFSET, pa.int64())
    rows = rows.set_column(rows.schema.get_field_index("offset"), "offset", offsets)
    names = pa.array([sha256] * rows.num_rows, pa.string())
    return rows.set_column(rows.schema.get_field_index("shard"), "shard", names)
