"""The images and videos that paths, folders, patterns and URIs name, and the name of each in the results."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from etl.errors import ConfigError
from etl.imaging.formats import EXTENSIONS
from etl.storage import store

VIDEOS = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v"})
RESULTS = "detections.json"  # in a folder that `speck predict` wrote into
_KNOWN = EXTENSIONS | VIDEOS
_WILDCARD = re.compile(r"[*?\[]")


def suffix_of(path: str) -> str:
    """Return the extension of a path in lower case."""
    return PurePosixPath(path).suffix.lower()


def expand_paths(paths: Sequence[str]) -> list[str]:
    """Return the image and video files that paths, folders, patterns and URIs name, each once.

    ConfigError if one names none.
    """
    return list(name_files(paths))


def name_files(paths: Sequence[str], out: str | None = None) -> dict[str, str]:
    """Return the files as `expand_paths` does, each with its name relative to the folder that was given.

    A file has the name of the file, one that matches a pattern its path below the folders without a wildcard. Files
    that would get one name have their paths as given, or in full where these lead upwards or are the same. Folders and
    patterns leave out what lies in the output folder `out`; ConfigError if they name that folder itself and it has
    results already.
    """
    found: dict[str, tuple[str, str]] = {}  # URI and name by full path: a file may be named twice
    for path in paths:
        for uri, name in _find_files(path, out):
            found.setdefault(_full_path(uri), (uri, name))
    return _distinguish({uri: (name, _given_path(uri), _full_path(uri)) for uri, name in found.values()})


def _distinguish(choices: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """Return for each URI the first of its names that no other one has."""
    names = {uri: first for uri, (first, *_) in choices.items()}
    for rank in (1, 2):
        uses = Counter(names.values())
        names = {uri: name if uses[name] == 1 else choices[uri][rank] for uri, name in names.items()}
    return {uri: name.replace("://", "/").lstrip("/") for uri, name in names.items()}


def _full_path(uri: str) -> str:
    """Return the one full path of a local file, however it was written; other URIs as they are."""
    local = store.local_path(uri)
    return uri if local is None else str(local.parent.resolve() / local.name)


def _given_path(uri: str) -> str:
    """Return the path of a file as it was given; in full if it leads out of the working folder."""
    local = store.local_path(uri)
    path = uri if local is None else os.path.normpath(local)
    return _full_path(uri) if path.startswith("..") else path


def _find_files(path: str, out: str | None) -> list[tuple[str, str]]:
    """Return the files that one path, folder, pattern or URI names, with their names; ConfigError if there are none."""
    expected = "image files, videos, folders, patterns or URIs of them"
    local, folder = store.local_path(path), path
    if local is not None and local.is_file():
        return [(path, local.name)]
    if local is not None and local.is_dir():
        found = [(store.join(path, file.path), file.path) for file in store.list_files(path)]
    elif glob.has_magic(path):
        folder = _WILDCARD.split(path, maxsplit=1)[0].rpartition("/")[0]
        found = [(file.path, _below(folder, file.path)) for file in store.list_matching(path)]
    elif local is None and store.exists(path):
        of_folder = store.list_files(path) if suffix_of(path) not in _KNOWN else []
        found = [(store.join(path, file.path), file.path) for file in of_folder]
        if not any(suffix_of(name) in _KNOWN for _, name in found):
            return [(path, PurePosixPath(path).name)]
    else:
        raise ConfigError("speck predict", "IMAGE", f"{path}, which does not exist", expected)
    if out is not None and (read := store.local_path(folder)) is not None:
        found = _without_results(found, read.resolve(), Path(out).resolve())
    found = [(uri, name) for uri, name in found if suffix_of(name) in _KNOWN]
    if not found:
        raise ConfigError("speck predict", "IMAGE", f"{path}, which holds no image or video", expected)
    return found


def _below(folder: str, uri: str) -> str:
    """Return the path of a file below a folder."""
    local = store.local_path(uri)
    return uri.removeprefix(folder).lstrip("/") if local is None else os.path.relpath(local, store.local_path(folder))


def _without_results(found: list[tuple[str, str]], folder: Path, out: Path) -> list[tuple[str, str]]:
    """Return the files found in a folder that do not lie in the output folder below it."""
    if folder == out and (out / RESULTS).exists():
        wrong = f"{out}, which is read as well and has the pictures of an earlier run"
        raise ConfigError("speck predict", "--out", wrong, "another folder, or one inside it")
    if folder.is_relative_to(out):
        return found
    return [(uri, name) for uri, name in found if not Path(_full_path(uri)).is_relative_to(out)]
