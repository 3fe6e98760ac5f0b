"""Load a dataset file: expand variables, apply overrides, validate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from etl.config import network, variables, yaml
from etl.config.dataset import Config
from etl.config.source import SplitLists, SplitRatios
from etl.config.written import Written
from etl.errors import ConfigError

_FORMS = {"SplitRatios": SplitRatios, "SplitLists": SplitLists}  # sections that one key may hold, by tag
_NAMES = (("ontology",), ("source", "categories"))  # subtrees whose scalars are class names


def load(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Return the checked configuration of a dataset file; ConfigError names file, key, found and expected.

    `overrides` replace values of the file, by dotted key: {"tile.size": 800}.
    """
    path = Path(path).expanduser()
    values = yaml.read(path, _NAMES)
    for key, value in (overrides or {}).items():
        values = _with(path, values, key, key.split("."), value)
    store = Config.model_fields["store"].default
    written = variables.find_written(path, values, store)
    config = _validate(path, variables.expand(path, values, store), written).with_written(written)
    if "train.model" in (overrides or {}):  # a training of another model may use no anchors
        return config
    try:
        network.preset_anchors(config, network.strides(config))
    except ConfigError as error:
        raise ConfigError(path, error.key, error.found, error.expected) from error
    return config


def changes(written: Sequence[str]) -> dict[str, Any]:
    """Return the overrides that texts such as `tile.size=800` stand for, their values read as in a file."""
    found = {}
    for text in written:
        key, mark, value = text.partition("=")
        if not mark:
            raise ConfigError("speck", "--set", repr(text), "KEY=VALUE, such as tile.size=800")
        found[key] = yaml.value(key, value, _NAMES)
    return found


def _with(path: Path, values: dict[str, Any], key: str, steps: Sequence[str], value: Any) -> dict[str, Any]:
    """Return the values of a section with one below it replaced."""
    first, *rest = steps
    if rest:
        below = values.get(first)
        if not isinstance(below, dict | None):
            raise ConfigError(path, key, f"{first}: {below!r} in the file", "a section of settings")
        value = _with(path, below or {}, key, rest, value)
    return {**values, first: value}


def _validate(path: Path, values: dict[str, Any], written: Written) -> Config:
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        errors = [(_key(values, found), found) for found in error.errors()]
        key, first = max(errors, key=lambda each: len(each[0]))  # of a choice of forms, the one that fits furthest
        here = [found for place, found in errors if place == key]
        found = repr(_as_written(first["input"], written.get(".".join(map(str, first["loc"][:2])), {})))
        expected = " or ".join(dict.fromkeys(_expected(error) for error in here))
        if first["type"] == "missing":
            found, expected = "nothing", "a value"
        elif first["type"] == "extra_forbidden":
            found, expected = "an unknown key", f"one of {', '.join(_siblings(first['loc']))}"
        more = f" (other errors: {len(errors) - len(here)})" if len(errors) > len(here) else ""
        raise ConfigError(path, ".".join(key), found, expected + more) from error


def _as_written(value: Any, texts: Mapping[str, str]) -> Any:
    """Return a value that is wrong as its file has it, so that no message holds the value of a variable."""
    if isinstance(value, dict):
        return {name: _as_written(part, texts) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_as_written(part, texts) for part in value]
    return texts.get(value, value) if isinstance(value, str) else value


def _expected(error: ErrorDetails) -> str:
    return error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")


def _key(values: Any, error: ErrorDetails) -> tuple[str, ...]:
    """Return the keys that lead to an error, without the forms that were tried for a value on the way."""
    key = []
    for part in error["loc"]:
        if _has(values, part):
            values = values[part]
        elif part != error["loc"][-1] or error["type"] != "missing":
            continue
        key.append(str(part))
    return tuple(key)


def _has(values: Any, part: int | str) -> bool:
    if isinstance(values, list):
        return isinstance(part, int) and part < len(values)
    return isinstance(values, dict) and part in values


def _siblings(loc: tuple[int | str, ...]) -> list[str]:
    """Return the keys that are known where an unknown one was found."""
    model: Any = Config
    for part in loc[:-1]:
        field = getattr(model, "model_fields", {}).get(part)
        model = field.annotation if field is not None else _FORMS.get(str(part))  # a tag: one of several forms
    return sorted(getattr(model, "model_fields", {}))
