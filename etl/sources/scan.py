"""List a source: its images, its label files, and which of them belong together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from etl import formats
from etl.config import Config
from etl.errors import ConfigError
from etl.findings import Finding
from etl.formats import categories
from etl.formats.custom import CustomReader
from etl.formats.labels import ImageLabels
from etl.formats.pairing import pair_labels
from etl.ids import digest, image_id, normal_path
from etl.imaging.formats import EXTENSIONS
from etl.schema import reject
from etl.sources.dataset_labels import read_datasets
from etl.sources.keypoints import find_kpt_shape
from etl.sources.label_files import LabelContents, find_label_files, printable
from etl.sources.own_split import find_own_split
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
    guesses: tuple[str, ...] = ()  # ways of reading the source that its files do not fix, sorted
    kpt_shape: tuple[int, int] | None = None  # keypoints of YOLO rows, and the numbers of each
    findings: tuple[Finding, ...] = ()  # about what was guessed and what was not read

    @property
    def fingerprint(self) -> str:
        """A digest that changes with the files, their class names, their predefined split and the user's own reader."""
        images = [[file.path, file.size, file.stamp] for file in self.images]
        labels = sorted([path, *info] for path, info in self.sizes.items())
        code = [] if self.reader_code is None else [self.reader_code]
        return digest(images, labels, self.categories, self.own_split, *code, *(self.kpt_shape or ()))


def scan(config: Config, guesses: Collection[str] | None = None) -> SourceListing:
    """List the source; ConfigError if a folder is missing or holds no image.

    `guesses` are those that a plan has pinned: no other is made. None leaves all open.
    """
    root = config.source.images
    if not store.is_folder(root):
        raise ConfigError(config.name, "source.images", f"no folder {root}", "a folder of images")
    listing = store.list_files(root)
    found = [file for file in listing if PurePosixPath(file.path).suffix.lower() in EXTENSIONS]
    if not found:
        raise ConfigError(config.name, "source.images", f"no image below {root}", f"files ending in {_endings()}")
    images, nameless = _drop_ambiguous(found)
    reader = formats.get_reader(config.source.format, config.name)
    labels, sizes = find_label_files(config, reader.SUFFIX, {root: listing})
    paths = [file.path for file in images]
    contents = LabelContents(labels)
    if isinstance(reader, formats.DatasetFormat):
        paired: dict[str, tuple[str, ...]] = {}
        listed, declared, rejects = read_datasets(reader, contents, paths)
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
        own_split=find_own_split(config, contents, paths),
        paired=paired,
        listed=listed,
        rejects=(*nameless, *rejects),
        reader_code=reader.code if isinstance(reader, CustomReader) else None,
        kpt_shape=find_kpt_shape(config),
    )


def _drop_ambiguous(files: Sequence[store.FileInfo]) -> tuple[list[store.FileInfo], list[dict[str, str]]]:
    """Return the images whose names give unique ids, and the rejects of the others."""
    twins = Counter(normal_path(file.path) for file in files)
    kept, rejects = [], []
    for file in files:
        if (name := printable(file.path)) != file.path:
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


def _undecodable(kind: str, shown: str) -> dict[str, str]:
    return reject(kind, shown, "undecodable_name", shown, "a file name in UTF-8")


def _endings() -> str:
    return " ".join(sorted(EXTENSIONS))


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
    if printable(uri) != uri:
        return _undecodable("file", label)
    return reject("file", label, "label_without_image", label, "an image of the same name")
