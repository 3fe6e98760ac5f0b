"""Reads the compose files as `docker compose` does: variables replaced, files merged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

DOCKER = Path(__file__).resolve().parents[2] / "docker"
FILES = ("compose.yaml", "compose.gpu.yaml")
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


class Variable(NamedTuple):
    name: str
    default: str | None
    message: str | None  # for whoever has not set it


def variables(text: str) -> list[Variable]:
    """Return every use of a variable in a compose file's text."""
    return [
        Variable(name, rest if kind == "-" else None, rest if kind == "?" else None)
        for name, kind, rest in _VARIABLE.findall(text.replace("$$", ""))
    ]


def interpolated(value: Any, environ: Mapping[str, str]) -> Any:
    """Return a parsed compose file with the variables in its texts replaced; KeyError for a required one not set."""
    if isinstance(value, dict):
        return {key: interpolated(inner, environ) for key, inner in value.items()}
    if isinstance(value, list):
        return [interpolated(inner, environ) for inner in value]
    if not isinstance(value, str):
        return value
    return _VARIABLE.sub(
        lambda found: (environ.get(found[1]) or found[3]) if found[2] == "-" else environ[found[1]], value
    )


def merged(base: Any, other: Any) -> Any:
    """Return two parsed compose files as one: mappings key by key, lists one after the other, the rest replaced."""
    if isinstance(base, dict) and isinstance(other, dict):
        return base | {key: merged(base[key], value) if key in base else value for key, value in other.items()}
    return base + other if isinstance(base, list) and isinstance(other, list) else other


def read(*names: str) -> dict[str, Any]:
    """Return compose files as one, every variable at its default, and those without one at `set`."""
    found: dict[str, Any] = {}
    for name in names:
        text = (DOCKER / name).read_text(encoding="utf-8")
        environ = {variable.name: "set" for variable in variables(text) if variable.default is None}
        found = merged(found, interpolated(yaml.safe_load(text), environ))
    return found


@pytest.fixture(scope="session")
def services() -> dict[str, dict[str, Any]]:
    """The services of compose.yaml by name."""
    return dict(read("compose.yaml")["services"])


@pytest.fixture(scope="session")
def with_gpu() -> dict[str, Any]:
    """compose.yaml and compose.gpu.yaml as one file."""
    return read(*FILES)


@pytest.fixture(scope="session")
def used() -> list[Variable]:
    """Every use of a variable in the compose files."""
    return [found for name in FILES for found in variables((DOCKER / name).read_text(encoding="utf-8"))]
