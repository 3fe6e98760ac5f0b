"""A YAML file of settings as plain values, its class names as text: `0`, `no` and `1.5` stay as written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from etl.config import yaml_bounds
from etl.errors import ConfigError

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # PyYAML without libyaml
    from yaml import SafeLoader  # type: ignore[assignment]


def read(path: Path, names: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    """Return the settings of a file, scalars below the keys `names` as text; ConfigError if it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(path, "", "no such file", "a dataset file (YAML)") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(path, "", error, "a readable UTF-8 YAML file") from error
    try:
        values, texts = _load(path, text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(path, "", f"invalid YAML: {' '.join(str(error).split())}", "valid YAML") from error
    if not isinstance(values, dict):
        raise ConfigError(path, "", type(values).__name__, "a mapping of settings")
    for place in names:
        _take_text(values, texts, place)
    return values


def value(key: str, text: str, names: Sequence[tuple[str, ...]]) -> Any:
    """Return the value that a text has at a dotted key of a file; ConfigError if it is no YAML."""
    steps = key.split(".")
    try:
        values, texts = _load(Path(key), text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError("--set", key, repr(text), f"a value in YAML ({' '.join(str(error).split())})") from error
    for step in reversed(steps):
        values, texts = {step: values}, {step: texts}
    for place in names:
        _take_text(values, texts, place)
    for step in steps:
        values = values[step]
    return values


def text(values: dict[str, Any]) -> str:
    """Return settings as the text of a file that reads back to them."""
    return yaml.safe_dump(values, allow_unicode=True, sort_keys=False)


def _load(path: Path, text: str) -> tuple[Any, Any]:
    """Return the content of a YAML text twice: as values, and with every scalar as its text."""
    try:
        duplicates = yaml_bounds.check(text)
    except yaml_bounds.TooLargeError as error:
        raise ConfigError(path, "", error.found, error.expected) from error
    for key, line in duplicates:
        raise ConfigError(path, key, f"a duplicate on line {line}", "each key once")
    loaders = _StrictLoader(text), _TextLoader("")
    try:
        node = loaders[0].get_single_node()
        values, texts = (None if node is None else loader.construct_document(node) for loader in loaders)
        return values, texts
    finally:
        for loader in loaders:
            loader.dispose()


def _take_text(values: Any, texts: Any, place: tuple[str, ...]) -> None:
    """Put the text as written in the place of the parsed scalars below one key, in place."""
    *path, last = place
    for key in path:
        values, texts = (values.get(key), texts.get(key)) if isinstance(values, dict) else (None, None)
    if not isinstance(values, dict) or values.get(last) is None:
        return
    parsed, text = values[last], texts[last]
    if isinstance(text, dict):  # the settings among names: numbers, and what is left empty
        settings = {key: value for key, value in parsed.items() if key == "min_side" or value is None}
        text = {key: settings.get(key, written) for key, written in text.items()}
    values[last] = text


class _StrictLoader(SafeLoader):
    """A SafeLoader, in C where there is one, that refuses a value that holds itself."""

    def construct_document(self, node: yaml.Node) -> Any:
        self.deep_construct = True
        return super().construct_document(node)


class _TextLoader(_StrictLoader):
    """A loader that gives every scalar as the text written."""


def _written(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    return str(node.value)


for _tag in ("null", "bool", "int", "float", "timestamp"):
    _TextLoader.add_constructor(f"tag:yaml.org,2002:{_tag}", _written)
