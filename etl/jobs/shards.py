"""Samples into shards: new ones from the parts of the build, unchanged ones byte for byte from the shards before."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl import schema
from etl.jobs import sample_cache
from etl.snapshots import snapshot
from etl.storage import shard, store
from etl.storage.work import Work

log = logging.getLogger("speck")

_EXTRA = ["origin", "start", "length"]


@dataclass(frozen=True)
class Assembled:
    """The samples table, the shards' entries for the manifest, and what the ledger says of the samples."""

    samples: pa.Table
    shards: list[dict[str, Any]]
    events: pa.Table
    reused: int  # samples taken from the snapshot before


def indexes(work: Work) -> Iterator[pa.Table]:
    """Yield the index rows of every sample of the build, part by part, with origin, start and length of the blocks."""
    for uri in store.read_json(work.path("tile", "parts.json")):
        table = store.read_table(f"{uri}.samples.parquet")
        starts, lengths = table["offset"].to_numpy(), table["length"].to_numpy()
        samples = table.drop_columns(["length"]).cast(schema.SAMPLES)
        yield sample_cache.located(samples, [f"{uri}.tar"] * table.num_rows, starts, lengths)
    yield sample_cache.kept_samples(work)


def assemble(work: Work, images: pa.Table) -> Assembled:
    """Write the shards that are not there yet and return all that a snapshot holds of its samples."""
    *fresh, kept = indexes(work)
    samples = _in_order(pa.concat_tables([*fresh, kept]), images)
    before = sample_cache.kept_shards(work)
    tables, entries = [], []
    with tempfile.TemporaryDirectory(prefix="speck-") as folder:
        for number, rows in enumerate(_shards(samples, int(work.config.shard.max_mb * 1_000_000))):
            entry = before.get(rows["origin"][0].as_py())
            if entry is None or not _is_whole(rows, entry):
                rows, entry = _write_shard(work.config.home, Path(folder) / f"{number}.tar", rows, before)
            tables.append(rows.drop_columns(_EXTRA))
            entries.append(entry)
    parts = store.read_json(work.path("tile", "parts.json"))
    events = [store.read_table(f"{uri}.ledger.parquet") for uri in parts]
    return Assembled(
        samples=pa.concat_tables(tables) if tables else schema.SAMPLES.empty_table(),
        shards=entries,
        events=pa.concat_tables([*events, sample_cache.kept_ledger(work, kept)]),
        reused=kept.num_rows,
    )


def _in_order(samples: pa.Table, images: pa.Table) -> pa.Table:
    """Return the rows by split, then image path, then in the order their image made them."""
    paths = images["path"].take(pc.index_in(samples["image_id"], images["image_id"].combine_chunks()))
    order = pa.table(
        {
            "split": pc.index_in(samples["split"], pa.array(schema.SPLITS)),
            "path": paths,
            "row": pa.array(np.arange(samples.num_rows)),
        }
    )
    return samples.take(pc.sort_indices(order, sort_keys=[(name, "ascending") for name in order.column_names]))


def _shards(samples: pa.Table, max_bytes: int) -> Iterator[pa.Table]:
    """Yield the rows of each shard; a shard holds whole images of one split."""
    for split in schema.SPLITS:
        mine = samples.filter(pc.equal(samples["split"], split))
        ids, sizes = mine["image_id"].to_pylist(), mine["length"].to_numpy()
        firsts = [row for row, name in enumerate(ids) if row == 0 or name != ids[row - 1]]
        images = [(ids[first], int(sizes[first:end].sum())) for first, end in pairwise([*firsts, len(ids)])]
        starts = [first for first, new in zip(firsts, shard.borders(images, max_bytes), strict=True) if new]
        for first, end in pairwise([*starts, len(ids)]):
            yield mine.slice(first, end - first)


def _is_whole(rows: pa.Table, entry: dict[str, Any]) -> bool:
    """Return whether these are exactly the samples of an earlier shard, in its order."""
    if rows.num_rows != entry["samples"] or pc.count_distinct(rows["origin"]).as_py() != 1:
        return False
    starts, lengths = rows["start"].to_numpy(), rows["length"].to_numpy()
    follow = np.append(0, np.cumsum(lengths))
    return bool((starts == follow[:-1]).all()) and int(follow[-1]) + len(shard.END) == entry["bytes"]


def _write_shard(
    home: str, local: Path, rows: pa.Table, before: dict[str, dict[str, Any]]
) -> tuple[pa.Table, dict[str, Any]]:
    writer = shard.ShardWriter(local)
    done = 0
    for origin, start, lengths in sample_cache.runs(rows):
        if origin in before:
            data = store.read_range(origin, start, sum(lengths))
            sample_cache.check(rows.slice(done, len(lengths)), data)
            writer.add(data)
        else:
            for piece in store.read_pieces(origin, start, sum(lengths)):
                writer.add(piece)
        done += len(lengths)
    written = writer.close()
    uri = snapshot.shard_uri(home, written.sha256)
    if not store.exists(uri):
        store.upload(written.path, uri)
    ends = np.cumsum(rows["length"].to_numpy())
    offsets = pa.array(ends - rows["length"].to_numpy() + shard.IMAGE_OFFSET, pa.int64())
    names = pa.array([written.sha256] * rows.num_rows, pa.string())
    rows = rows.set_column(rows.schema.get_field_index("offset"), "offset", offsets)
    rows = rows.set_column(rows.schema.get_field_index("shard"), "shard", names)
    log.info("publish: shard %s, %d samples, %.1f MB", written.sha256[:12], rows.num_rows, written.size / 1e6)
    split = rows["split"][0].as_py()
    return rows, {"sha256": written.sha256, "bytes": written.size, "samples": rows.num_rows, "split": split}
