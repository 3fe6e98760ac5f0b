"""Read category names in the order of their ids from a list, a names file or a data.yaml."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import yaml

from etl.config import yaml_bounds
from etl.errors import ConfigError
from etl.formats.text import decode

_YAML = (".yaml", ".yml")
_PLAIN = ("classes.txt", "names.txt")
_DIGITS = 10


def read_names(source: bytes | Sequence[str], where: str) -> list[str]:
    """Return the names in a list or a file's content; ConfigError for empty, repeated or missing names."""
    if not isinstance(source, bytes):
        found = [name.strip() for name in source]
    elif PurePosixPath(where).suffix.lower() in _YAML:
        found = _from_yaml(source, where)
    else:
        found = _from_lines(source, where)
    if "" in found:
        raise ConfigError("", f"{where}: line {found.index('') + 1}", "an empty name", "one name for every id")
    if twice := sorted(name for name, count in Counter(found).items() if count > 1):
        raise ConfigError("", f"{where}: names", f"{twice[0]!r} twice", "every name once")
    if not found:
        raise ConfigError("", f"{where}: names", "no names", "at least one name")
    return found


def find_names(files: Mapping[str, bytes]) -> tuple[str, list[str]] | None:
    """Return path and names of the names file nearest the root: YAML with `names`, else *.names or classes.txt."""
    by_depth = sorted(filter(is_names_file, files), key=lambda path: (path.count("/"), path))
    for path in by_depth:
        if PurePosixPath(path).suffix.lower() in _YAML:
            document = yaml_mapping(files[path], path)
            if document is not None and "names" in document:
                return path, read_names(files[path], path)
    for path in by_depth:
        if PurePosixPath(path).suffix.lower() not in _YAML:
            return path, read_names(files[path], path)
    return None


def read_kpt_shape(data: bytes, where: str) -> tuple[int, int] | None:
    """Return the `kpt_shape` of a data.yaml, None if it has none; ConfigError unless it is two whole numbers."""
    document = yaml_mapping(data, where)
    if document is None or not {"names", "kpt_shape"} <= document.keys():  # without names it may describe a model
        return None
    written = document["kpt_shape"]
    sides = [int(text) for text in written if _is_number(text)] if isinstance(written, list) else []
    if len(sides) == len(written) == 2 and sides[0] > 0 and sides[1] in (2, 3):
        return sides[0], sides[1]
    raise ConfigError("", f"{where}: kpt_shape", written, "[points, 2 or 3], the numbers of a keypoint")


def yaml_mapping(data: bytes, where: str) -> dict[str, Any] | None:
    """Return the mapping in a YAML file with all scalars as text; None if there is none.

    ConfigError for a file that is too large to be read, and for a key that is written twice in one that names classes.
    """
    text = decode(data)
    if text is None:
        return None
    try:
        duplicates = yaml_bounds.check(text)
        document = yaml.load(text, Loader=yaml_bounds.BaseLoader)  # noqa: S506 - constructs strings only
    except yaml_bounds.TooLargeError as error:
        raise ConfigError("", where, error.found, f"{error.expected}, or no YAML file beside the images") from error
    except (yaml.YAMLError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    if "names" in document and duplicates:
        key, line = duplicates[0]
        raise ConfigError("", f"{where}: {key}", f"a duplicate on line {line}", "each key once")
    return document


def _from_yaml(data: bytes, where: str) -> list[str]:
    document = yaml_mapping(data, where)
    if document is None or "names" not in document:
        raise ConfigError("", f"{where}: names", "no such key", "a YAML file with `names`, a list or {id: name}")
    written = document["names"]
    if isinstance(written, list) and all(isinstance(name, str) for name in written):
        return [name.strip() for name in written]
    if isinstance(written, dict) and all(isinstance(name, str) for name in written.values()):
        by_id = {int(key): name.strip() for key, name in written.items() if _is_number(key)}
        if sorted(by_id) == list(range(len(written))):
            return [by_id[index] for index in range(len(by_id))]
        raise ConfigError(
            "", f"{where}: names", f"ids {', '.join(written)}", f"ids 0 to {len(written) - 1} without gaps"
        )
    raise ConfigError("", f"{where}: names", type(written).__name__, "a list of names or {id: name}")


def _is_number(text: object) -> bool:
    """Return whether a value is the text of a whole number, of fewer digits than Python refuses to read."""
    return isinstance(text, str) and text.isdecimal() and len(text) < _DIGITS


def _from_lines(data: bytes, where: str) -> list[str]:
    text = decode(data)
    if text is None:
        raise ConfigError("", where, "undecodable bytes", "a text file with one name per line")
    # Blank lines in between stay: dropping one would shift all later ids.
    return [
        line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").rstrip().split("\n") if text.strip()
    ]


def is_names_file(path: str) -> bool:
    """Return whether `find_names` reads a file of this name."""
    name = PurePosixPath(path.lower())
    return name.suffix in (*_YAML, ".names") or name.name in _PLAIN
