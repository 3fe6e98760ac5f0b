"""List a source: its images, its label files, and which of them belong together."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from etl import formats
from etl.config import Config
from etl.errors import ConfigError, SourceError
from etl.findings import Finding
from etl.formats.custom import CustomReader
from etl.formats.image_names import NameRules
from etl.formats.recognise import Look
from etl.ids import digest, image_id
from etl.imaging.formats import EXTENSIONS
from etl.schema import reject
from etl.sources.class_names import configured_names, find_yolo_names
from etl.sources.dataset_labels import read_datasets
from etl.sources.image_files import (
    describe_skipped,
    drop_ambiguous,
    has_image_suffix,
    reject_skipped,
    reject_unsupported,
)
from etl.sources.keypoints import find_kpt_shape
from etl.sources.label_files import LabelContents, LabelFiles, find_label_files, list_source_folder
from etl.sources.label_pairs import pair_source
from etl.sources.listed_labels import ListedLabels
from etl.sources.own_split import find_own_split
from etl.sources.text_links import follow_text_links
from etl.sources.unread_files import (
    describe_looks,
    describe_unknown,
    recognise_files,
    reject_labels_beside,
    reject_unread,
)
from etl.storage import store
from etl.storage.listing import FolderListing, SkippedEntry

_PHRASES = 3  # kinds of foreign files that a message names


@dataclass(frozen=True)
class SourceListing:
    """The files of a source, listed without opening an image."""

    images: tuple[store.FileInfo, ...]
    labels: Mapping[str, str]  # listed path -> URI
    sizes: Mapping[str, tuple[int, str]]  # listed path of a label file -> size and stamp
    categories: tuple[str, ...] | None  # of the configuration or the label files
    own_split: Mapping[str, str] | None  # image path -> split, if the predefined split is used
    paired: Mapping[str, tuple[str, ...]]  # image path -> listed paths of its label files
    listed: ListedLabels  # of formats that list their images
    rejects: tuple[dict[str, str], ...] = ()
    reader_code: str | None = None  # digest of the code of a reader of the user's own
    guesses: tuple[str, ...] = ()  # ways of reading the source that its files do not fix, sorted
    kpt_shape: tuple[int, int] | None = None  # keypoints of YOLO rows, and the numbers of each
    roots: tuple[str, ...] = ()  # declared classes that are the supercategory of all others
    findings: tuple[Finding, ...] = ()  # about what was guessed and what was not read

    @property
    def fingerprint(self) -> str:
        """A digest that changes with the files, how they are paired, which are not read, and what else decides labels.

        That is the class names, the predefined split, the shape of keypoints and the code of the user's own reader.
        """
        images = [[file.path, file.size, file.stamp] for file in self.images]
        labels = sorted([path, *info] for path, info in self.sizes.items())
        pairs = sorted(self.paired.items())
        code = [] if self.reader_code is None else [self.reader_code]
        files = (images, labels, pairs, self.rejects)
        return digest(*files, self.categories, self.own_split, *code, *(self.kpt_shape or ()))


@dataclass(slots=True)
class _Labels:
    """What the label files of a source give, of either kind of format."""

    paired: dict[str, tuple[str, ...]] = field(default_factory=dict)
    listed: ListedLabels = field(default_factory=ListedLabels)
    images_of_file: Mapping[str, Collection[str]] | None = None
    declared: Sequence[str] | None = None
    roots: tuple[str, ...] = ()
    rejects: list[dict[str, str]] = field(default_factory=list)
    guesses: tuple[str, ...] = ()
    findings: list[Finding] = field(default_factory=list)


def scan(config: Config, guesses: Collection[str] | None = None) -> SourceListing:
    """List the source; ConfigError if a folder is missing or holds no image.

    `guesses` are those that a plan has pinned: no other is made. None leaves all open.
    """
    root = config.source.images
    if not store.is_folder(root):
        raise ConfigError(config.name, "source.images", f"no folder {root}", "a folder of images")
    folder, found_links = follow_text_links(root, list_source_folder(config, root))
    unusable = [
        *reject_skipped(folder.skipped, of_images=bool(config.source.annotations)),
        *reject_unsupported(config, folder),
    ]
    images, nameless = drop_ambiguous(file for file in folder.files if has_image_suffix(file.path))
    if not images and not nameless:
        nothing = f"no image below {root}{describe_skipped(unusable)}"
        raise ConfigError(config.name, "source.images", nothing, f"files ending in {_endings()}")
    reader = formats.get_reader(config.source.format, config.name)
    files = find_label_files(config, reader.SUFFIX, folder)
    paths = [file.path for file in images]
    given = configured_names(config)
    if isinstance(reader, formats.DatasetFormat):
        labels = _read_datasets(config, reader, files, paths, NameRules(config.source.match, guesses), given)
    else:
        labels = _pair_labels(config, reader, files, paths, folder, guesses, _where(unusable))
    skipped = [entry for path, entry in files.skipped.items() if entry not in folder.skipped]
    rejects = [*nameless, *unusable, *reject_skipped(skipped, of_images=False), *labels.rejects]
    dropped = {row["where"] for row in rejects}
    images = [file for file in images if file.path not in dropped]
    if config.source.sample is not None:
        images = _choose_sample(images, config.source.sample)
    return SourceListing(
        images=tuple(images),
        labels=files.uris,
        sizes=files.sizes,
        categories=tuple(given or labels.declared or ()) or None,
        roots=labels.roots if given is None else (),
        own_split=find_own_split(config, LabelContents(files.uris), paths, folder.files, labels.images_of_file),
        paired=labels.paired,
        listed=labels.listed,
        rejects=tuple(rejects),
        reader_code=reader.code if isinstance(reader, CustomReader) else None,
        kpt_shape=find_kpt_shape(config),
        guesses=labels.guesses,
        findings=(*found_links, *labels.findings),
    )


def _choose_sample(files: Sequence[store.FileInfo], number: int) -> list[store.FileInfo]:
    """Return the images with the smallest ids, in the order given."""
    chosen = set(sorted((file.path for file in files), key=image_id)[:number])
    return [file for file in files if file.path in chosen]


def _where(rejects: Sequence[dict[str, str]]) -> list[str]:
    return [row["where"] for row in rejects if row["kind"] == "image"]


def _endings() -> str:
    return " ".join(sorted(EXTENSIONS))


def _read_datasets(
    config: Config,
    reader: Any,
    files: LabelFiles,
    images: Sequence[str],
    rules: NameRules,
    names: Sequence[str] | None,
) -> _Labels:
    """Read the label files that list their images; files that look like another format are rejects."""
    rejects: list[dict[str, str]] = []
    if not isinstance(reader, CustomReader):
        looks = recognise_files(files.uris)
        foreign = {path: look for path, look in looks.items() if look is not None and not look.name.startswith("COCO")}
        rest = {path: uri for path, uri in files.uris.items() if path not in foreign}
        if not rest:
            _refuse_foreign(config, reader.SUFFIX, foreign or recognise_files(files.others), files.skipped.values())
        unread = {path: files.uris[path] for path in foreign}
        files.uris = rest
        rejects = reject_unread(config, reader, files.others | unread)
    dataset = read_datasets(reader, LabelContents(files.uris), images, rules, names)
    return _Labels(
        listed=dataset.listed,
        images_of_file=dataset.images_of_file,
        declared=dataset.categories,
        roots=dataset.roots,
        rejects=[*dataset.rejects, *rejects],
        guesses=dataset.guesses,
        findings=list(dataset.findings),
    )


def _refuse_foreign(
    config: Config, suffix: str, looks: Mapping[str, Look | None], skipped: Iterable[SkippedEntry]
) -> None:
    """Raise SourceError if files look like other formats than that of the source, may hold labels, or were skipped."""
    own = config.source.format
    unknown = describe_unknown((path for path, look in looks.items() if look is None), suffix)
    phrases = [*describe_looks(looks, own, suffix), *(f"{entry.path} is {entry.found}" for entry in skipped), *unknown]
    if phrases:
        raise SourceError(f"no {own} label file: {'; '.join(phrases[:_PHRASES])}")


def _pair_labels(
    config: Config,
    reader: Any,
    files: LabelFiles,
    images: Sequence[str],
    folder: FolderListing,
    guesses: Collection[str] | None,
    unusable: Collection[str],
) -> _Labels:
    """Pair label files of one image each with the images; those of `unusable` images are not unmatched."""
    source = config.source
    pairs = pair_source(config, reader, files, [*images, *unusable], folder.aliases, guesses)
    labels = _Labels(
        {image: (label,) for image, label in pairs.pairs.items() if image not in unusable},
        rejects=pairs.rejects,
        guesses=pairs.guesses,
        findings=pairs.findings,
    )
    if source.format == "yolo" and source.categories is None:
        listed = {file.path: store.join(source.images, file.path) for file in folder.files}
        labels.declared, found = find_yolo_names(config, listed, files.uris | files.others)
        labels.findings += found
    if not pairs.pairs and not source.annotations:
        labels.rejects += reject_labels_beside(config)
    if source.unlabelled == "reject":
        labels.rejects += [
            reject("file", image, "unlabelled_image", "no label file", "a label file")
            for image in images
            if image not in pairs.pairs
        ]
    return labels
