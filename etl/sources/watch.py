"""Whether a source holds something new: a digest of its listings beside the one that was seen last."""

from __future__ import annotations

from collections.abc import Iterator

from etl.config import Config, SplitLists
from etl.ids import digest
from etl.storage import store


def fingerprint(config: Config) -> str:
    """Return a digest that changes when a file of the source comes, goes or changes; no file is opened."""
    return digest(_listed(config))


def last_seen(config: Config) -> str | None:
    """Return the fingerprint that is no news any more, None before the first was noted."""
    uri = _uri(config)
    return str(store.read_json(uri)["fingerprint"]) if store.exists(uri) else None


def note(config: Config, seen: str) -> None:
    """Remember what the source held: only what differs from it is news."""
    store.write_json(_uri(config), {"fingerprint": seen})


class Watch:
    """Looks at a source again and again."""

    def __init__(self) -> None:
        self._before: str | None = None

    def look(self, config: Config) -> bool:
        """Return whether the source holds news that has come to rest: the same at two looks, unlike what was seen last.

        A batch that is still being copied is none yet, and the first look ever is where it starts from. News is told
        once, also to a later watch, and what a build has read meanwhile is none. A source that is away is none either.
        """
        listed = _listed(config)
        if not dict(listed)[config.source.images]:
            return False
        now, before = digest(listed), self._before
        self._before = now
        known = last_seen(config)
        if known is not None and (now == known or now != before):
            return False
        note(config, now)
        return known is not None


def _listed(config: Config) -> list[tuple[str, list[tuple[str, int, str]]]]:
    """Return each place of the source with path, size and stamp of its files."""
    return [(place, sorted(_files(place))) for place in dict.fromkeys(_places(config))]


def _places(config: Config) -> Iterator[str]:
    source = config.source
    yield source.images
    yield from source.annotations
    if isinstance(source.categories, str):
        yield source.categories
    if isinstance(source.split, SplitLists):
        yield from (*source.split.train, *source.split.val, *source.split.test)


def _files(place: str) -> Iterator[tuple[str, int, str]]:
    """Yield path, size and stamp of each file at a place: a folder, a file or a pattern; nothing where nothing is."""
    if store.is_folder(place):
        yield from ((file.path, file.size, file.stamp) for file in store.listing(place))
        return
    found = [store.info(place)] if store.exists(place) else store.matching(place)
    yield from ((file.path, file.size, file.stamp) for file in found)


def _uri(config: Config) -> str:
    return store.join(config.home, "watch.json")
