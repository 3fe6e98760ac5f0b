"""Find the split that a dataset comes with, or that its configuration lists."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from glob import escape

from etl.config import Config, SplitLists, SplitRatios
from etl.errors import ConfigError
from etl.formats import predefined_splits
from etl.storage import store
from etl.storage.listing import is_special
from etl.storage.store import FileInfo

_MOST_BYTES = 10_000_000  # of a list of images


def find_own_split(
    config: Config,
    contents: Mapping[str, bytes],
    images: Sequence[str],
    files: Iterable[FileInfo],
    images_of_file: Mapping[str, Collection[str]] | None = None,
) -> dict[str, str] | None:
    """Return the split of each image; None if the images are divided by shares.

    `files` are those in the folder of the images, `contents` those of the label files. `images_of_file` are the images
    that each label file lists, if that is known; the label files are not read again then.
    """
    wanted = config.source.split
    if isinstance(wanted, SplitRatios):
        return None
    if isinstance(wanted, SplitLists):
        return predefined_splits.read_split(wanted, config.source.images, images, _read_lists(wanted))
    lists = _split_files(config, contents if images_of_file is None else {}, files)
    found = predefined_splits.find_split(config.source.format, lists, images, images_of_file)
    if not found:
        raise ConfigError(
            config.name, "source.split", "source, but the dataset has no split of its own", "ratios or lists"
        )
    return found


def _split_files(config: Config, contents: Mapping[str, bytes], listed: Iterable[FileInfo]) -> dict[str, bytes]:
    """Return the files that may define the split: label files, and lists in and beside the image folder."""
    files, root = dict(contents), config.source.images
    for file in listed:
        if file.path.endswith((".txt", ".yaml", ".yml")) and file.path not in files and file.size < _MOST_BYTES:
            files[file.path] = store.read_bytes(store.join(root, file.path))
    beside = root.rstrip("/").rpartition("/")[0]  # it may hold other datasets: only its own files and VOC's lists
    for pattern in ("*.txt", "*.yaml", "*.yml", "ImageSets/Main/*.txt"):
        for uri in store.glob(store.join(escape(beside), pattern)):
            if not is_special(uri):
                files.setdefault(uri.removeprefix(f"{beside}/"), store.read_bytes(uri))
    return files


def _read_lists(lists: SplitLists) -> dict[str, bytes]:
    """Return the content of the configured entries that are files."""
    entries = [*lists.train, *lists.val, *lists.test]
    return {entry: store.read_bytes(entry) for entry in entries if store.exists(entry) and not store.is_folder(entry)}
