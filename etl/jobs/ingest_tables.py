"""The tables of an ingest, made piece by piece of the rows of its images: boxes are never whole in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Protocol

import numpy as np
import pyarrow as pa

from etl import schema
from etl.jobs.image_rows import ImageRows, to_tables
from etl.stages.box_checks import Check, Tables, apply_checks
from etl.stages.image_traits import TRAITS
from etl.stages.ingest import drop_unread
from etl.stages.review import Reviewed
from etl.storage.work import WorkDir


class Summary(Protocol):
    """What is counted or collected over the tables of some images at a time."""

    def add(self, tables: Tables) -> None:
        """Add the tables of some images."""


class IngestTables:
    """The tables of an ingest after checks, in which what the checks add follows the rows of the source."""

    def __init__(self, source_rejects: Iterable[dict[str, str]], rows: ImageRows) -> None:
        self._rows = rows
        self._checks: list[Check] = []
        without_image = list(source_rejects)
        self._without_image = {
            "images": schema.IMAGES.empty_table(),
            "annotations": schema.ANNOTATIONS.empty_table(),
            "ledger": schema.table(schema.LEDGER, drop_unread(without_image)),
            "rejects": schema.table(schema.REJECTS, without_image),
            "traits": TRAITS.empty_table(),
        }

    def apply(self, checks: Iterable[Check]) -> None:
        """Apply checks after the earlier ones."""
        self._checks += checks

    def summarize(self, *summaries: Summary) -> None:
        """Add the tables of all images to summaries."""
        for tables, _ in self._pieces():
            for summary in summaries:
                summary.add(tables)

    def collect(self, *summaries: Summary) -> Tables:
        """Return the tables images, rejects and traits, and add the tables of all images to summaries."""
        images, traits, rejects = [], [], []
        for tables, steps in self._pieces():
            for summary in summaries:
                summary.add(tables)
            images.append(_copy(tables["images"]))
            traits.append(_copy(tables["traits"]))
            rejects.append([_copy(step["rejects"]) for step in steps])
        whole = {"images": images, "traits": traits, "rejects": _step_by_step(rejects)}
        return {name: pa.concat_tables(pieces) for name, pieces in whole.items()}

    def annotations(self, columns: Sequence[str]) -> pa.Table:
        """Return some columns of all annotations."""
        return pa.concat_tables([_copy(tables["annotations"].select(columns)) for tables, _ in self._pieces()])

    def write(self, work: WorkDir, reviewed: Reviewed) -> None:
        """Write the annotations and the ledger, with what a review corrects."""
        added = []
        with (
            work.open_writer("ingest", "annotations", schema.ANNOTATIONS) as write_annotations,
            work.open_writer("ingest", "ledger", schema.LEDGER) as write_ledger,
        ):
            for tables, (written, *of_checks) in self._pieces():
                corrected = reviewed.correct({**tables, "ledger": written["ledger"]})
                for write, name in ((write_annotations, "annotations"), (write_ledger, "ledger")):
                    if corrected[name].num_rows:
                        write(corrected[name])
                added.append([_copy(step["ledger"]) for step in of_checks])
            write_annotations(reviewed.added)
            write_ledger(pa.concat_tables([*_step_by_step(added), reviewed.events]))

    def _pieces(self) -> Iterator[tuple[Tables, list[Tables]]]:
        """Yield the tables of some images after the checks, and the steps in which rejects and ledger were made."""
        for tables in chain([self._without_image], map(to_tables, self._rows.read())):
            yield apply_checks(tables, self._checks)


def _step_by_step(pieces: Iterable[Sequence[pa.Table]]) -> list[pa.Table]:
    """Return the rows of the first step of each piece, then those of the second step, and so on."""
    return [rows for step in zip(*pieces, strict=True) for rows in step]


def _copy(table: pa.Table) -> pa.Table:
    """Return a table that does not keep the rows in memory that it is part of."""
    return table.take(pa.array(np.arange(table.num_rows)))
