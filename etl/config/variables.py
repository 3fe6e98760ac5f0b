"""Resolve a dataset file: ${NAME} and ${NAME:-default}, relative paths, and a label reader beside the file."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etl.config.base import VARIABLE
from etl.config.written import Written, anchor, strings
from etl.credentials import remember_variable, remove
from etl.errors import ConfigError

_PATHS = ("store", "source.images", "source.annotations", "source.categories", "source.split")
_READER = re.compile(r"(\w+(?:\.\w+)*):\w+")  # package.module:function


def expand(path: Path, values: dict[str, Any], default_store: str) -> dict[str, Any]:
    """Return a file's values with `store` and `source` resolved: variables expanded, paths absolute.

    ConfigError for a variable that is not set, a label reader of which there is no module, and a file in a folder whose
    path is not UTF-8.
    """
    folder = _folder(path)
    values = dict(values)
    values["store"] = _path(folder, _substitute(path, "store", values.get("store", default_store)))
    if isinstance(train := values.get("train"), dict) and isinstance(train.get("weights"), str):
        values["train"] = {**train, "weights": remove(train["weights"])}
    if isinstance(values.get("source"), dict):
        source = {key: _substitute(path, f"source.{key}", value) for key, value in values["source"].items()}
        for key in ("images", "annotations"):
            if key in source:
                source[key] = _paths(folder, source[key])
        if isinstance(source.get("format"), str):
            source["format"] = _reader(path, folder, source["format"])
        if isinstance(source.get("categories"), str):
            source["categories"] = _path(folder, source["categories"])
        if isinstance(source.get("split"), dict) and "train" in source["split"]:
            source["split"] = {key: _paths(folder, value) for key, value in source["split"].items()}
        values["source"] = source
    return values


def find_written(path: Path, values: Mapping[str, Any], default_store: str) -> Written:
    """Return the texts with variables in `store` and `source`, by key and by the value that each is expanded to."""
    folder = _folder(path)
    source = values.get("source")
    texts = {f"source.{key}": value for key, value in source.items()} if isinstance(source, dict) else {}
    found: Written = {}
    for key, value in {"store": values.get("store", default_store), **texts}.items():
        for text in filter(VARIABLE.search, strings(value)):
            expanded = _substitute(path, key, text)
            is_path = key in _PATHS
            of_key = found.setdefault(key, {})
            of_key[_path(folder, expanded) if is_path else expanded] = anchor(folder, text) if is_path else text
    return found


def _folder(path: Path) -> Path:
    """Return the folder that relative paths start from; ConfigError if no UTF-8 file could name it."""
    folder = path.resolve().parent
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:
        raise ConfigError(path, "", f"the folder {str(folder)!r}", "a folder whose path is UTF-8") from error
    return folder


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
        if key != "store":  # its URIs are what commands print for the next command
            remember_variable(name, found)
        return found

    return VARIABLE.sub(variable, value)


def _reader(path: Path, folder: Path, name: str) -> str:
    """Return `module:function` with the folder in front, `/folder/module:function`, if the module is next to the file.

    The module is not imported.
    """
    match = _READER.fullmatch(name)
    if match is None:
        return name
    module = folder.joinpath(*match[1].split("."))
    if Path(f"{module}.py").is_file() or (module / "__init__.py").is_file():
        return f"{folder.as_posix()}/{name}"
    if not _is_installed(match[1].partition(".")[0]):
        expected = f"{module.relative_to(folder)}.py beside the file, or an installed module {match[1]}"
        raise ConfigError(path, "source.format", f"{name!r}, but no such module", expected)
    return name


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # a module without a spec, such as __main__
        return False


def _paths(folder: Path, value: Any) -> Any:
    return [_path(folder, v) for v in value] if isinstance(value, list) else _path(folder, value)


def _path(folder: Path, value: Any) -> Any:
    if not isinstance(value, str) or "://" in value:
        return remove(value) if isinstance(value, str) else value
    return os.path.normpath(folder / os.path.expanduser(value))  # noqa: PTH111 - an unknown user's home stays as written
