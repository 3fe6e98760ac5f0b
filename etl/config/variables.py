"""What a dataset file leaves to its surroundings: ${NAME} and ${NAME:-default}, and paths relative to the file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etl.errors import ConfigError

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def expand(path: Path, values: dict[str, Any], default_store: str) -> dict[str, Any]:
    """Return a file's values with ${NAME} expanded and relative paths made absolute, in `store` and `source` only."""
    folder = path.resolve().parent
    values = dict(values)
    values["store"] = _path(folder, _substitute(path, "store", values.get("store", default_store)))
    if isinstance(values.get("source"), dict):
        source = {key: _substitute(path, f"source.{key}", value) for key, value in values["source"].items()}
        for key in ("images", "annotations"):
            if key in source:
                source[key] = _paths(folder, source[key])
        if isinstance(source.get("categories"), str):
            source["categories"] = _path(folder, source["categories"])
        if isinstance(source.get("split"), dict) and "train" in source["split"]:
            source["split"] = {key: _paths(folder, value) for key, value in source["split"].items()}
        values["source"] = source
    return values


def _substitute(path: Path, key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _substitute(path, f"{key}.{k}", v) for k, v in value.items()}
    if isinstance(value, list):
        return [_substitute(path, key, v) for v in value]
    if not isinstance(value, str):
        return value

    def variable(match: re.Match[str]) -> str:
        name, default = match.groups()
        found = os.environ.get(name) or default
        if found is None:
            raise ConfigError(
                path, key, f"${{{name}}}, which is not set", f"the environment variable {name} or a default"
            )
        return found

    return _VARIABLE.sub(variable, value)


def _paths(folder: Path, value: Any) -> Any:
    return [_path(folder, v) for v in value] if isinstance(value, list) else _path(folder, value)


def _path(folder: Path, value: Any) -> Any:
    if not isinstance(value, str) or "://" in value:
        return value
    return os.path.normpath(folder / os.path.expanduser(value))  # noqa: PTH111 - an unknown user's home stays as written
