"""Words in the names of folders that say which kind of file, or which split, lies in them."""

from __future__ import annotations

import re

_KINDS = (
    *("images", "image", "img", "imgs", "jpegimages", "pngimages", "labels", "label"),
    *("annotations", "annotation", "anns", "ann", "xmls", "xml", "txt"),
)
_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_SPLIT = re.compile(rf"(?<![a-z])({'|'.join(sorted(_SPLITS, key=len, reverse=True))})(?![a-z])", re.IGNORECASE)
_JOINTS = "-_. "


def names_kind(folder: str) -> bool:
    """Return whether the name of a folder says the kind of the files in it: images or labels."""
    return folder.lower() in _KINDS or folder.lower().startswith("labeltxt")


def split_in_name(folder: str) -> str | None:
    """Return the split in the name of a folder, None if it has none: val for `DET-val`."""
    match = _SPLIT.search(folder)
    return _SPLITS[match[1].lower()] if match else None


def without_split(folder: str) -> str:
    """Return the name of a folder without the split in it: `DET` for `DET-val`, an empty text for `val`."""
    return _SPLIT.sub("", folder, count=1).strip(_JOINTS) if _SPLIT.search(folder) else folder
