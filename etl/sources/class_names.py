"""Find the class names that the configuration gives, or that lie with YOLO labels, which hold class indices only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from glob import escape
from pathlib import PurePosixPath

from etl.config import Config
from etl.errors import ConfigError
from etl.findings import Finding, finding
from etl.formats import categories
from etl.storage import store
from etl.storage.listing import is_special

_LEVELS = 3  # folders above images and labels that are looked into
_PATTERNS = ("*.yaml", "*.yml", "*.names", "classes.txt", "names.txt")
_ENDINGS = tuple(pattern.removeprefix("*") for pattern in _PATTERNS)
_EXPECTED = "a names file, a data.yaml or a list"


def configured_names(config: Config) -> list[str] | None:
    """Return the class names of `source.categories`, None if it is not set."""
    given = config.source.categories
    if given is None:
        return None
    if not isinstance(given, str):
        return list(given)
    if not store.exists(given):
        raise ConfigError(config.name, "source.categories", f"no file {given}", _EXPECTED)
    if store.is_folder(given) or is_special(given):
        raise ConfigError(config.name, "source.categories", f"{given}, which is no regular file", _EXPECTED)
    return list(categories.read_names(store.read_bytes(given), given))


def find_yolo_names(config: Config, *listings: Mapping[str, str]) -> tuple[list[str], list[Finding]]:
    """Return the class names in the files of a listing (path to URI), else in the folders above, which is a finding.

    ConfigError if there are none.
    """
    for uris in listings:
        named = {path: uri for path, uri in uris.items() if path.lower().endswith(_ENDINGS)}
        texts = {path: store.read_bytes(uri) for path, uri in named.items() if categories.is_names_file(path)}
        if (found := categories.find_names(texts)) is not None:
            return found[1], []
    folders = list(folders_above(config))
    for folder in folders:
        if (found := _names_in(folder)) is not None:
            advice = f"Class names are those of {found[0]}, above images and labels: set source.categories to it."
            return found[1], [finding("names_above", advice, [found[0]], count=len(found[1]))]
    nothing = f"no data.yaml and no names file beside the labels or above them up to {folders[-1]}"
    raise ConfigError(config.name, "source.categories", nothing, f"source.categories: {_EXPECTED}")


def folders_above(config: Config) -> Iterator[str]:
    """Yield the folders above images and labels, nearest first, at most three levels up."""
    source = config.source
    above = [place.rstrip("/") for place in (source.images, *source.annotations)]
    seen: set[str] = set()
    for _ in range(_LEVELS):
        above = [parent for place in above if (parent := place.rpartition("/")[0]) and not parent.endswith(":/")]
        for folder in above:
            if folder not in seen:
                seen.add(folder)
                yield folder


def _names_in(folder: str) -> tuple[str, list[str]] | None:
    """Return URI and names of the names file that lies directly in a folder."""
    names = [uri for pattern in _PATTERNS for uri in store.glob(f"{escape(folder)}/{pattern}")]
    texts = {PurePosixPath(uri).name: store.read_bytes(uri) for uri in names if not is_special(uri)}
    mappings = {name: categories.yaml_mapping(text, f"{folder}/{name}") for name, text in texts.items()}
    texts = {name: text for name, text in texts.items() if "names" in (mappings[name] or {"names": 0})}
    found = categories.find_names(texts)
    return None if found is None else (f"{folder}/{found[0]}", found[1])
