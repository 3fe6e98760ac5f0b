from __future__ import annotations

import pytest

from etl import schema


@pytest.mark.parametrize("name", schema.TABLES)
def test_an_empty_table_has_the_exact_schema(name: str) -> None:
    table = schema.table(schema.TABLES[name], [])
    assert table.schema.equals(schema.TABLES[name])
    assert table.num_rows == 0


def test_a_missing_key_is_null_and_not_zero() -> None:
    (row,) = schema.table(schema.LEDGER, [{"annotation_id": "a"}]).to_pylist()
    assert row == {
        "annotation_id": "a", "stage": None, "outcome": None, "rule": None, "value": None, "sample_id": None
    }  # fmt: skip


def test_an_unknown_key_is_an_error_that_names_it() -> None:
    with pytest.raises(KeyError, match="anotation_id"):
        schema.table(schema.LEDGER, [{"anotation_id": "a"}])


def test_a_reject_holds_text_whatever_was_found() -> None:
    row = schema.reject("annotation", "a.txt:3", "not_finite", (1.0, float("nan")), "four finite numbers")
    (back,) = schema.table(schema.REJECTS, [row]).to_pylist()
    assert back == {
        "kind": "annotation",
        "where": "a.txt:3",
        "reason": "not_finite",
        "found": "(1.0, nan)",
        "expected": "four finite numbers",
    }


def test_a_perceptual_hash_of_all_64_bits_fits_the_images_table() -> None:
    assert schema.table(schema.IMAGES, [{"phash": 2**64 - 1}])["phash"].to_pylist() == [2**64 - 1]
