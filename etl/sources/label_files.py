"""The label files of a source: where they are, their content, and the files beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import PurePosixPath

from etl.config import Config
from etl.errors import ConfigError
from etl.ids import normal_path
from etl.imaging.formats import EXTENSIONS
from etl.relative import relative_to
from etl.storage import store
from etl.storage.listing import FolderListing, SkippedEntry, is_special, list_folder, suffix_of


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


@dataclass(slots=True)
class LabelFiles:
    """Files by listed path: those with the suffix of label files, and the others that lie beside them."""

    uris: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, tuple[int, str]] = field(default_factory=dict)  # and stamps
    others: dict[str, str] = field(default_factory=dict)  # URIs; images only if there is no label file
    pictures: dict[str, str] = field(default_factory=dict)  # URIs of images in folders of labels
    aliases: dict[str, str] = field(default_factory=dict)  # path through a link -> listed path
    skipped: dict[str, SkippedEntry] = field(default_factory=dict)

    def add(self, path: str, uri: str, info: tuple[int, str]) -> None:
        """Add a label file; one of two with the same path is listed with the name of its folder."""
        path = normal_path(printable(path))
        while path in self.uris and self.uris[path] != uri:  # two roots with equal names below them
            path = f"{PurePosixPath(uri.removesuffix('/' + path)).name}/{path}"
        self.uris[path], self.sizes[path] = uri, info

    def add_folder(self, folder: str, listing: FolderListing, suffix: str) -> None:
        """Add the files of a folder."""
        for file in listing.files:
            uri = store.join(folder, file.path)
            if file.path.lower().endswith(suffix):
                self.add(file.path, uri, (file.size, file.stamp))
            else:
                kind = self.pictures if suffix_of(file.path) in EXTENSIONS else self.others
                kind[normal_path(printable(file.path))] = uri
        self.aliases |= listing.aliases
        self.skipped |= {entry.path: entry for entry in listing.skipped}


def find_label_files(config: Config, suffix: str, images: FolderListing) -> LabelFiles:
    """Return the files at `source.annotations`, else those in the folder of the images, which is already listed.

    Files that are configured one by one or by a pattern are label files with any suffix.
    """
    source, found = config.source, LabelFiles()
    for place in source.annotations or (source.images,):
        if place == source.images:
            found.add_folder(place, images, suffix)
        elif store.is_folder(place):
            found.add_folder(place, list_source_folder(config, place), suffix)
        else:
            _add_matching(config, place, found)
    found.uris = dict(sorted(found.uris.items()))
    if not found.uris:
        own = f"{source.images.rstrip('/')}/"
        found.others |= {path: uri for path, uri in found.pictures.items() if not uri.startswith(own)}
    return found


def list_source_folder(config: Config, folder: str) -> FolderListing:
    """Return the files below a folder of the source, without those that builds of the dataset have left in it."""
    source = config.source
    listing = list_folder(folder, (source.images, *source.annotations), follow_links=source.follow_links)
    own = relative_to(config.home, folder)
    if not own:
        return listing
    files = tuple(file for file in listing.files if not file.path.startswith(f"{own}/"))
    return FolderListing(files, listing.skipped, listing.aliases)


def _add_matching(config: Config, place: str, found: LabelFiles) -> None:
    uris = [place] if store.exists(place) else store.glob(place) if any(mark in place for mark in "*?[") else []
    if not uris:
        expected = "a file, folder or pattern of label files"
        raise ConfigError(config.name, "source.annotations", f"nothing at {place}", expected)
    for folder, uris_in in groupby(uris, key=lambda uri: uri.rpartition("/")[0]):
        infos = {file.path: (file.size, file.stamp) for file in store.list_files(folder)}
        for uri in uris_in:
            name = uri.rpartition("/")[2]
            path = relative_to(uri, config.source.images) or name
            if is_special(uri):
                found.skipped[path] = SkippedEntry(path, "special_file", "a named pipe, socket or device")
            else:
                found.add(path, uri, infos.get(name, (0, "")))


def printable(path: str) -> str:
    """Return the path as valid Unicode, with bytes that are not UTF-8 escaped."""
    return path.encode(errors="backslashreplace").decode()
