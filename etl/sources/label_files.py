"""The label files of a source: where they are, and their content."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import PurePosixPath

from etl.config import Config
from etl.errors import ConfigError
from etl.ids import normal_path
from etl.storage import store


class LabelContents(Mapping[str, bytes]):
    """The content of the label files by listed path, read on access."""

    def __init__(self, uris: Mapping[str, str]) -> None:
        self._uris = uris

    def __getitem__(self, path: str) -> bytes:
        return store.read_bytes(self._uris[path])

    def __iter__(self) -> Iterator[str]:
        return iter(self._uris)

    def __len__(self) -> int:
        return len(self._uris)


def find_label_files(
    config: Config, suffix: str, listings: Mapping[str, Sequence[store.FileInfo]]
) -> tuple[dict[str, str], dict[str, tuple[int, str]]]:
    """Return the label files' URIs, and sizes and stamps, by listed path; `listings` are those of known folders."""
    uris: dict[str, str] = {}
    sizes: dict[str, tuple[int, str]] = {}

    def add(path: str, uri: str, info: tuple[int, str]) -> None:
        path = normal_path(printable(path))
        while path in uris and uris[path] != uri:  # two roots with equal names below them
            path = f"{PurePosixPath(uri.removesuffix('/' + path)).name}/{path}"
        uris[path], sizes[path] = uri, info

    for place in config.source.annotations or (config.source.images,):
        if place in listings or store.is_folder(place):
            for file in listings.get(place) or store.list_files(place):
                if file.path.lower().endswith(suffix):
                    add(file.path, store.join(place, file.path), (file.size, file.stamp))
            continue
        found = [place] if store.exists(place) else store.glob(place) if any(mark in place for mark in "*?[") else []
        if not found:
            raise ConfigError(
                config.name, "source.annotations", f"nothing at {place}", "a file, folder or pattern of label files"
            )
        for folder, uris_in in groupby(found, key=lambda uri: uri.rpartition("/")[0]):
            infos = {file.path: (file.size, file.stamp) for file in store.list_files(folder)}
            for uri in uris_in:
                name = uri.rpartition("/")[2]
                add(_below(uri, config.source.images) or name, uri, infos.get(name, (0, "")))
    return dict(sorted(uris.items())), sizes


def _below(uri: str, root: str) -> str | None:
    prefix = root.rstrip("/") + "/"
    return uri.removeprefix(prefix) if uri.startswith(prefix) else None


def printable(path: str) -> str:
    """Return the path as valid Unicode, with bytes that are not UTF-8 escaped."""
    return path.encode(errors="backslashreplace").decode()
