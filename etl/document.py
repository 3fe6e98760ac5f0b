"""JSON documents with checked keys: files of a store, and answers of commands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, FailFast, ValidationError

from etl.errors import StoreError
from etl.json_text import start_of
from etl.numbers import count_of

FIRST_ERROR = FailFast()  # of a list without a limit: one million wrong values are no million errors
_SHOWN = 200  # characters of a wrong value that an error quotes


class Document(BaseModel):
    """A JSON object: frozen, strict about types, and open to the keys that a later version may add."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False, populate_by_name=True)
    most_bytes: ClassVar[int] = 20_000_000  # of a file: a value of a few bytes can take a hundred in memory

    @classmethod
    def from_json(cls, where: str, content: bytes | str) -> Self:
        """Return the document that JSON text holds; StoreError names `where` (a file), the key, found and expected.

        The content of a file may be its first `most_bytes` + 1 bytes: with more than `most_bytes` it is not read.
        """
        if isinstance(content, bytes) and len(content) > cls.most_bytes:
            raise StoreError(f"{where}: found more than {count_of(cls.most_bytes, 'byte')}, expected at most so many")
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first, *others = error.errors()
        if first["type"] == "json_invalid":
            raise StoreError(f"{where}: not a valid JSON file: {first['msg']}")
        found, expected = start_of(first["input"], _SHOWN), first["msg"].removeprefix("Input should be ")
        if first["type"] == "missing":
            found, expected = "nothing", "a value"
        if first["type"] == "too_long":
            expected = f"at most {first['ctx']['max_length']} values"
        place = ": ".join((where, *filter(None, [".".join(map(str, first["loc"]))])))
        more = f" (and {len(others)} more)" if others else ""
        raise StoreError(f"{place}: found {found}, expected {expected}{more}")

    @classmethod
    def from_dict(cls, where: str, values: Mapping[str, Any]) -> Self:
        """Return the document that JSON values make; StoreError as from_json."""
        return cls.from_json(where, json.dumps(values))

    def to_dict(self) -> dict[str, Any]:
        """Return the document as JSON values, without the keys that it was made without."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)
