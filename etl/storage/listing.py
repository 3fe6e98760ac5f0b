"""List a folder of the source: its files once each, also behind links, and what is not listed with the reason."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from etl.relative import relative_to
from etl.storage import store
from etl.storage.store import FileInfo

_MOST_OUTSIDE = 10_000  # files that are named behind one link out of the source


@dataclass(frozen=True, slots=True)
class SkippedEntry:
    """An entry of a folder that is not listed as a file; its reason is one of the rejects table."""

    path: str  # posix, relative to the listed folder
    reason: str
    found: str


@dataclass(frozen=True, slots=True)
class FolderListing:
    """The files below a folder, sorted by path."""

    files: tuple[FileInfo, ...]
    skipped: tuple[SkippedEntry, ...] = ()
    aliases: dict[str, str] = field(default_factory=dict)  # path through a link -> path of the same file in `files`


def suffix_of(path: str) -> str:
    """Return the suffix of a file's name in lower case, empty if it has none."""
    return posixpath.splitext(path)[1].lower()


def list_folder(uri: str, roots: Sequence[str] = (), *, follow_links: bool = False) -> FolderListing:
    """Return the files below a folder, without hidden files and folders.

    A link is followed if it leads into the folder or one of `roots`, or with `follow_links` anywhere. A file that
    several paths lead to is listed once: under its own path if that is below the folder. Only regular files are listed.
    """
    if (local := store.local_path(uri)) is None:
        return FolderListing(tuple(store.list_files(uri)))
    inside = [path for root in (uri, *roots) if (path := store.local_path(root)) is not None]
    walk = _Walk(str(local), [os.path.realpath(path) for path in inside], follow_links)
    walk.run()
    files = sorted(walk.files, key=lambda file: file.path)
    skipped = sorted(walk.skipped, key=lambda entry: entry.path)
    return FolderListing(tuple(files), tuple(skipped), dict(sorted(walk.aliases.items())))


def is_special(uri: str) -> bool:
    """Return whether the URI is a local pipe, socket or device, which must not be opened."""
    local = store.local_path(uri)
    return local is not None and local.exists() and not (local.is_file() or local.is_dir())


class _Walk:
    """The files, skipped entries and links met while walking a local folder."""

    def __init__(self, root: str, inside: Sequence[str], follow_links: bool) -> None:
        self.root, self.inside, self.follow_links = root, inside, follow_links
        self.real_root = os.path.realpath(root)
        self.files: list[FileInfo] = []
        self.skipped: list[SkippedEntry] = []
        self.aliases: dict[str, str] = {}
        self._links: list[str] = []  # relative paths, not yet resolved
        self._seen: set[str] = set()  # real paths of files and folders that were listed through a link

    def run(self) -> None:
        self.files += self._enter(self.root, "", linked=False)
        listed = {file.path for file in self.files}
        while self._links:
            links, self._links = sorted(self._links), []
            for link in links:
                self._resolve(link, listed)

    def _enter(self, folder: str, prefix: str, *, linked: bool) -> Iterator[FileInfo]:
        """Yield the regular files below a folder; note the links and skip everything else.

        `linked` folders are real paths that several links may lead to, so that their entries are seen only once.
        """
        try:
            entries = os.scandir(folder)
        except FileNotFoundError:
            return
        except OSError as error:
            self._skip(prefix.rstrip("/") or ".", "unreadable_folder", error.strerror or type(error).__name__)
            return
        with entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                path = prefix + entry.name
                if linked and not self._first_time(entry.path):
                    continue
                if entry.is_symlink():
                    self._links.append(path)
                elif entry.is_dir(follow_symlinks=False):
                    yield from self._enter(entry.path, f"{path}/", linked=linked)
                elif entry.is_file(follow_symlinks=False):
                    try:
                        own = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:  # deleted meanwhile
                        continue
                    yield FileInfo(path, own.st_size, str(own.st_mtime or ""))
                else:
                    self._skip(path, "special_file", _kind(entry.stat(follow_symlinks=False).st_mode))

    def _resolve(self, link: str, listed: set[str]) -> None:
        real = os.path.realpath(f"{self.root}/{link}")
        try:
            target = Path(real).stat()
        except OSError:
            self._skip(link, "broken_link", f"a link to {real}")
            return
        if not (stat.S_ISREG(target.st_mode) or stat.S_ISDIR(target.st_mode)):
            self._skip(link, "special_file", f"a link to {_kind(target.st_mode)}")
        elif not self.follow_links and not any(relative_to(real, root) is not None for root in self.inside):
            self._skip_outside(link, real, stat.S_ISDIR(target.st_mode))
        elif stat.S_ISDIR(target.st_mode):
            self._resolve_folder(link, real, listed)
        else:
            own = relative_to(real, self.real_root)
            if own in listed and suffix_of(own) == suffix_of(link):
                self.aliases[link] = own
            elif self._first_time(real):
                self.files.append(FileInfo(link, target.st_size, f"{target.st_mtime} {real}"))

    def _resolve_folder(self, link: str, real: str, listed: set[str]) -> None:
        own = relative_to(real, self.real_root)
        if own is not None and not any(part.startswith(".") for part in own.split("/")):
            if own and not f"{link}/".startswith(f"{own}/"):  # a link to a folder around itself names nothing new
                start = f"{own}/"
                self.aliases |= {f"{link}/{path[len(start) :]}": path for path in listed if path.startswith(start)}
        elif relative_to(self.real_root, real) is None and self._first_time(real):
            self.files += self._enter(real, f"{link}/", linked=True)

    def _first_time(self, real: str) -> bool:
        """Return whether a file or folder behind a link is seen for the first time."""
        if real in self._seen:
            return False
        self._seen.add(real)
        return True

    def _skip_outside(self, link: str, real: str, is_folder: bool) -> None:
        found = f"a link to {real}"
        names = islice(_names_below(real), _MOST_OUTSIDE) if is_folder else ()
        paths = [f"{link}/{name}" for name in names] or [link]
        for path in paths:
            self._skip(path, "link_outside", found)

    def _skip(self, path: str, reason: str, found: str) -> None:
        self.skipped.append(SkippedEntry(path, reason, found))


def _names_below(folder: str) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inner = os.path.relpath(place, folder)
        yield from (name if inner == "." else f"{inner}/{name}" for name in sorted(names) if not name.startswith("."))


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
    }
    return kinds.get(stat.S_IFMT(mode), "no regular file")
