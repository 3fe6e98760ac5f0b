"""List a source: its images, its label files, and which of them belong together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any

from etl import formats
from etl.config import Config, SplitLists, SplitRatios
from etl.errors import ConfigError
from etl.formats import categories, predefined_splits
from etl.formats.coco import NO_IMAGE
from etl.formats.custom import CustomReader
from etl.formats.labels import ImageLabels
from etl.formats.pairing import pair_labels
from etl.ids import digest, image_id, normal_path
from etl.imaging.codec import EXTENSIONS
from etl.schema import reject, reject_bad_box
from etl.storage import store


@dataclass(frozen=True)
class SourceListing:
    """The files of a source, listed without opening an image."""

    images: tuple[store.FileInfo, ...]
    labels: Mapping[str, str]  # listed path -> URI
    sizes: Mapping[str, tuple[int, str]]  # listed path of a label file -> size and stamp
    categories: tuple[str, ...] | None  # of the configuration or the label files
    own_split: Mapping[str, str] | None  # image path -> split, if the predefined split is used
    paired: Mapping[str, tuple[str, ...]]  # image path -> listed paths of its label files
    listed: Mapping[str, tuple[ImageLabels, ...]]  # image path -> labels, of formats that list their images
    rejects: tuple[dict[str, str], ...] = ()
    reader_code: str | None = None  # digest of the code of a reader of the user's own

    @property
    def fingerprint(self) -> str:
        """A digest that changes with the files, their class names, their predefined split and the user's own reader."""
        images = [[file.path, file.size, file.stamp] for file in self.images]
        labels = sorted([path, *info] for path, info in self.sizes.items())
        code = [] if self.reader_code is None else [self.reader_code]
        return digest(images, labels, self.categories, self.own_split, *code)


def scan(config: Config) -> SourceListing:
    """List the source; ConfigError if a folder is missing or holds no image."""
    root = config.source.images
    if not store.is_folder(root):
        raise ConfigError(config.name, "source.images", f"no folder {root}", "a folder of images")
    listing = store.list_files(root)
    found = [file for file in listing if PurePosixPath(file.path).suffix.lower() in EXTENSIONS]
    if not found:
        raise ConfigError(config.name, "source.images", f"no image below {root}", f"files ending in {_endings()}")
    images, nameless = _drop_ambiguous(found)
    reader = formats.get_reader(config.source.format, config.name)
    labels, sizes = _label_files(config, reader.SUFFIX, {root: listing})
    paths = [file.path for file in images]
    contents = _Contents(labels)
    if isinstance(reader, formats.DatasetFormat):
        paired: dict[str, tuple[str, ...]] = {}
        listed, declared, rejects = _read_datasets(config, reader, contents, paths)
    else:
        listed, declared = {}, None
        paired, rejects = _pair_labels(config, reader, labels, paths)
        if config.source.format == "yolo" and config.source.categories is None:
            declared = _find_yolo_names(config)
    given = _configured_categories(config)
    unusable = {row["where"] for row in rejects}
    images = [file for file in images if file.path not in unusable]
    if config.source.sample is not None:
        images = _choose_sample(images, config.source.sample)
    return SourceListing(
        images=tuple(images),
        labels=labels,
        sizes=sizes,
        categories=tuple(given or declared or ()) or None,
        own_split=_find_split(config, contents, paths),
        paired=paired,
        listed=listed,
        rejects=(*nameless, *rejects),
        reader_code=reader.code if isinstance(reader, CustomReader) else None,
    )


def _drop_ambiguous(files: Sequence[store.FileInfo]) -> tuple[list[store.FileInfo], list[dict[str, str]]]:
    """Return the images whose names give unique ids, and the rejects of the others."""
    twins = Counter(normal_path(file.path) for file in files)
    kept, rejects = [], []
    for file in files:
        if (name := _printable(file.path)) != file.path:
            rejects.append(_undecodable("image", name))
        elif twins[normal_path(name)] > 1:  # they differ in Unicode normal form only, so their ids are equal
            rejects.append(reject("image", name, "ambiguous_name", ascii(name), "one image of this name in NFC"))
        else:
            kept.append(file)
    return kept, rejects


