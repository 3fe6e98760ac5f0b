"""A reader of the user's own, named `package.module:function`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from etl.errors import ConfigError, SourceError
from etl.formats.labels import ImageLabels

Labels = tuple[str | None, str, ImageLabels]
_EXPECTED = "a function(files, images) that yields (image path or None, file name, ImageLabels)"


@dataclass(frozen=True, slots=True)
class CustomReader:
    """A dataset reader around the user's function, which holds it to what readers promise."""

    name: str
    function: Callable[[Mapping[str, bytes], Sequence[str]], Iterable[Labels]]
    SUFFIX: ClassVar[str] = ""  # any file may be one of its own

    def read_dataset(self, files: Mapping[str, bytes], images: Sequence[str]) -> Iterator[Labels]:
        """Yield what the function yields; SourceError for anything that is no labels of a listed image."""
        present, seen = frozenset(images), set[str]()
        result = self.function(files, images)
        if not isinstance(result, Iterable):
            raise SourceError(f"{self.name} returned {type(result).__name__}, expected {_EXPECTED}")
        for entry in result:
            if not (isinstance(entry, tuple) and len(entry) == 3 and isinstance(entry[2], ImageLabels)):
                raise SourceError(f"{self.name} yielded {type(entry).__name__} {entry!r:.200}, expected {_EXPECTED}")
            path = entry[0]
            if path is not None and path not in present:
                raise SourceError(f"{self.name} yielded image {path!r}, expected one of the listed images or None")
            if path is not None and path in seen:
                raise SourceError(f"{self.name} yielded image {path!r} twice, expected every image once")
            if path is not None:
                seen.add(path)
            yield entry


def load(name: str) -> CustomReader:
    """Return the reader named `package.module:function`; ConfigError when there is none."""
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError("", "source.format", f"{name!r}: {error}", _EXPECTED) from error
    if not callable(found):
        raise ConfigError("", "source.format", f"{name!r}, a {type(found).__name__}", _EXPECTED)
    return CustomReader(name, found)
