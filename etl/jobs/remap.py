"""Apply the ontology to the boxes of a build."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from etl.columns import count_values
from etl.schema import ANNOTATIONS, LEDGER
from etl.stages.remap import CategoryPreview, preview_categories, remap_boxes
from etl.storage.work import Answer, WorkDir

_NEEDED = ("annotation_id", "category", "x0", "y0", "x1", "y1", "crowd", "ignore")  # what decides about a box


def run(uri: str) -> Answer:
    """Apply the ontology to the boxes that ingest and split have not dropped."""
    work = WorkDir(uri)

    def compute() -> Answer:
        boxes = changed = 0
        with (
            work.open_writer("remap", "annotations", ANNOTATIONS) as keep,
            work.open_writer("remap", "ledger", LEDGER) as note,
        ):
            for kept, ledger in apply_ontology(work):
                keep(kept)
                note(ledger)
                boxes, changed = boxes + kept.num_rows, changed + ledger.num_rows
        return {"annotations": boxes, "changed": changed}

    return work.run_once("remap", compute)


def apply_ontology(work: WorkDir, columns: Sequence[str] | None = None) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield what `remap_boxes` does of the boxes that ingest and split have not dropped, piece by piece.

    Some `columns` are those of the boxes, all by default.
    """
    yield from _remap(work, work.usable_annotations("ingest", "split", columns=_with_needed(columns)), columns)


def trained_boxes(
    work: WorkDir, columns: Sequence[str], stages: Sequence[str] = ("ingest", "split")
) -> Iterator[pa.Table]:
    """Yield some columns of the boxes that these stages and the ontology leave, piece by piece."""
    for kept, _ in _remap(work, work.usable_annotations(*stages, columns=_with_needed(columns)), columns):
        yield kept


def _with_needed(columns: Sequence[str] | None) -> list[str] | None:
    return None if columns is None else list(dict.fromkeys([*columns, *_NEEDED]))


def _remap(
    work: WorkDir, pieces: Iterator[pa.Table], columns: Sequence[str] | None
) -> Iterator[tuple[pa.Table, pa.Table]]:
    for piece in pieces:
        kept, ledger = remap_boxes(piece, work.categories, work.config.ontology)
        yield kept if columns is None else kept.select(list(columns)), ledger


def preview_ontology(work: WorkDir) -> tuple[CategoryPreview, ...]:
    """Return what ontology and split make of the valid boxes of each class."""
    boxes = work.usable_annotations("ingest", columns=["image_id", *_NEEDED])
    return preview_categories(boxes, work.categories, work.config.ontology, work.dropped_ids("split"))


def count_untrained(work: WorkDir) -> dict[str, int]:
    """Return how many boxes are no objects, by the rule that takes them, most first."""
    rules: Counter[str] = Counter()
    for stage in ("ingest", "split"):
        for piece in work.read_pieces(stage, "ledger", ["outcome", "rule"]):
            rules.update(_taken(piece))
    for _, ledger in apply_ontology(work, ()):
        rules.update(_taken(ledger))
    return dict(rules.most_common())


def _taken(ledger: pa.Table) -> Counter[str]:
    return count_values(ledger.filter(pc.is_in(ledger["outcome"], pa.array(["dropped", "ignored"])))["rule"])