def _choose_sample(files: Sequence[store.FileInfo], number: int) -> list[store.FileInfo]:
    """Return the images with the smallest ids, in the order given."""
    chosen = set(sorted((file.path for file in files), key=image_id)[:number])
    return [file for file in files if file.path in chosen]


def _printable(path: str) -> str:
    """Return the path as valid Unicode, with bytes that are not UTF-8 escaped."""
    return path.encode(errors="backslashreplace").decode()


def _undecodable(kind: str, shown: str) -> dict[str, str]:
    return reject(kind, shown, "undecodable_name", shown, "a file name in UTF-8")


class _Contents(Mapping[str, bytes]):
    """The content of the label files by listed path, read on access."""

    def __init__(self, uris: Mapping[str, str]) -> None:
        self._uris = uris

    def __getitem__(self, path: str) -> bytes:
        return store.read_bytes(self._uris[path])

    def __iter__(self) -> Any:
        return iter(self._uris)

    def __len__(self) -> int:
        return len(self._uris)


def _endings() -> str:
    return " ".join(sorted(EXTENSIONS))


def _label_files(
    config: Config, suffix: str, listings: Mapping[str, Sequence[store.FileInfo]]
) -> tuple[dict[str, str], dict[str, tuple[int, str]]]:
    """Return the label files' URIs, and sizes and stamps, by listed path; `listings` are those of known folders."""
    uris: dict[str, str] = {}
    sizes: dict[str, tuple[int, str]] = {}

    def add(path: str, uri: str, info: tuple[int, str]) -> None:
        path = normal_path(_printable(path))
        while path in uris and uris[path] != uri:  # two roots with equal names below them
            path = f"{PurePosixPath(uri.removesuffix('/' + path)).name}/{path}"
        uris[path], sizes[path] = uri, info

    for place in config.source.annotations or (config.source.images,):
        if place in listings or store.is_folder(place):
            for file in listings.get(place) or store.list_files(place):
                if file.path.lower().endswith(suffix):
                    add(file.path, store.join(place, file.path), (file.size, file.stamp))
            continue
        found = [place] if store.exists(place) else store.glob(place) if any(mark in place for mark in "*?[") else []
        if not found:
            raise ConfigError(
                config.name, "source.annotations", f"nothing at {place}", "a file, folder or pattern of label files"
            )
        for folder, uris_in in groupby(found, key=lambda uri: uri.rpartition("/")[0]):
            infos = {file.path: (file.size, file.stamp) for file in store.list_files(folder)}
            for uri in uris_in:
                name = uri.rpartition("/")[2]
                add(_below(uri, config.source.images) or name, uri, infos.get(name, (0, "")))
    return dict(sorted(uris.items())), sizes


def _below(uri: str, root: str) -> str | None:
    prefix = root.rstrip("/") + "/"
    return uri.removeprefix(prefix) if uri.startswith(prefix) else None


def _configured_categories(config: Config) -> list[str] | None:
    given = config.source.categories
    if given is None:
        return None
    if not isinstance(given, str):
        return list(given)
    if not store.exists(given):
        raise ConfigError(config.name, "source.categories", f"no file {given}", "a names file, a data.yaml or a list")
    return list(categories.read_names(store.read_bytes(given), given))


def _find_yolo_names(config: Config) -> list[str]:
    """Return the class names beside YOLO labels, which hold class indices only; ConfigError if there are none."""
    for root in (config.source.images, *config.source.annotations):
        files = [file.path for file in store.list_files(root)] if store.is_folder(root) else []
        texts = {path: store.read_bytes(store.join(root, path)) for path in files if categories.is_names_file(path)}
        if (found := categories.find_names(texts)) is not None:
            return found[1]
    expected = "source.categories: a names file, a data.yaml or a list"
    raise ConfigError(config.name, "source.categories", "no data.yaml and no names file beside the labels", expected)


