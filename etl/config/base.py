"""What all sections of a dataset file share: their base class and the types of their values."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from etl import pattern

# ${NAME} or ${NAME:-default}, expanded in `store` and `source`; a default ends at the next `${`, so that a text of many
# of them without an end is read once
VARIABLE = re.compile(r"\$\{(\w+)(?::-((?:(?!\$\{)[^}])*))?\}")
HAS_VARIABLE = {"type": "string", "pattern": r"\$\{\w+(:-[^}]*)?\}"}  # JSON Schema of a text that holds one

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def as_strings(value: object) -> object:
    """Return one text as a tuple of it, and a list as a tuple."""
    return (value,) if isinstance(value, str) else _as_tuple(value)


def check_regex(value: str) -> str:
    """Return the pattern; ValueError if it does not compile, or is too large."""
    pattern.check(value)
    return value


Listed = BeforeValidator(_as_tuple)
Strings = Annotated[tuple[str, ...], BeforeValidator(as_strings, json_schema_input_type=str | list[str])]
Regex = Annotated[str, BeforeValidator(lambda value: check_regex(value) if isinstance(value, str) else value)]

# YAML reads `0` and `1.5` as numbers; as class names they are the text as written.
Name = Annotated[str, WithJsonSchema({"type": ["string", "number", "boolean"]})]
Names = Annotated[tuple[Name, ...], BeforeValidator(as_strings, json_schema_input_type=Name | list[Name])]


class Section(BaseModel):
    """A section of the dataset file: frozen, without unknown keys, strict about types.

    The string below a key describes it for the configuration reference and the JSON Schema; see etl.config.schema.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True, allow_inf_nan=False)
