"""A label reader of the user's own, named `package.module:function` in `source.format`."""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import ClassVar

from etl.errors import ConfigError, SourceError
from etl.formats.labels import ImageLabels
from etl.ids import digest

Labels = tuple[str | None, str, ImageLabels]
_EXPECTED = "a function(files, images) that yields (image path or None, file name, ImageLabels)"


@dataclass(frozen=True)
class CustomReader:
    """A dataset reader around the user's function; it checks what the function yields."""

    name: str
    function: Callable[[Mapping[str, bytes], Sequence[str]], Iterable[Labels]]
    SUFFIX: ClassVar[str] = ""  # any file may be a label file

    def read_dataset(self, files: Mapping[str, bytes], images: Sequence[str]) -> Iterator[Labels]:
        """Yield what the function yields; SourceError for anything but the labels of a listed image."""
        listed, read = frozenset(images), set[str]()
        result = self.function(files, images)
        if not isinstance(result, Iterable):
            raise SourceError(f"{self.name} returned {type(result).__name__}, expected {_EXPECTED}")
        for entry in result:
            if not (isinstance(entry, tuple) and len(entry) == 3 and isinstance(entry[2], ImageLabels)):
                raise SourceError(f"{self.name} yielded {type(entry).__name__} {entry!r:.200}, expected {_EXPECTED}")
            path = entry[0]
            if path is not None and path not in listed:
                raise SourceError(f"{self.name} yielded image {path!r}, expected one of the listed images or None")
            if path is not None and path in read:
                raise SourceError(f"{self.name} yielded image {path!r} twice, expected every image once")
            if path is not None:
                read.add(path)
            yield entry

    @cached_property
    def code(self) -> str:
        """Digest of the Python files in the folder of the function's module; empty if it has no file."""
        module = sys.modules.get(getattr(self.function, "__module__", ""))
        file = getattr(module, "__file__", None)
        return "" if file is None else _code_of(Path(file).parent)


def load_reader(name: str, dataset: str = "") -> CustomReader:
    """Return the reader `package.module:function`, or `/folder/package.module:function` of a module in that folder.

    A module in a folder is imported under a package name of its own, not through sys.path: modules of one name in two
    folders do not meet, a changed file is imported again, and the module imports its neighbours relatively
    (`from .tables import rows`). ConfigError if there is no such module or function.
    """
    place, _, function = name.rpartition(":")
    folder, _, module = place.rpartition("/")
    try:
        imported = importlib.import_module(f"{_package(folder, module)}.{module}" if folder else module)
    except (ImportError, SyntaxError) as error:
        raise ConfigError(dataset, "source.format", f"{name!r}: {error}", _EXPECTED) from error
    found = getattr(imported, function, None)
    if not callable(found):
        what = f"no {function} in {imported.__file__}" if found is None else f"{function} is a {type(found).__name__}"
        raise ConfigError(dataset, "source.format", f"{name!r}: {what}", _EXPECTED)
    return CustomReader(name, found)


def _package(folder: str, module: str) -> str:
    """Return the name of a package, made if need be, in which the modules of a folder are imported."""
    code = _code_of(Path(folder, *module.split(".")[:-1]))
    name = f"speck_reader_{digest(folder, code)[:16]}"
    if name not in sys.modules:
        package = ModuleType(name)
        package.__path__ = [folder]
        sys.modules[name] = package
        importlib.invalidate_caches()
    return name


def _code_of(folder: Path) -> str:
    """Return a digest of the Python files that lie directly in a folder."""
    return digest([(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in sorted(folder.glob("*.py"))])
