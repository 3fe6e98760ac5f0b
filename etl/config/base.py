"""What the sections of a dataset file have in common: frozen, closed, and strict about types."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _as_strings(value: object) -> object:
    return (value,) if isinstance(value, str) else _as_tuple(value)


Listed = BeforeValidator(_as_tuple)
Strings = Annotated[tuple[str, ...], BeforeValidator(_as_strings)]


class Section(BaseModel):
    """A part of the dataset file: frozen, and closed to unknown keys and to values of another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True, allow_inf_nan=False)