def _pair_labels(
    config: Config, reader: Any, labels: Mapping[str, str], images: Sequence[str]
) -> tuple[dict[str, tuple[str, ...]], list[dict[str, str]]]:
    pairing = pair_labels(list(labels), images, config.source.match)
    rejects = [
        _without_image(label, labels[label])
        for label in pairing.unmatched_labels
        if reader.is_label(store.read_bytes(labels[label]))
    ]
    for tie in pairing.ambiguous:  # the image is rejected too: without its labels it is not background
        for kind, mine, others in (("file", tie.labels, tie.images), ("image", tie.images, tie.labels)):
            found = ", ".join(others)
            rejects += [reject(kind, path, "ambiguous_label", found, "exactly one of the same name") for path in mine]
    return {image: (label,) for image, label in pairing.pairs.items()}, rejects


def _without_image(label: str, uri: str) -> dict[str, str]:
    if _printable(uri) != uri:
        return _undecodable("file", label)
    return reject("file", label, "label_without_image", label, "an image of the same name")


def _read_datasets(
    config: Config, reader: Any, contents: Mapping[str, bytes], images: Sequence[str]
) -> tuple[dict[str, tuple[ImageLabels, ...]], list[str] | None, list[dict[str, str]]]:
    files = dict(contents)
    listed: dict[str, tuple[ImageLabels, ...]] = {}
    rejects = []
    for path, written, labels in reader.read_dataset(files, images):
        if written == NO_IMAGE:  # entries that belong to no image at all
            rejects += [reject_bad_box(labels.file, bad.reason, bad.found, bad.expected) for bad in labels.bad]
        elif path is None:
            rejects.append(
                reject("image", f"{labels.file}: {written}", "missing_image", "no such file", "an image file")
            )
        else:
            listed[path] = (*listed.get(path, ()), labels)
    rejects += [
        reject("file", path, "unlisted_image", "in no label file", "an entry that lists the image")
        for path in images
        if path not in listed
    ]
    declared = reader.categories(files) if hasattr(reader, "categories") else None
    return listed, declared, rejects


def _find_split(config: Config, contents: Mapping[str, bytes], images: Sequence[str]) -> dict[str, str] | None:
    wanted = config.source.split
    if isinstance(wanted, SplitRatios):
        return None
    if isinstance(wanted, SplitLists):
        return predefined_splits.read_split(wanted, config.source.images, images, _read_lists(wanted))
    found = predefined_splits.find_split(config.source.format, _split_files(config, contents), images)
    if not found:
        raise ConfigError(
            config.name, "source.split", "source, but the dataset has no split of its own", "ratios or lists"
        )
    return found


def _split_files(config: Config, contents: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files that may define the split: label files, and lists in and beside the image folder."""
    files, root = dict(contents), config.source.images
    for file in store.list_files(root):
        if file.path.endswith((".txt", ".yaml", ".yml")) and file.path not in files and file.size < 10_000_000:
            files[file.path] = store.read_bytes(store.join(root, file.path))
    beside = root.rstrip("/").rpartition("/")[0]  # it may hold other datasets: only its own files and VOC's lists
    for pattern in ("*.txt", "*.yaml", "*.yml", "ImageSets/Main/*.txt"):
        for uri in store.glob(store.join(escape(beside), pattern)):
            files.setdefault(uri.removeprefix(f"{beside}/"), store.read_bytes(uri))
    return files


def _read_lists(lists: SplitLists) -> dict[str, bytes]:
    """Return the content of the configured entries that are files."""
    entries = [*lists.train, *lists.val, *lists.test]
    return {entry: store.read_bytes(entry) for entry in entries if store.exists(entry) and not store.is_folder(entry)}
