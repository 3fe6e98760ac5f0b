"""Detect changes of a source by comparing a digest of its file listings with the last one stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from etl.config import Config, SplitLists
from etl.document import Document
from etl.errors import StoreError
from etl.ids import digest
from etl.sources.label_files import list_source_folder
from etl.storage import mended, store
from etl.storage.paths import DatasetPaths
from etl.storage.store import FileInfo


class _Saved(Document):
    fingerprint: str


def fingerprint(config: Config) -> str:
    """Return a digest that changes when a file of the source is added, removed or modified; no file is opened."""
    return digest(_list_files(config))


def load_fingerprint(config: Config) -> str | None:
    """Return the fingerprint saved last, None before the first; a damaged file counts as that of another listing."""
    uri = _uri(config)
    if not store.exists(uri):
        return None
    try:
        return _Saved.from_json(uri, store.read_bytes(uri)).fingerprint
    except StoreError as error:
        mended.report(error, "the source counts as changed")
        return ""


def save_fingerprint(config: Config, value: str) -> None:
    """Store the fingerprint that later polls compare with."""
    store.write_json(_uri(config), {"fingerprint": value})


class Watcher:
    """Polls a source and reports each change once."""

    def __init__(self) -> None:
        self._previous: str | None = None  # fingerprint of the poll before

    def poll(self, config: Config) -> bool:
        """Return whether the source has changed and the change is complete.

        A change is complete when two consecutive polls list the same files, so that a batch still being copied does not
        count. The first poll of a dataset only saves the fingerprint. A change is reported once, also to other
        watchers, and not at all if a build has read it meanwhile. A source without image files counts as unreachable,
        not as changed.
        """
        files = _list_files(config)
        if not dict(files)[config.source.images]:
            return False
        current, previous = digest(files), self._previous
        self._previous = current
        saved = load_fingerprint(config)
        if saved is not None and (current == saved or current != previous):
            return False
        save_fingerprint(config, current)
        return saved is not None


def _list_files(config: Config) -> list[tuple[str, list[tuple[str, int, str]]]]:
    """Return each configured location with path, size and stamp of its files."""
    return [(location, sorted(_files_at(config, location))) for location in dict.fromkeys(_locations(config))]


def _locations(config: Config) -> Iterator[str]:
    source = config.source
    yield source.images
    yield from source.annotations
    if isinstance(source.categories, str):
        yield source.categories
    if isinstance(source.split, SplitLists):
        yield from (*source.split.train, *source.split.val, *source.split.test)


def _files_at(config: Config, location: str) -> Iterator[tuple[str, int, str]]:
    """Yield path, size and stamp of each file in a folder, of a single file, or of a glob pattern's matches."""
    if store.is_folder(location):
        files: Sequence[FileInfo] = list_source_folder(config, location).files
    else:
        files = [store.file_info(location)] if store.exists(location) else store.list_matching(location)
    yield from ((file.path, file.size, file.stamp) for file in files)


def _uri(config: Config) -> str:
    return DatasetPaths(config.home).watch
