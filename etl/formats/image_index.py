"""Find the listed image that a path in a label file or list refers to."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from etl.formats.folders import split_in_name

_ABSOLUTE = re.compile(r"/|[A-Za-z]:")


def split_in_path(path: str) -> str | None:
    """Return the split in the name of the innermost folder that has one: val for `DET-val/images`; None if none has."""
    return next(filter(None, map(split_in_name, reversed(path.split("/")))), None)


def resolve_path(folder: str, written: str) -> str | None:
    """Return a path, written relative to a folder, relative to the root; None if it is absolute or leaves the root."""
    text = unicodedata.normalize("NFC", written.strip().replace("\\", "/"))
    if not text or "\0" in text or _ABSOLUTE.match(text):
        return None
    path = posixpath.normpath(posixpath.join(folder, text))
    return None if path in (".", "..") or path.startswith("../") else path


class ImageIndex:
    """The images of a source, to look up by path, by the end of a path, or by stem."""

    def __init__(self, images: Sequence[str]) -> None:
        self._by_path = {unicodedata.normalize("NFC", image): image for image in sorted(images)}
        self._by_key: dict[Callable[[str], str], Mapping[str, list[str]]] = {}

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        names: defaultdict[str, list[str]] = defaultdict(list)
        for path in self._by_path:
            names[posixpath.basename(path)].append(path)
        return dict(names)

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        stems: defaultdict[str, list[str]] = defaultdict(list)
        for path in self._by_path:
            stems[posixpath.splitext(posixpath.basename(path))[0]].append(path)
        return dict(stems)

    def at(self, path: str | None) -> str | None:
        """Return the image at exactly this path."""
        return None if path is None else self._by_path.get(path)

    def ending_with(self, tail: str) -> list[str]:
        """Return the images whose path equals the tail or ends with it after a slash."""
        found = self._by_name.get(posixpath.basename(tail), ())
        return [self._by_path[path] for path in found if path == tail or path.endswith(f"/{tail}")]

    def with_stem(self, stem: str) -> list[str]:
        """Return the images whose path without extension equals the stem or ends with it after a slash."""
        stem = unicodedata.normalize("NFC", stem)
        found = self._by_stem.get(posixpath.basename(stem), ())
        cut = {path: posixpath.splitext(path)[0] for path in found}
        return [self._by_path[path] for path in found if cut[path] == stem or cut[path].endswith(f"/{stem}")]

    def by_name(self, key: Callable[[str], str]) -> Mapping[str, list[str]]:
        """Return the images by a key of their file names, which is computed once."""
        if key not in self._by_key:
            keys: defaultdict[str, list[str]] = defaultdict(list)
            for path, image in self._by_path.items():
                keys[key(posixpath.basename(path))].append(image)
            self._by_key[key] = dict(keys)
        return self._by_key[key]

    def below(self, folder: str) -> list[str]:
        """Return the images in a folder and its subfolders; an empty folder is the root."""
        start = "" if folder in ("", ".") else f"{folder}/"
        return [image for path, image in self._by_path.items() if path.startswith(start)]

    def nearest(self, written: str) -> str | None:
        """Return the image that shares the longest path end with a path of another machine; None if several do."""
        parts = [
            part
            for part in re.split(r"[\\/]", unicodedata.normalize("NFC", written.strip()))
            if part not in ("", ".", "..")
        ]
        for start in range(len(parts)):
            found = self.ending_with("/".join(parts[start:]))
            if found:
                return found[0] if len(found) == 1 else None
        return None
