"""JSON documents with checked keys."""

from __future__ import annotations

import pytest

from etl.document import Document
from etl.errors import StoreError
from etl.numbers import count


class _Names(Document):
    names: tuple[str, ...] = ()


def test_a_file_larger_than_a_document_can_be_is_not_parsed() -> None:
    content = b'{"names": [' + b'"a",' * (Document.most_bytes // 4) + b'"a"]}'
    with pytest.raises(StoreError) as refused:
        _Names.from_json("audit.json", content[: Document.most_bytes + 1])
    most = count(Document.most_bytes)
    assert str(refused.value) == f"audit.json: found more than {most} bytes, expected at most so many"


def test_a_file_of_the_size_that_a_document_can_have_is_read() -> None:
    content = b'{"names": ["a"]}'
    assert _Names.from_json("audit.json", content.ljust(Document.most_bytes)).names == ("a",)


def test_an_answer_in_memory_may_be_larger() -> None:
    assert len(_Names.from_dict("the result", {"names": ["a" * 100] * 200_000}).names) == 200_000
