from __future__ import annotations

from itertools import permutations

import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from etl import schema
from etl.stages import ledger

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "d"]),
        st.sampled_from(["ingest", "split", "remap", "tile", "augment"]),
        st.sampled_from(schema.OUTCOMES),
    ),
    max_size=12,
)


def rows(*events: tuple) -> pa.Table:
    """Ledger rows of (annotation, stage, outcome) with an optional rule and value."""
    names = ("annotation_id", "stage", "outcome", "rule", "value", "sample_id")
    return schema.table(schema.LEDGER, [dict(zip(names, event, strict=False)) for event in events])


def final(ids: list[str], table: pa.Table) -> dict[str, tuple[str, str]]:
    found = ledger.final_outcomes(pa.array(ids, pa.string()), table)
    return {row["annotation_id"]: (row["outcome"], row["rule"]) for row in found.to_pylist()}


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([("tile", "kept", "whole")], ("kept", "")),
        ([("ingest", "clipped", "image_border"), ("tile", "kept", "whole")], ("clipped", "image_border")),
        ([("remap", "merged", "merge:x"), ("tile", "kept", "whole")], ("merged", "merge:x")),
        (
            [("ingest", "clipped", "image_border"), ("remap", "merged", "merge:x"), ("tile", "kept", "whole")],
            ("merged", "merge:x"),
        ),
        ([("remap", "ignored", "crowd"), ("tile", "ignored", "min_visibility")], ("ignored", "crowd")),
        ([("ingest", "dropped", "zero_size")], ("dropped", "zero_size")),
        ([("ingest", "clipped", "image_border"), ("split", "dropped", "frame_guard")], ("dropped", "frame_guard")),
        ([("tile", "ignored", "min_visibility")], ("dropped", "never_labelled")),
        ([("augment", "kept", "whole")], ("dropped", "never_labelled")),
        ([], ("dropped", "never_labelled")),
    ],
)
def test_the_final_outcome_is_the_strongest_of_any_stage(events: list[tuple], expected: tuple[str, str]) -> None:
    for order in permutations(events):
        assert final(["a"], rows(*(("a", *event) for event in order))) == {"a": expected}


@given(EVENTS)
def test_every_box_has_one_final_outcome_and_they_sum_to_the_boxes(events: list[tuple]) -> None:
    found = ledger.final_outcomes(pa.array(["a", "b", "c", "d"]), rows(*events))
    assert found.schema.equals(schema.LEDGER)
    assert found["annotation_id"].to_pylist() == ["a", "b", "c", "d"]
    assert set(found["stage"].to_pylist()) == {schema.FINAL}
    assert set(found["outcome"].to_pylist()) <= set(schema.OUTCOMES)
    assert sum(ledger.count_outcomes(found).values()) == 4


def test_the_measured_value_comes_along() -> None:
    found = ledger.final_outcomes(
        pa.array(["a"]), rows(("a", "ingest", "clipped", "image_border", 3.5), ("a", "tile", "kept"))
    )
    assert found["value"].to_pylist() == [3.5]


def test_no_boxes_have_no_outcomes() -> None:
    assert final([], rows()) == {}
    assert ledger.count_outcomes(ledger.final_outcomes(pa.array([], pa.string()), rows())) == {}


def test_the_order_of_the_ledger_is_its_own_whatever_order_rows_came_in() -> None:
    events = [("b", "tile", "kept", "", 1.0, "s"), ("a", "tile", "kept", "", 1.0, "t"), ("a", "ingest", "clipped", "x")]
    expected = ledger.sort_ledger(rows(*events))
    assert expected["annotation_id"].to_pylist() == ["a", "a", "b"]
    assert all(ledger.sort_ledger(rows(*order)).equals(expected) for order in permutations(events))
