"""Find the split that a dataset comes with, in its lists, label files or folders.

An image in several splits belongs to test, else to val, so that no held-out image is trained on.
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
from etl.relative import relative_to
from etl.schema import SPLITS

_YAML_KEYS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
_YAML = (".yaml", ".yml")

ImagesBySplit = list[tuple[str, Collection[str]]]  # a split may occur several times


def find_split(
    format: str,
    files: Mapping[str, bytes],
    images: Sequence[str],
    images_of_file: Mapping[str, Collection[str]] | None = None,
) -> dict[str, str]:
    """Return the split of each image that the dataset assigns to one; files by path relative to the images' root.

    `images_of_file` are the images that each COCO file lists; without them the files are read.
    """
    index = ImageIndex(images)
    found: ImagesBySplit = []
    if format == "yolo":
        found = _data_yaml(files, index) or _plain_lists(files, index)
    elif format == "voc":
        found = _image_sets(files, index)
    elif format == "coco":
        found = _coco_files(_read_coco(files, images) if images_of_file is None else images_of_file)
    return _merge(found) or split_by_folder(images)


def split_by_folder(images: Sequence[str]) -> dict[str, str]:
    """Return the split of each image below a folder with a split in its name: `images/val`, `VisDrone2019-DET-val`."""
    named = {image: split_in_path(posixpath.dirname(image)) for image in sorted(images)}
    return {image: split for image, split in named.items() if split is not None}


def read_split(lists: SplitLists, root: str, images: Sequence[str], texts: Mapping[str, bytes]) -> dict[str, str]:
    """Return the split of each image in a configured folder or list; ConfigError for an entry without images.

    `root` is source.images; `texts` holds the content of the entries that are files, all others are folders.
    """
    index = ImageIndex(images)
    found: ImagesBySplit = []
    base = root.rstrip("/")
    for split in SPLITS:
        for entry in getattr(lists, split):
            place = entry.rstrip("/")
            if entry in texts:
                folder = relative_to(posixpath.dirname(place), base)
                found.append((split, _read_list(texts[entry], "" if folder is None else folder, index, entry)))
            elif (inside := relative_to(place, base)) is not None:
                found.append((split, index.below(inside)))
            else:
                expected = f"a folder below {root} or a text file with one image path a line"
                raise ConfigError("", f"source.split.{split}", repr(entry), expected)
            if not found[-1][1]:
                raise ConfigError("", f"source.split.{split}", f"no image in {entry!r}", "images of the source")
    return _merge(found)


def _merge(found: ImagesBySplit) -> dict[str, str]:
    split = {image: name for wanted in SPLITS for name, images in found if name == wanted for image in images}
    return dict(sorted(split.items()))


def _read_list(data: bytes, folder: str, index: ImageIndex, where: str) -> list[str]:
    """Return the images of a list with one path per line: relative to its folder, to the root, else by path end."""
    text = decode(data)
    if text is None:
        raise ConfigError("", where, "undecodable bytes", "a folder, or a text file with one image path a line")
    found = []
    for _, line in lines(text):
        image = index.at(resolve_path(folder, line)) or index.at(resolve_path("", line)) or index.nearest(line)
        if image is not None:
            found.append(image)
    return found


def _data_yaml(files: Mapping[str, bytes], index: ImageIndex) -> ImagesBySplit:
    found: ImagesBySplit = []
    for file in sorted(files):
        document = yaml_mapping(files[file], file) if PurePosixPath(file).suffix.lower() in _YAML else None
        for key, split in _YAML_KEYS.items():
            entries = (document or {}).get(key)
            for entry in entries if isinstance(entries, list) else [entries]:
                if isinstance(entry, str) and entry.strip():
                    base = document.get("path") if document else None
                    found.append((split, _images_of_entry(entry.strip(), base, posixpath.dirname(file), files, index)))
    return [(split, images) for split, images in found if images]


def _images_of_entry(entry: str, base: object, folder: str, files: Mapping[str, bytes], index: ImageIndex) -> list[str]:
    """Return the images of a folder or list in a data.yaml, whose `path` and leading `..` may be of another machine."""
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
                return _read_list(files[place], posixpath.dirname(place), index, place)
            if below := index.below(place):
                return below
    parts = plain.rstrip("/").split("/")  # if the images' root lies below data.yaml, only the folder's end is known
    return next((below for start in range(1, len(parts)) if (below := index.below("/".join(parts[start:])))), [])


def _plain_lists(files: Mapping[str, bytes], index: ImageIndex) -> ImagesBySplit:
    """Return the images of train.txt, val.txt and test.txt, for a dataset without data.yaml."""
    names = {file: PurePosixPath(file) for file in sorted(files)}
    return [
        (_YAML_KEYS[path.stem], _read_list(files[file], posixpath.dirname(file), index, file))
        for file, path in names.items()
        if path.suffix == ".txt" and path.stem in _YAML_KEYS and not yolo.is_label(files[file])
    ]


def _image_sets(files: Mapping[str, bytes], index: ImageIndex) -> ImagesBySplit:
    found: ImagesBySplit = []
    for file in sorted(files):
        path = PurePosixPath(file)
        if path.parts[-3:-1] == ("ImageSets", "Main") and path.stem in (*SPLITS, "trainval") and path.suffix == ".txt":
            split = "train" if path.stem == "trainval" else path.stem  # an image also in val.txt goes to val
            found.append(
                (split, _read_stems(files[file], posixpath.dirname(file.rpartition("ImageSets/Main/")[0]), index))
            )
    return found


def _read_stems(data: bytes, folder: str, index: ImageIndex) -> list[str]:
    """Return the images of a list of stems: those in JPEGImages beside the list, else the only one with the stem."""
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


def _coco_files(images_of_file: Mapping[str, Collection[str]]) -> ImagesBySplit:
    splits = ((split_in_path(file), images) for file, images in sorted(images_of_file.items()))
    return [(split, images) for split, images in splits if split is not None]


def _read_coco(files: Mapping[str, bytes], images: Sequence[str]) -> Mapping[str, Collection[str]]:
    documents = {file: data for file, data in files.items() if file.lower().endswith(coco.SUFFIX)}
    return coco.images_of_files(coco.read_tables(documents, images).labels) if documents else {}
