"""Follow links that a copy without links has left as text files, which hold the path of another file or folder."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import replace

from etl.findings import Finding, finding
from etl.formats.image_index import resolve_path
from etl.formats.text import decode
from etl.imaging.formats import EXTENSIONS
from etl.storage import store
from etl.storage.listing import FolderListing, suffix_of

_MOST_BYTES = 512  # of a path
_SAMPLED = 50  # small files, all of which are opened only if one of these is a link


def follow_text_links(folder: str, listing: FolderListing) -> tuple[FolderListing, list[Finding]]:
    """Return the listing of a folder with such files as aliases of what they lead to, and a finding if there are any.

    Only small files with the suffix of an image, or with none, are opened.
    """
    small = [
        file.path
        for file in listing.files
        if 0 < file.size <= _MOST_BYTES and (not (suffix := suffix_of(file.path)) or suffix in EXTENSIONS)
    ]
    paths = {file.path for file in listing.files}
    if not small or not _targets(folder, small[:: max(1, len(small) // _SAMPLED)], paths):
        return listing, []
    targets = _targets(folder, small, paths)
    files = tuple(file for file in listing.files if file.path not in targets)
    aliases = {link: target for led_to in targets.values() for link, target in led_to.items()}
    found = finding("text_links", files=sorted(targets), count=len(targets))
    return replace(listing, files=files, aliases=listing.aliases | aliases), [found]


def _targets(folder: str, files: Iterable[str], paths: set[str]) -> dict[str, dict[str, str]]:
    """Return, by file that is a link, the paths through it with the listed paths that they lead to."""
    targets = {}
    for file in files:
        text = (decode(store.read_bytes(store.join(folder, file))) or "").strip()
        target = resolve_path(posixpath.dirname(file), text) if "/" in text and "\n" not in text else None
        if target is None:
            continue
        if target in paths:
            targets[file] = {file: target}
        elif below := [path for path in paths if path.startswith(f"{target}/")]:
            targets[file] = {f"{file}{path[len(target) :]}": path for path in below}
    return targets
