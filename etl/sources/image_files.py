"""The image files of a source, and those that cannot be used by their name or place."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable, Sequence

from etl.config import Config
from etl.formats.companions import is_companion
from etl.ids import normal_path
from etl.imaging.formats import EXTENSIONS, HEAD_BYTES, image_format
from etl.schema import reject
from etl.sources.label_files import printable
from etl.sources.unread_files import DATA_SUFFIXES
from etl.storage import store
from etl.storage.listing import FolderListing, SkippedEntry, suffix_of
from etl.storage.store import FileInfo

_UNSUPPORTED = frozenset(
    {
        ".jp2", ".j2k", ".jpx", ".jpf", ".jxl", ".gif", ".tga", ".ppm", ".pgm", ".pbm", ".pnm", ".dng", ".cr2", ".cr3",
        ".nef", ".arw", ".raf", ".rw2", ".orf", ".exr", ".psd", ".dds", ".ecw", ".sid", ".ntf", ".nitf", ".dcm",
        ".fits",
    }
)  # fmt: skip
_MOST_OPENED = 1000  # files without a known suffix
_EXPECTED = "JPEG, PNG, TIFF, WebP, BMP, HEIC or AVIF, with the suffix of the format"


def has_image_suffix(path: str) -> bool:
    """Return whether the name of a file is that of an image that is read."""
    return suffix_of(path) in EXTENSIONS


def drop_ambiguous(files: Iterable[FileInfo]) -> tuple[list[FileInfo], list[dict[str, str]]]:
    """Return the images whose names give unique ids, and the rejects of the others."""
    files = list(files)
    names = [normal_path(file.path) for file in files]
    twins = Counter(names)
    kept, rejects = [], []
    for file, normal in zip(files, names, strict=True):
        if (name := printable(file.path)) != file.path:
            rejects.append(reject_undecodable("image", name))
        elif twins[normal] > 1:  # they differ in Unicode normal form only, so their ids are equal
            rejects.append(reject("image", name, "ambiguous_name", ascii(name), "one image of this name in NFC"))
        else:
            kept.append(file)
    return kept, rejects


def reject_undecodable(kind: str, shown: str) -> dict[str, str]:
    """Return the reject of a file whose name is not UTF-8."""
    return reject(kind, shown, "undecodable_name", shown, "a file name in UTF-8")


def reject_unsupported(config: Config, listing: FolderListing) -> list[dict[str, str]]:
    """Return the rejects of images of formats that are not read, and of images without the suffix of one.

    A file beside a readable image of the same name, such as its raw image or the overview `a.tif.ovr`, is none.
    """
    images = [file.path for file in listing.files if has_image_suffix(file.path)]
    readable = {*images, *map(_without_suffix, images)}
    rows, opened = [], 0
    for file in listing.files:
        suffix = suffix_of(file.path)
        if suffix in EXTENSIONS or _without_suffix(file.path) in readable:
            continue
        if suffix in _UNSUPPORTED:
            found = f"{suffix} image"
        elif (not suffix or suffix not in DATA_SUFFIXES) and not is_companion(file.path) and opened < _MOST_OPENED:
            opened += 1
            format = image_format(store.read_start(store.join(config.source.images, file.path), HEAD_BYTES))
            if format is None:
                continue
            found = f"{format} image with the suffix {suffix}" if suffix else f"{format} image without a suffix"
        else:
            continue
        rows.append(reject("image", printable(file.path), "unsupported_format", found, _EXPECTED))
    return rows


def reject_skipped(entries: Iterable[SkippedEntry], *, of_images: bool) -> list[dict[str, str]]:
    """Return the rejects of entries that are not followed or opened; `of_images` if no label file lies among them."""
    rows = []
    for entry in entries:
        suffix = suffix_of(entry.path)
        is_image = suffix in EXTENSIONS or suffix in _UNSUPPORTED
        if is_image or not (is_companion(entry.path) or (of_images and suffix)):
            kind = "image" if is_image and entry.reason != "unreadable_folder" else "file"
            rows.append(reject(kind, printable(entry.path), entry.reason, entry.found, _SKIPPED[entry.reason]))
    return rows


def describe_skipped(rejects: Sequence[dict[str, str]]) -> str:
    """Return how many images a folder without any usable one has, with the reason of the first."""
    if not rejects:
        return ""
    first, entries = rejects[0], "entry" if len(rejects) == 1 else "entries"
    return f", and {len(rejects)} {entries} that cannot be used, such as {first['where']}: {first['found']}"


_SKIPPED = {
    "link_outside": "a link into source.images or source.annotations, or source.follow_links: true",
    "broken_link": "a link to an existing file",
    "special_file": "a regular file",
    "unreadable_folder": "a folder that may be read",
}


def _without_suffix(path: str) -> str:
    return posixpath.splitext(path)[0]
