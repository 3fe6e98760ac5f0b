"""The split of a dataset that came with one: by its lists, its files or its folders.

An image in several splits belongs to test before val before train, so that nothing held out is trained on.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePosixPath

from etl.config import SplitLists
from etl.errors import ConfigError
from etl.formats import coco, yolo
from etl.formats.categories import yaml_mapping
from etl.formats.image_index import ImageIndex, resolve_path, split_in_path
from etl.formats.text import decode, lines
from etl.schema import SPLITS

_YAML_KEYS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
_YAML = (".yaml", ".yml")

Found = list[tuple[str, Collection[str]]]  # split and its images


def own_split(format: str, files: Mapping[str, bytes], images: Sequence[str]) -> dict[str, str]:
    """Return the split of every image the dataset puts in one itself; files by path relative to the images' root."""
    index = ImageIndex(images)
    found: Found = []
    if format == "yolo":
        found = _data_yaml(files, index) or _plain_lists(files, index)
    elif format == "voc":
        found = _image_sets(files, index)
    elif format == "coco":
        found = _coco_files(files, index)
    return _merged(found) or by_folder(images)


def by_folder(images: Sequence[str]) -> dict[str, str]:
    """Return the split of every image below a folder named for one: `images/val`, `VisDrone2019-DET-val`."""
    named = {image: split_in_path(posixpath.dirname(image)) for image in sorted(images)}
    return {image: split for image, split in named.items() if split is not None}


def listed_split(lists: SplitLists, root: str, images: Sequence[str], texts: Mapping[str, bytes]) -> dict[str, str]:
    """Return the split of every image in a configured folder or list.

    `root` is source.images; `texts` holds the content of entries that are files; any other entry is a folder.
    """
    index = ImageIndex(images)
    found: Found = []
    base = root.rstrip("/")
    for split in SPLITS:
        for entry in getattr(lists, split):
            place = entry.rstrip("/")
            if entry in texts:
                folder = _below(posixpath.dirname(place), base)
                found.append((split, _listed(texts[entry], "" if folder is None else folder, index, entry)))
            elif (inside := _below(place, base)) is not None:
                found.append((split, index.below(inside)))
            else:
                expected = f"a folder below {root} or a text file with one image path a line"
                raise ConfigError("", f"source.split.{split}", repr(entry), expected)
            if not found[-1][1]:
                raise ConfigError("", f"source.split.{split}", f"no image in {entry!r}", "images of the source")
    return _merged(found)


def _below(path: str, base: str) -> str | None:
    """Return the path relative to the base, None when it is not below it."""
    if path == base:
        return ""
    return path[len(base) + 1 :] if path.startswith(f"{base}/") else None


def _merged(found: Found) -> dict[str, str]:
    split = {image: name for wanted in SPLITS for name, images in found if name == wanted for image in images}
    return dict(sorted(split.items()))


def _listed(data: bytes, folder: str, index: ImageIndex, where: str) -> list[str]:
    """Return the images of a list, one path a line, as seen from its folder, from the root, or by their end."""
    text = decode(data)
    if text is None:
        raise ConfigError("", where, "undecodable bytes", "a text file with one image path a line")
    found = []
    for _, line in lines(text):
        image = index.at(resolve_path(folder, line)) or index.at(resolve_path("", line)) or index.nearest(line)
        if image is not None:
            found.append(image)
    return found


def _data_yaml(files: Mapping[str, bytes], index: ImageIndex) -> Found:
    found: Found = []
    for file in sorted(files):
        document = yaml_mapping(files[file]) if PurePosixPath(file).suffix.lower() in _YAML else None
        for key, split in _YAML_KEYS.items():
            entries = (document or {}).get(key)
            for entry in entries if isinstance(entries, list) else [entries]:
                if isinstance(entry, str) and entry.strip():
                    base = document.get("path") if document else None
                    found.append((split, _yaml_entry(entry.strip(), base, posixpath.dirname(file), files, index)))
    return [(split, images) for split, images in found if images]


def _yaml_entry(entry: str, base: object, folder: str, files: Mapping[str, bytes], index: ImageIndex) -> list[str]:
    """Return the images of a folder or list; `path` and leading `..` are often those of another machine."""
    plain = re.sub(r"^(\.\.?/)+", "", entry.replace("\\", "/"))
    written = [posixpath.join(base, entry), posixpath.join(base, plain)] if isinstance(base, str) else []
    for start in (folder, ""):
        for candidate in (*written, entry, plain):
            if candidate.rstrip("/") in (".", ""):
                return index.below(start)
            place = resolve_path(start, candidate)
            if place is None:
                continue
            if place in files:
                return _listed(files[place], posixpath.dirname(place), index, place)
            if below := index.below(place):
                return below
    parts = plain.rstrip("/").split(
        "/"
    )  # where the images' root lies deeper than data.yaml, only the end of the folder is there
    return next((below for start in range(1, len(parts)) if (below := index.below("/".join(parts[start:])))), [])


def _plain_lists(files: Mapping[str, bytes], index: ImageIndex) -> Found:
    """Return the lists train.txt, val.txt and test.txt of a dataset without data.yaml."""
    names = {file: PurePosixPath(file) for file in sorted(files)}
    return [
        (_YAML_KEYS[path.stem], _listed(files[file], posixpath.dirname(file), index, file))
        for file, path in names.items()
        if path.suffix == ".txt" and path.stem in _YAML_KEYS and not yolo.is_label(files[file])
    ]


def _image_sets(files: Mapping[str, bytes], index: ImageIndex) -> Found:
    found: Found = []
    for file in sorted(files):
        path = PurePosixPath(file)
        if path.parts[-3:-1] == ("ImageSets", "Main") and path.stem in (*SPLITS, "trainval") and path.suffix == ".txt":
            split = "train" if path.stem == "trainval" else path.stem  # val, if listed, comes before
            found.append((split, _stems(files[file], posixpath.dirname(file.rpartition("ImageSets/Main/")[0]), index)))
    return found


def _stems(data: bytes, folder: str, index: ImageIndex) -> list[str]:
    """Return the images of a list of stems: those of JPEGImages beside the list, else the only one with the stem."""
    beside = {posixpath.splitext(image)[0]: image for image in index.below(posixpath.join(folder, "JPEGImages"))}
    inside = frozenset(index.below(folder))
    found = []
    for _, line in lines(decode(data) or ""):
        options = index.with_stem(line)
        options = [image for image in options if image in inside] or options
        image = beside.get(posixpath.join(folder, "JPEGImages", line)) or (options[0] if len(options) == 1 else None)
        if image is not None:
            found.append(image)
    return found


def _coco_files(files: Mapping[str, bytes], index: ImageIndex) -> Found:
    found: Found = []
    documents = {file: data for file, data in files.items() if file.lower().endswith(coco.SUFFIX)}
    for file, names in (coco.file_names(documents) if documents else {}).items():
        if split := split_in_path(file):
            found.append((split, coco.resolve(file, names, index).values()))
    return found
