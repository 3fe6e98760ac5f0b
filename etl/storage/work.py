"""The work folder of one build: the tables and answers its stages exchange; publish deletes it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl.config import Config
from etl.errors import StoreError
from etl.plan import Plan
from etl.schema import ANNOTATIONS
from etl.storage import lease, mended, store, table_pieces
from etl.storage.paths import split_uri

log = logging.getLogger("speck")
Answer = dict[str, Any]


class Stopwatch:
    """Measures wall-clock time, and the CPU time of this process, since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    @property
    def seconds(self) -> float:
        """Elapsed seconds."""
        return round(time.perf_counter() - self._wall, 2)

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds of this process, all its threads."""
        return round(time.process_time() - self._cpu, 2)


@dataclass(frozen=True)
class WorkDir:
    """The folder `work/<build_id>` of a dataset, with the configuration and plan as of the start of the build."""

    uri: str

    @property
    def build_id(self) -> str:
        """The digest of everything the build depends on."""
        return split_uri(self.uri).id

    @property
    def build_json(self) -> str:
        """The URI of the file that ingest writes for the other stages; a work folder without it is not a build."""
        return f"{self.uri}/build.json"

    @property
    def exists(self) -> bool:
        """Whether a build is in progress in this folder."""
        return store.exists(self.build_json)

    @property
    def is_build(self) -> bool:
        """Whether the work ends in a snapshot; an audit or a plan preview has its purpose in the folder's name."""
        return "-" not in self.build_id

    @cached_property
    def build(self) -> dict[str, Any]:
        """The content of build.json: config, plan (null before the first build), categories, own_split, full.

        StoreError if there is no build in this folder.
        """
        if not self.exists:
            raise StoreError(f"{self.uri}: no build in progress; run ingest first")
        return dict(store.read_json(self.build_json))

    @cached_property
    def config(self) -> Config:
        """The resolved configuration."""
        return Config.from_record(self.build["config"])

    @cached_property
    def pinned_plan(self) -> Plan | None:
        """The plan of the dataset when the build started, None for the first build."""
        return Plan.model_validate(self.build["plan"]) if self.build["plan"] is not None else None

    @property
    def categories(self) -> list[str]:
        """The class names of the source, in order."""
        return list(self.build["categories"])

    @property
    def pixel_range(self) -> tuple[float, float] | None:
        """The range of values that becomes 0 to 255 in images of more than 8 bits; None without such images."""
        return _pair(self.build.get("pixel_range"))

    @property
    def new_pixel_range(self) -> tuple[float, float] | None:
        """The range of a new plan; it differs from `pixel_range` if that is pinned and the images have changed."""
        return _pair(self.build.get("new_pixel_range"))

    @property
    def full(self) -> bool:
        """Whether every image is processed again, without the caches of earlier builds."""
        return bool(self.build["full"])

    @property
    def again(self) -> str | None:
        """The id of the published snapshot that is made again; None if a new one is built."""
        return self.build.get("again")

    def path(self, stage: str, name: str) -> str:
        """Return the URI of a file of a stage."""
        return f"{self.uri}/{stage}/{name}"

    def read(self, stage: str, table: str) -> pa.Table:
        """Return a table that a stage wrote; StoreError if it does not exist."""
        return store.read_table(self.path(stage, f"{table}.parquet"))

    def read_pieces(self, stage: str, table: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the rows of a table that a stage wrote, all columns or some, piece by piece."""
        return table_pieces.read_pieces(self.path(stage, f"{table}.parquet"), columns)

    def open_writer(
        self, stage: str, name: str, schema: pa.Schema
    ) -> AbstractContextManager[Callable[[pa.Table], None]]:
        """Return a context manager whose function appends rows to a table of a stage."""
        return table_pieces.open_writer(self.path(stage, f"{name}.parquet"), schema)

    def write(self, stage: str, name: str, table: pa.Table) -> None:
        """Write a table of a stage."""
        store.write_table(self.path(stage, f"{name}.parquet"), table)

    def run_once(self, stage: str, compute: Callable[[], Answer], watch: Stopwatch | None = None) -> Answer:
        """Return the answer of a stage: the stored one of an earlier attempt, else that of `compute`, which is stored.

        Its `seconds` and `cpu_seconds` are those of `watch`, by default started here; the CPU seconds of workers are
        `cpu_seconds` of what `compute` returns. Holds the lease on the dataset; StoreError if another build holds it.
        """
        with self.hold_lease():
            return self._run_once(stage, compute, watch or Stopwatch())

    def hold_lease(self, *, last: bool = False) -> AbstractContextManager[None]:
        """Hold the lease on the dataset for a stage, as `lease.hold` does; an audit or a plan preview needs none."""
        if not self.is_build:
            return nullcontext()
        return lease.hold(split_uri(self.uri).home, self.build_id, last=last)

    def _run_once(self, stage: str, compute: Callable[[], Answer], watch: Stopwatch) -> Answer:
        uri = self.path(stage, "answer.json")
        if store.exists(uri):
            log.info("%s: already done", stage)
            return dict(store.read_json(uri))
        with mended.collect() as lines:
            answer = compute()
        if lines:
            answer["mended"] = lines
        cpu_seconds = round(answer.get("cpu_seconds", 0.0) + watch.cpu_seconds, 2)
        answer |= {"seconds": watch.seconds, "cpu_seconds": cpu_seconds}
        store.write_json(uri, answer)
        log.info("%s: %s", stage, _line({key: value for key, value in answer.items() if key != "html"}))
        return answer

    def delete(self) -> None:
        """Remove the folder, build.json first: a half-deleted folder is not a build."""
        store.delete(self.build_json)
        store.delete(self.uri)

    def dropped_ids(self, *stages: str) -> pa.Array:
        """Return the annotation ids of the boxes that these stages dropped."""
        ids: list[pa.Array] = []
        for stage in stages:
            for piece in self.read_pieces(stage, "ledger", ["annotation_id", "outcome"]):
                ids += piece.filter(pc.equal(piece["outcome"], "dropped"))["annotation_id"].chunks
        return pa.chunked_array(ids, pa.string()).combine_chunks()

    def usable_annotations(self, *stages: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the annotations of the source without the boxes that these stages dropped, piece by piece.

        Some `columns` are those to return, all by default.
        """
        dropped = self.dropped_ids(*stages)
        wanted = list(ANNOTATIONS.names if columns is None else columns)
        for piece in self.read_pieces("ingest", "annotations", list(dict.fromkeys([*wanted, "annotation_id"]))):
            yield piece.filter(pc.invert(pc.is_in(piece["annotation_id"], dropped))).select(wanted)


def _pair(values: Sequence[float] | None) -> tuple[float, float] | None:
    return (values[0], values[1]) if values is not None else None


def _line(values: Mapping[str, Any]) -> str:
    """Return values as one line of text, mappings in brackets."""
    texts = (
        f"{key} " + (f"({_line(value)})" if isinstance(value, dict) else str(value)) for key, value in values.items()
    )
    return ", ".join(texts) or "none"
