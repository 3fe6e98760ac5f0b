"""A document read in pieces holds what `json.loads` reads, and what is no JSON fails with its line."""

import json

import pytest
from hypothesis import given, strategies as st

from etl.errors import SourceError
from etl.formats import coco_document
from etl.formats.coco_document import read_pieces

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text("ab", max_size=2), inner, max_size=3)),
    max_leaves=12,
)


def lists(text):
    found = {}
    for key, rows, start, _ in read_pieces("x.json", text):
        if rows is not None:
            assert start == len(found.get(key, []))
            found[key] = [*found.get(key, []), *rows]
    return found


@given(st.dictionaries(st.text("abc", max_size=3), VALUES, max_size=4), st.sampled_from([None, 0, 3]), st.booleans())
def test_the_lists_of_a_document_are_those_of_the_json_module(document, indent, spaced):
    text = json.dumps(document, indent=indent, separators=(" , ", "\t:\n") if spaced else None)
    expected = {key: value for key, value in document.items() if isinstance(value, list)}
    assert lists(text) == expected
    assert sum(piece.size for piece in read_pieces("x.json", text)) <= len(text)


def test_a_long_list_comes_in_pieces(monkeypatch):
    monkeypatch.setattr(coco_document, "_PIECE", 3)
    pieces = list(read_pieces("x.json", json.dumps({"a": list(range(7)), "b": 1})))
    assert [(piece.key, piece.rows, piece.start) for piece in pieces] == [
        ("a", [0, 1, 2], 0), ("a", [3, 4, 5], 3), ("a", [6], 6), ("b", None, 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "", "{", '{"a"', '{"a":', '{"a": [1', '{"a": [1,]}', '{"a": 1,}', "{,}", "{} x", "[1] 2", '{"a" 1}', "{1: 2}",
        '{"a": [1 2]}', '{"a": 01}', "nul", '{"a": [], "a": []}',
    ],
)  # fmt: skip
def test_what_is_no_json_fails_by_file_and_line(text):
    with pytest.raises(SourceError, match=r"^x\.json:3: not JSON: "):
        list(read_pieces("x.json", f"\n\n{text}"))


@pytest.mark.parametrize("text", ["{}", "[]", "7", '"x"', "[{}]"])
def test_what_has_no_lists_at_its_top_has_no_pieces(text):
    assert list(read_pieces("x.json", f" {text}\n")) == []
