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
from etl.storage.row_file import RowFile
from etl.storage.work import WorkDir

log = logging.getLogger("speck")

_LOCATION = ["origin", "start", "length"]  # columns of the index that a snapshot does not have
_KEPT = ["sample_id", "split", "size", "recipe", "counts"]  # columns of the samples that are all in memory
_ROWS_AT_ONCE = 100  # samples that are read together, with their boxes


@dataclass(frozen=True)
class Assembled:
    """Everything a snapshot holds about its samples."""

    samples: pa.Table  # some columns, with the number of the shard, the offset there and the row in the file
    file: RowFile  # all columns, as they were before the samples had a shard
    shards: list[ShardEntry]
    read_ledger: Callable[[], Iterator[pa.Table]]  # rows of the stages tile and augment, part by part
    reused: int  # samples taken from the earlier snapshot

    def whole(self, samples: pa.Table) -> pa.Table:
        """Return some of the samples with all columns of the snapshot."""
        names = pa.array([entry["sha256"] for entry in self.shards], pa.string())
        rows = self.file.take(samples["row"].to_numpy())
        for name, values in (("offset", samples["offset"]), ("shard", names.take(samples["shard"].combine_chunks()))):
            rows = rows.set_column(rows.schema.get_field_index(name), name, values)
        return rows

    def read_samples(self) -> Iterator[pa.Table]:
        """Yield all samples with all columns, some at once."""
        for start in range(0, max(self.samples.num_rows, 1), _ROWS_AT_ONCE):
            yield self.whole(self.samples.slice(start, _ROWS_AT_ONCE))


def read_sample_indexes(work: WorkDir) -> Iterator[pa.Table]:
    """Yield the index rows of every sample with the place of its blocks, part by part and the reused ones last."""
    for uri in store.read_json(work.path("tile", "parts.json")):
        table = store.read_table(f"{uri}.samples.parquet")
        starts, lengths = table["offset"].to_numpy(), table["length"].to_numpy()
        samples = table.drop_columns(["length"]).cast(schema.SAMPLES)
        yield sample_cache.with_location(samples, [f"{uri}.tar"] * table.num_rows, starts, lengths)
    yield from sample_cache.reused_samples(work)


def assemble_shards(work: WorkDir, images: pa.Table) -> Assembled:
    """Write the shards that do not exist yet, and return everything a snapshot holds about its samples."""
    index: list[pa.Table] = []

    def indexed() -> Iterator[pa.Table]:
        for piece in read_sample_indexes(work):
            index.append(_index(piece))
            yield piece.drop_columns(_LOCATION)

    file = RowFile(schema.SAMPLES, indexed(), _ROWS_AT_ONCE)
    samples = _order_samples(pa.concat_tables(index).unify_dictionaries(), images)
    earlier = sample_cache.earlier_shards(work)
    tables, entries = [_in_shard(samples.slice(0, 0), 0)], []
    with tempfile.TemporaryDirectory(prefix="speck-") as folder:
        for number, rows in enumerate(_cut_shards(samples, int(work.config.shard.max_mb * 1_000_000))):
            entry = earlier.get(rows["origin"][0].as_py())
            if entry is None or not _is_earlier_shard(rows, entry):
                entry = _write_shard(work.config.home, Path(folder) / f"{number}.tar", rows, earlier)
            tables.append(_in_shard(rows, number))
            entries.append(entry)
    reused = samples["sample_id"].filter(
        pc.is_in(samples["origin"].cast(pa.string()), pa.array(list(earlier), pa.string()))
    )
    return Assembled(
        samples=pa.concat_tables(tables),
        file=file,
        shards=entries,
        read_ledger=partial(_read_ledgers, work, reused),
        reused=len(reused),
    )


def _index(samples: pa.Table) -> pa.Table:
    """Return what shards are assembled by: columns of the samples, and the unit of each."""
    rows = samples.select([*_KEPT, "image_id", "sha256", *_LOCATION])
    rows = rows.set_column(rows.schema.get_field_index("origin"), "origin", rows["origin"].dictionary_encode())
    return rows.append_column("unit", sample_cache.unit_column(samples))


def _read_ledgers(work: WorkDir, reused: pa.ChunkedArray) -> Iterator[pa.Table]:
    """Yield the ledger rows of the new parts, and last those of the samples that are reused."""
    for uri in store.read_json(work.path("tile", "parts.json")):
        yield store.read_table(f"{uri}.ledger.parquet")
    yield from sample_cache.reused_ledger(work, reused)


def _order_samples(index: pa.Table, images: pa.Table) -> pa.Table:
    """Return the samples by split, then image path, then unit, then their order within the unit, with their `row`."""
    samples = index.append_column("row", pa.array(np.arange(index.num_rows)))
    order = pa.table(
        {
            "split": pc.index_in(samples["split"], pa.array(schema.SPLITS)),
            "path": images["path"].take(pc.index_in(samples["image_id"], images["image_id"].combine_chunks())),
            "unit": samples["unit"],
            "row": samples["row"],
        }
    )
    keys = [(name, "ascending") for name in order.column_names]
    return samples.drop_columns(["unit"]).take(pc.sort_indices(order, sort_keys=keys))


def _cut_shards(samples: pa.Table, max_bytes: int) -> Iterator[pa.Table]:
    """Yield the rows of each shard; a shard holds whole images of one split."""
    for split in schema.SPLITS:
        rows = samples.filter(pc.equal(samples["split"], split))
        ids, sizes = rows["image_id"].to_pylist(), rows["length"].to_numpy()
        firsts = [row for row, name in enumerate(ids) if row == 0 or name != ids[row - 1]]
        images = [(ids[first], int(sizes[first:end].sum())) for first, end in pairwise([*firsts, len(ids)])]
        starts = [first for first, new in zip(firsts, shard.shard_starts(images, max_bytes), strict=True) if new]
        for first, end in pairwise([*starts, len(ids)]):
            some = rows.slice(first, end - first)
            yield some.set_column(some.schema.get_field_index("origin"), "origin", some["origin"].cast(pa.string()))


def _is_earlier_shard(rows: pa.Table, entry: ShardEntry) -> bool:
    """Return whether these are exactly the samples of an earlier shard, in its order."""
    if rows.num_rows != entry["samples"] or pc.count_distinct(rows["origin"]).as_py() != 1:
        return False
    starts, lengths = rows["start"].to_numpy(), rows["length"].to_numpy()
    ends = np.append(0, np.cumsum(lengths))
    return bool((starts == ends[:-1]).all()) and int(ends[-1]) + len(shard.END) == entry["bytes"]


def _write_shard(home: str, local: Path, rows: pa.Table, earlier: Mapping[str, ShardEntry]) -> ShardEntry:
    """Write a shard to the store unless it exists; return its entry for the manifest."""
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
    return ShardEntry(sha256=written.sha256, bytes=written.size, samples=rows.num_rows, split=rows["split"][0].as_py())


def _in_shard(rows: pa.Table, number: int) -> pa.Table:
    """Return what is kept of the rows, with the number of their shard and the offsets of their images in it."""
    lengths = rows["length"].to_numpy()
    offsets = pa.array(np.cumsum(lengths) - lengths + shard.IMAGE_OFFSET, pa.int64())
    numbers = pa.array(np.full(rows.num_rows, number, np.int32))
    return rows.select([*_KEPT, "row"]).append_column("offset", offsets).append_column("shard", numbers)
