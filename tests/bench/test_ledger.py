"""A query over a ledger of ten million rows: the files with boxes under 3 px, and how many were dropped."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from etl import schema
from etl.stages import ledger
from etl.storage.table_pieces import write_final

BOXES = 2_500_000
EVENTS = 3  # tiles per box; with the final outcomes, 10 million rows
IMAGES = 40_000
TURNS = 7
TARGET = 1.0  # seconds

QUERY = """
select a.file, count(*) as boxes, count(*) filter (where l.outcome = 'dropped') as dropped
from '{folder}/annotations.parquet' a join '{folder}/ledger.parquet' l using (annotation_id)
where least(a.x1 - a.x0, a.y1 - a.y0) < 3 and l.stage = 'final'
group by a.file order by boxes desc
"""


def names(numbers: np.ndarray) -> pa.Array:
    """Ids like digests: 16 hex digits in random order."""
    mixed = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    return pa.array([f"{value:016x}" for value in mixed.tolist()])


def complete(table: pa.Schema, columns: dict[str, Any], rows: int) -> pa.Table:
    return pa.table(
        {field.name: columns.get(field.name, pa.nulls(rows, field.type)) for field in table}, schema=table
    )  # fmt: skip


def write(folder: Path) -> int:
    rng = np.random.default_rng(0)
    ids = names(np.arange(BOXES))
    image = rng.integers(IMAGES, size=BOXES)
    size = np.exp(rng.normal(3, 0.7, (2, BOXES)))  # a few per thousand below 3 px
    x0, y0 = rng.uniform(0, 4000, BOXES), rng.uniform(0, 3000, BOXES)
    files = pa.array([f"flight/{number:06d}.txt" for number in range(IMAGES)]).take(pa.array(image))
    annotations = complete(
        schema.ANNOTATIONS,
        {"annotation_id": ids, "x0": x0, "y0": y0, "x1": x0 + size[0], "y1": y0 + size[1], "file": files},
        BOXES,
    )
    write_final(folder / "annotations.parquet", schema.ANNOTATIONS, [annotations.sort_by("annotation_id")])
    small = size.min(axis=0) < 3
    stages = [
        complete(
            schema.LEDGER,
            {
                "annotation_id": ids,
                "stage": pa.array(np.full(BOXES, "tile" if turn < EVENTS else "final")),
                "outcome": pa.array(np.where(small, "dropped", "kept")),
                "rule": pa.array(np.where(small, "min_side", "whole")),
                "sample_id": names(rng.integers(300_000, size=BOXES))
                if turn < EVENTS
                else pa.nulls(BOXES, pa.string()),
            },
            BOXES,
        )
        for turn in range(EVENTS + 1)
    ]
    table = ledger.sort_ledger(pa.concat_tables(stages))
    return write_final(folder / "ledger.parquet", schema.LEDGER, [table])


def test_small_boxes_are_found_in_a_large_ledger(tmp_path: Path, bench: Any) -> None:
    rows = write(tmp_path)
    seconds = []
    for _ in range(TURNS):
        with duckdb.connect() as connection:
            start = time.perf_counter()
            found = connection.execute(QUERY.format(folder=tmp_path)).fetchall()
            seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds)
    bench.report(
        f"files with boxes under 3 px, of a ledger of {rows:,} rows: {len(found):,} files in {median:.2f} s "
        f"({min(seconds):.2f} to {max(seconds):.2f}); target < {TARGET:g} s: {'met' if median < TARGET else 'missed'}"
    )
    assert rows == BOXES * (EVENTS + 1)
    assert found
    assert all(boxes == dropped for _, boxes, dropped in found)
    assert median < TARGET
