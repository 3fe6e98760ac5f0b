"""The tables of a new snapshot, written to local files piece by piece."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl import schema
from etl.columns import count_values
from etl.jobs.shards import Assembled
from etl.stages import ledger, review
from etl.storage.buckets import MOST, Buckets, bucket_of
from etl.storage.table_pieces import Weigh, count_rows, write_final
from etl.storage.work import WorkDir

_BOXES_AT_ONCE = 30_000  # about: whose ledger is sorted at once
_BOXES_PER_ROW = 5  # of a sample that count as much as a row of another table


@dataclass(frozen=True)
class SnapshotTables:
    """The local files of the tables by name, and what the ledger counts."""

    folder: Path
    rows: dict[str, int] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)  # boxes by final outcome
    rejects: Counter[str] = field(default_factory=Counter)  # by reason
    added: list[int] = field(default_factory=list)  # boxes that a review added, piece by piece
    removed: list[int] = field(default_factory=list)  # and removed

    @property
    def labels(self) -> int:
        """The number of boxes without those that a review removed."""
        return self.rows["annotations"] - sum(self.removed)

    def path(self, name: str) -> Path:
        """Return the file of a table."""
        return self.folder / f"{name}.parquet"

    def entry(self, name: str) -> dict[str, str | int]:
        """Return what the manifest says of a table."""
        with self.path(name).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return {"sha256": sha256, "bytes": self.path(name).stat().st_size, "rows": self.rows[name]}


def write_tables(work: WorkDir, assembled: Assembled, folder: Path) -> SnapshotTables:
    """Write the tables of the snapshot into a local folder."""
    tables = SnapshotTables(folder)

    def write(name: str, pieces: Iterable[pa.Table], weigh: Weigh = count_rows) -> None:
        tables.rows[name] = write_final(tables.path(name), schema.TABLES[name], pieces, weigh)

    write("images", work.read_pieces("split", "images"))
    write("annotations", work.read_pieces("ingest", "annotations"))
    write("rejects", _counted(work.read_pieces("ingest", "rejects"), tables.rejects))
    write("samples", assembled.read_samples(), _weigh_samples)
    write("ledger", _ledger(work, assembled, tables))
    return tables


def _weigh_samples(samples: pa.Table) -> NDArray[np.int64]:
    """Return what each sample counts in a row group: one row, more with many boxes."""
    boxes: NDArray[np.int64] = pc.list_value_length(samples["boxes"]).to_numpy().astype(np.int64)
    return np.maximum(boxes // _BOXES_PER_ROW, 1)


def _counted(rejects: Iterable[pa.Table], reasons: Counter[str]) -> Iterator[pa.Table]:
    for piece in rejects:
        reasons.update(count_values(piece["reason"]))
        yield piece


def _ledger(work: WorkDir, assembled: Assembled, tables: SnapshotTables) -> Iterator[pa.Table]:
    """Yield the sorted ledger of all stages with the final outcome of every box, some boxes at once.

    The boxes are taken by the first digits of their ids.
    """
    count = min(tables.rows["annotations"] // _BOXES_AT_ONCE + 1, MOST)
    events = Buckets(tables.folder / "ledger", schema.LEDGER, count)
    boxes = Buckets(tables.folder / "boxes", schema.ANNOTATIONS.empty_table().select(["annotation_id"]).schema, count)
    for stage in ("ingest", "split", "remap"):
        for piece in work.read_pieces(stage, "ledger"):
            events.add(piece, bucket_of(piece["annotation_id"], count))
    for piece in assembled.read_ledger():
        events.add(piece, bucket_of(piece["annotation_id"], count))
    for piece in work.read_pieces("ingest", "annotations", ["annotation_id"]):
        boxes.add(piece, bucket_of(piece["annotation_id"], count))
    for ids, rows in zip(boxes.read(), events.read(), strict=True):
        read = rows.filter(pc.equal(rows["stage"], "ingest"))
        final = ledger.final_outcomes(ledger.collect_ids(ids, read), rows)
        tables.outcomes.update(ledger.count_outcomes(final))
        tables.added.append(review.count_added(rows))
        tables.removed.append(review.count_removed(rows))
        yield ledger.sort_ledger(pa.concat_tables([rows, final]))
