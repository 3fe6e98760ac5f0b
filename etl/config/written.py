"""The variables of a dataset file in the configurations that the store keeps: `${NAME}` as written, not its value."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from etl.config.base import VARIABLE
from etl.credentials import has_literal, remove, strip

Written = dict[str, dict[str, str]]  # by key of the file: each value that has variables, and the text it has there

_PLAIN_VARIABLE = re.compile(r"\$\{\w+\}")


def strings(value: Any) -> Iterator[str]:
    """Yield all texts in a value of a dataset file."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from strings(part)


def anchor(folder: Path, text: str) -> str:
    """Return the text of a path or URI so that it means the same wherever it is read, without literal credentials."""
    if "://" in text:
        return strip(text) if has_literal(_PLAIN_VARIABLE.sub("", text)) else text
    match = VARIABLE.match(text)
    if match is None:
        return os.path.join(folder, os.path.expanduser(text))  # noqa: PTH111, PTH118 - an unknown home stays as written
    name, default = match.groups()
    if value := os.environ.get(name):
        is_relative = not os.path.isabs(os.path.expanduser(value)) and "://" not in value  # noqa: PTH111, PTH117
        return str(folder / text) if is_relative else text
    return f"${{{name}:-{_absolute(folder, default)}}}{text[match.end() :]}"


def put_back(values: dict[str, Any], written: Written) -> dict[str, Any]:
    """Return the values of a configuration with the texts of its file in `store` and `source`."""
    return _map(values, lambda key, text: _text_of(text, written.get(key, {})))


def fill(values: dict[str, Any]) -> tuple[dict[str, Any], Written]:
    """Return what `put_back` returned with the values of this environment, and the texts; unset variables stay."""
    written: Written = {}

    def expand(key: str, text: str) -> str:
        if not VARIABLE.search(text):
            return text
        value = VARIABLE.sub(lambda match: os.environ.get(match[1]) or match[2] or match[0], text)
        if not VARIABLE.search(value):
            value = remove(value)
        if value.startswith("/"):
            value = os.path.normpath(value)
        written.setdefault(key, {})[value] = text
        return value

    return _map(values, expand), written


def _absolute(folder: Path, default: str) -> str:
    if "://" in default:
        return default
    return os.path.normpath(folder / os.path.expanduser(default))  # noqa: PTH111 - an unknown home stays as written


def _text_of(value: str, texts: Mapping[str, str]) -> str:
    """Return the text for a value, or for the folder it is in: the store of a trial is below that of the file."""
    for whole, text in texts.items():
        if value == whole or value.startswith(f"{whole}/"):
            return text + value[len(whole) :]
    return value


def _map(values: dict[str, Any], change: Callable[[str, str], str]) -> dict[str, Any]:
    """Return a configuration with the texts in `store` and `source` changed, each with its key."""
    source = {key: _map_strings(value, f"source.{key}", change) for key, value in values["source"].items()}
    return {**values, "store": change("store", values["store"]), "source": source}


def _map_strings(value: Any, key: str, change: Callable[[str, str], str]) -> Any:
    if isinstance(value, str):
        return change(key, value)
    if isinstance(value, Mapping):
        return {name: _map_strings(part, key, change) for name, part in value.items()}
    return [_map_strings(part, key, change) for part in value] if isinstance(value, list | tuple) else value
