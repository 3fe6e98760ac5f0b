"""The final outcome of every box: what the stages did to it, in one word and with one reason."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl.codes import check_rule
from etl.schema import FINAL, LEDGER

_STRENGTH = {"kept": 0, "clipped": 1, "merged": 2, "ignored": 3, "dropped": 4}


NEVER_LABELLED = "never_labelled"  # no tile shows enough of the box


_TILES = ("tile", "augment")


def final_outcomes(ids: pa.Array, ledger: pa.Table) -> pa.Table:
    """Return one ledger row of stage `final` per annotation id: the strongest outcome of any stage, with its rule.

    A box no stage dropped or ignored, and that no base tile labels, is dropped as `never_labelled`.
    """
    tiles = pc.is_in(ledger["stage"], pa.array(_TILES))
    events = ledger.filter(pc.invert(tiles))
    strength = pa.array([_STRENGTH[outcome] for outcome in events["outcome"].to_pylist()], pa.int8())
    order = pc.sort_indices(events.append_column("strength", strength), sort_keys=[("strength", "descending")])
    events = events.take(order)
    first = events.group_by("annotation_id", use_threads=False).aggregate(
        [("outcome", "first"), ("rule", "first"), ("value", "first")]
    )
    place = pc.index_in(ids, first["annotation_id"])
    outcome = pc.fill_null(first["outcome_first"].take(place), "kept")
    labels = ledger.filter(pc.and_(pc.equal(ledger["stage"], "tile"), pc.equal(ledger["outcome"], "kept")))
    unseen = pc.and_(
        pc.invert(pc.is_in(ids, labels["annotation_id"].combine_chunks())),
        pc.invert(pc.is_in(outcome, pa.array(["dropped", "ignored"]))),
    )
    rule = pc.fill_null(first["rule_first"].take(place), "")
    columns = {
        "annotation_id": ids,
        "stage": pa.repeat(FINAL, len(ids)),
        "outcome": pc.if_else(unseen, "dropped", outcome),
        "rule": pc.if_else(unseen, NEVER_LABELLED, rule),
        "value": first["value_first"].take(place),
        "sample_id": pa.nulls(len(ids), pa.string()),
    }
    return pa.table(columns).cast(LEDGER)


def counts(final: pa.Table) -> dict[str, int]:
    """Return how many boxes ended in each outcome."""
    return dict(sorted(Counter(final["outcome"].to_pylist()).items()))


def in_order(ledger: pa.Table) -> pa.Table:
    """Return the ledger sorted by box, stage and sample, whatever order its rows came in."""
    keys = [(name, "ascending") for name in ("annotation_id", "stage", "sample_id", "outcome", "rule")]
    return ledger.take(pc.sort_indices(ledger, sort_keys=keys))


Row = dict[str, Any]


def entry(annotation: str, stage: str, outcome: str, rule: str, value: float | None = None) -> Row:
    """Return one ledger row; KeyError for an unregistered rule."""
    check_rule(stage, outcome, rule)
    return _row(annotation, stage, outcome, rule, value)


def entry_of_bad_box(annotation: str, reason: str) -> Row:
    """Return the ledger row of an unreadable annotation, with the reason of its reject."""
    return _row(annotation, "ingest", "dropped", reason, None)


def _row(annotation: str, stage: str, outcome: str, rule: str, value: float | None) -> Row:
    return {"annotation_id": annotation, "stage": stage, "outcome": outcome, "rule": rule, "value": value}


def written_ids(annotations: pa.Table, ledger: pa.Table) -> pa.Array:
    """Return the id of every box of the source, once: those in the table, and those that could not be read."""
    both = pa.chunked_array([*annotations["annotation_id"].chunks, *ledger["annotation_id"].chunks], pa.string())
    return pc.unique(both)
