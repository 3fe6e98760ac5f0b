"""The ledger: what each stage did to each annotation, and the final outcome of every annotation."""

from __future__ import annotations

from typing import TypedDict

import pyarrow as pa
import pyarrow.compute as pc

from etl.codes import check_rule
from etl.columns import count_values
from etl.schema import FINAL, LEDGER

NEVER_LABELLED = "never_labelled"  # no tile shows enough of the box
_STRENGTH = ("kept", "clipped", "merged", "ignored", "dropped")  # outcomes, the weakest first
_SAMPLE_STAGES = ("tile", "augment")


class LedgerRow(TypedDict):
    """A row of the ledger: what a stage did to an annotation, and in which sample if it is about one."""

    annotation_id: str
    stage: str
    outcome: str
    rule: str
    value: float | None
    sample_id: str | None


def final_outcomes(ids: pa.Array, ledger: pa.Table) -> pa.Table:
    """Return one ledger row of stage `final` per annotation id: the strongest outcome of any stage, with its rule.

    A box that no stage dropped or ignored, and that is a label in no base tile, is dropped as `never_labelled`.
    """
    of_samples = pc.is_in(ledger["stage"], pa.array(_SAMPLE_STAGES))
    events = ledger.filter(pc.invert(of_samples))
    strength = pc.index_in(events["outcome"], pa.array(_STRENGTH)).cast(pa.int8())
    order = pc.sort_indices(events.append_column("strength", strength), sort_keys=[("strength", "descending")])
    events = events.take(order)
    first = events.group_by("annotation_id", use_threads=False).aggregate(
        [("outcome", "first"), ("rule", "first"), ("value", "first")]
    )
    first_event = pc.index_in(ids, first["annotation_id"])
    outcome = pc.fill_null(first["outcome_first"].take(first_event), "kept")
    labels = ledger.filter(pc.and_(pc.equal(ledger["stage"], "tile"), pc.equal(ledger["outcome"], "kept")))
    unlabelled = pc.and_(
        pc.invert(pc.is_in(ids, labels["annotation_id"].combine_chunks())),
        pc.invert(pc.is_in(outcome, pa.array(["dropped", "ignored"]))),
    )
    rule = pc.fill_null(first["rule_first"].take(first_event), "")
    columns = {
        "annotation_id": ids,
        "stage": pa.repeat(FINAL, len(ids)),
        "outcome": pc.if_else(unlabelled, "dropped", outcome),
        "rule": pc.if_else(unlabelled, NEVER_LABELLED, rule),
        "value": first["value_first"].take(first_event),
        "sample_id": pa.nulls(len(ids), pa.string()),
    }
    return pa.table(columns).cast(LEDGER)


def count_outcomes(final: pa.Table) -> dict[str, int]:
    """Return the number of boxes by final outcome."""
    return dict(sorted(count_values(final["outcome"]).items()))


def sort_ledger(ledger: pa.Table) -> pa.Table:
    """Return the ledger sorted by annotation, stage, sample, outcome and rule."""
    keys = [(name, "ascending") for name in ("annotation_id", "stage", "sample_id", "outcome", "rule")]
    return ledger.take(pc.sort_indices(ledger, sort_keys=keys))


def ledger_row(
    annotation_id: str, stage: str, outcome: str, rule: str, value: float | None = None, sample_id: str | None = None
) -> LedgerRow:
    """Return one row of the ledger; KeyError for an unregistered rule."""
    check_rule(stage, outcome, rule)
    return _row(annotation_id, stage, outcome, rule, value, sample_id)


def ledger_row_of_bad_box(annotation_id: str, reason: str) -> LedgerRow:
    """Return the ledger row of an unreadable annotation, with the reason of its reject."""
    return _row(annotation_id, "ingest", "dropped", reason)


def _row(
    annotation_id: str, stage: str, outcome: str, rule: str, value: float | None = None, sample_id: str | None = None
) -> LedgerRow:
    return {
        "annotation_id": annotation_id,
        "stage": stage,
        "outcome": outcome,
        "rule": rule,
        "value": value,
        "sample_id": sample_id,
    }


def collect_ids(annotations: pa.Table, ledger: pa.Table) -> pa.Array:
    """Return the distinct ids of all boxes in the source: those of the table and those rejected in the ledger."""
    all_ids = pa.chunked_array([*annotations["annotation_id"].chunks, *ledger["annotation_id"].chunks], pa.string())
    return pc.unique(all_ids)
