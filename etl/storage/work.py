"""The work folder of one build: the tables and answers that pass from stage to stage, deleted by publish."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl.config import Config
from etl.errors import StoreError
from etl.plan import Plan
from etl.storage import lease, store
from etl.storage.paths import split_uri

log = logging.getLogger("speck")
Answer = dict[str, Any]


@dataclass(frozen=True)
class WorkDir:
    """`work/<build_id>` of a dataset; the configuration and plan are those the build was begun with."""

    uri: str

    @property
    def build_id(self) -> str:
        """The digest of all that the build depends on."""
        return split_uri(self.uri).id

    @property
    def build_json(self) -> str:
        """The URI of what ingest notes for the other stages; a work folder without it holds no build."""
        return f"{self.uri}/build.json"

    @property
    def exists(self) -> bool:
        """Whether a build is in progress here."""
        return store.exists(self.build_json)

    @cached_property
    def build(self) -> dict[str, Any]:
        """What ingest noted for the other stages: config, plan (null before the first), categories, own_split."""
        if not self.exists:
            raise StoreError(f"{self.uri}: no build in progress here; run ingest first")
        return dict(store.read_json(self.build_json))

    @cached_property
    def config(self) -> Config:
        """The resolved configuration."""
        return Config.model_validate(self.build["config"])

    @cached_property
    def pinned(self) -> Plan | None:
        """The plan the dataset had when the build began, None at its first build."""
        return Plan.model_validate(self.build["plan"]) if self.build["plan"] is not None else None

    @property
    def categories(self) -> list[str]:
        """The class names of the source, in order."""
        return list(self.build["categories"])

    @property
    def full(self) -> bool:
        """Whether everything is to be read and cut anew, also what earlier builds left."""
        return bool(self.build["full"])

    def path(self, stage: str, name: str) -> str:
        """Return the URI of a stage's file."""
        return f"{self.uri}/{stage}/{name}"

    def read(self, stage: str, table: str) -> pa.Table:
        """Return a table a stage wrote."""
        return store.read_table(self.path(stage, f"{table}.parquet"))

    def write(self, stage: str, name: str, table: pa.Table) -> None:
        """Write a stage's table."""
        store.write_table(self.path(stage, f"{name}.parquet"), table)

    def once(self, stage: str, run: Callable[[], Answer]) -> Answer:
        """Return the stage's answer: the one an earlier try left, else of `run`, kept for a later try."""
        with self.leased():
            return self._once(stage, run)

    def leased(self, *, last: bool = False) -> AbstractContextManager[None]:
        """Hold the dataset's lease for a stage; work of another purpose than a build needs none."""
        if "-" in self.build_id:
            return nullcontext()
        return lease.hold(split_uri(self.uri).home, self.build_id, last=last)

    def _once(self, stage: str, run: Callable[[], Answer]) -> Answer:
        uri = self.path(stage, "answer.json")
        if store.exists(uri):
            log.info("%s: already done", stage)
            return dict(store.read_json(uri))
        start, cpu = time.perf_counter(), time.process_time()
        answer = run()
        answer |= {
            "seconds": round(time.perf_counter() - start, 2),
            "cpu_seconds": round(answer.get("cpu_seconds", 0.0) + time.process_time() - cpu, 2),
        }
        store.write_json(uri, answer)
        log.info("%s: %s", stage, ", ".join(f"{key} {value}" for key, value in answer.items()))
        return answer

    def delete(self) -> None:
        """Remove the folder, what makes it a build first: a rest that a kill leaves behind is none."""
        store.delete(self.build_json)
        store.delete(self.uri)

    def dropped(self, *stages: str) -> pa.Array:
        """Return the ids of the boxes that these stages dropped."""
        ledgers = pa.concat_tables([self.read(stage, "ledger") for stage in stages])
        return ledgers.filter(pc.equal(ledgers["outcome"], "dropped"))["annotation_id"].combine_chunks()

    def usable(self, *stages: str) -> pa.Table:
        """Return the source's boxes that none of these stages dropped."""
        annotations = self.read("ingest", "annotations")
        return annotations.filter(pc.invert(pc.is_in(annotations["annotation_id"], self.dropped(*stages))))
