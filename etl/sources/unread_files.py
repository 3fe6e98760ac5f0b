"""Account for the files beside the labels that are not read: name the format that each looks like."""

from __future__ import annotations

import posixpath
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from glob import escape
from typing import Any

from etl.config import Config, SplitLists
from etl.formats.companions import is_companion, is_image_list
from etl.formats.folders import names_kind
from etl.formats.pairing import stem_of
from etl.formats.recognise import ARRAY, HEAD_BYTES, Look, recognise
from etl.imaging.formats import EXTENSIONS
from etl.numbers import count_of
from etl.schema import reject
from etl.storage import store
from etl.storage.listing import list_folder, suffix_of

_SAMPLED = 20  # files of one folder and suffix that are opened to know what all of them look like
DATA_SUFFIXES = frozenset(
    {
        "", ".txt", ".xml", ".json", ".jsonl", ".ndjson", ".geojson", ".csv", ".tsv", ".mat", ".npy", ".npz", ".pkl",
        ".pickle", ".parquet", ".h5", ".hdf5", ".tfrecord", ".tfrecords", ".record", ".xls", ".xlsx", ".shp", ".gpkg",
        ".kml", ".db", ".sqlite", ".ann", ".label", ".lab", ".manifest", ".zip", ".tar", ".gz", ".tgz", ".7z", ".rar",
    }
)  # fmt: skip


def recognise_files(uris: Mapping[str, str]) -> dict[str, Look | None]:
    """Return what each file looks like, by path.

    Of many files in one folder with one suffix a few are opened; the others look like most of these.
    """
    groups: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for path in uris:
        groups[posixpath.dirname(path), suffix_of(path)].append(path)
    looks: dict[str, Look | None] = {}
    for paths in groups.values():
        opened = sorted(paths)[:: max(1, len(paths) // _SAMPLED)][: _SAMPLED + 1]
        seen = {path: look_at(uris[path]) for path in opened}
        common = Counter(seen.values()).most_common(1)[0][0]
        looks |= {path: seen.get(path, common) for path in paths}
    return looks


def look_at(uri: str) -> Look | None:
    """Return what a file looks like by its first bytes."""
    return recognise(store.read_start(uri, HEAD_BYTES))


def reject_unread(
    config: Config, reader: Any, uris: Mapping[str, str], labelled: Collection[str] = ()
) -> list[dict[str, str]]:
    """Return the rejects of files that are not read; `labelled` are the images whose labels are read.

    A file that looks like labels is a reject wherever it lies, any other file only below `source.annotations`.
    """
    known = {config.source.categories, *_split_lists(config)}
    uris = {path: uri for path, uri in uris.items() if uri not in known and not uri.startswith(f"{config.home}/")}
    candidates = {path: uri for path, uri in uris.items() if _may_be_label(path)}
    looks = recognise_files(candidates)
    stems = {name for path in labelled for name in (stem_of(path), posixpath.basename(path))} if looks else set()
    rows = []
    for path, uri in sorted(uris.items()):
        look = looks.get(path)
        if look is ARRAY and stem_of(path) in stems:
            continue  # the decoded image, which Ultralytics keeps beside it
        if look is not None and look.is_label:
            reason = "second_label" if stem_of(path) in stems else "unread_label"
            rows.append(reject("file", path, reason, look, expected_file(config, reader, path, look)))
        elif look is None and (unknown := _reason_of_unknown(config, path, uri)) is not None:
            kind = "an image, perhaps a mask" if suffix_of(path) in EXTENSIONS else "a file of no known label format"
            found = f"{kind} ({suffix_of(path) or 'without suffix'})"
            rows.append(reject("file", path, unknown, found, f"a label file of format {config.source.format}"))
    return rows


def reject_labels_beside(config: Config) -> list[dict[str, str]]:
    """Return the rejects of folders of label files that lie beside the images, where no label file is looked for.

    Such a folder is named like labels: `data/labels` for `data/images`, `data/labels/train` for `data/images/train`.
    """
    images = config.source.images.rstrip("/")
    parent, _, name = images.rpartition("/")
    above = parent.rpartition("/")[0]
    rows = []
    for place, below in ((parent, ""), (above, f"/{name}")):
        for beside in store.glob(f"{escape(place)}/*") if place else ():
            folder = f"{beside}{below}"
            is_candidate = names_kind(posixpath.basename(beside)) and not f"{images}/".startswith(f"{beside}/")
            if is_candidate and store.is_folder(folder) and (row := _reject_folder(config, folder)) is not None:
                rows.append(row)
    return rows


def _reject_folder(config: Config, folder: str) -> dict[str, str] | None:
    """Return the reject of a folder of label files, None if its first files look like none."""
    files = [file.path for file in list_folder(folder).files if _may_be_label(file.path)]
    looks = {path: look_at(store.join(folder, path)) for path in files[:_SAMPLED]}
    path, look = next(((path, look) for path, look in looks.items() if look is not None), ("", None))
    if look is None:
        return None
    is_read = look.format == config.source.format
    expected = f"source.annotations: {folder}" if is_read else f"source.annotations: {folder}; {look.advice}"
    return reject("file", folder, "unread_label", f"{count_of(len(files), 'file')} like {path}: {look}", expected)


def expected_file(config: Config, reader: Any, path: str, look: Look) -> str:
    """Return what should lie in place of a file that looks like another label file."""
    if look.format == config.source.format and not path.lower().endswith(reader.SUFFIX):
        return f"a name ending in {reader.SUFFIX}"
    return f"a {config.source.format} label file; {look.advice}"


def describe_looks(looks: Mapping[str, Look | None], label_format: str, suffix: str) -> Iterator[str]:
    """Yield a phrase for each look: how many files, two of them, and what to do; `suffix` is that of the format."""
    by_look: defaultdict[Look, list[str]] = defaultdict(list)
    for path, look in sorted(looks.items()):
        if look is not None:
            by_look[look].append(path)
    for look, paths in sorted(by_look.items(), key=lambda item: (-len(item[1]), item[0].name)):
        more = ", ..." if len(paths) > 2 else ""
        files = "file looks" if len(paths) == 1 else "files look"
        advice = f"rename to a name ending in {suffix}" if look.format == label_format else look.advice
        yield f"{len(paths)} {files} like {look} ({', '.join(paths[:2])}{more}): {advice}"


def describe_unknown(paths: Iterable[str], suffix: str) -> Iterator[str]:
    """Yield a phrase about the files that may hold labels although they look like no known format, if there are any."""
    if unknown := sorted(path for path in paths if _may_be_label(path) and not is_companion(path)):
        more = ", ..." if len(unknown) > 2 else ""
        files = "file is" if len(unknown) == 1 else "files are"
        found = f"{len(unknown)} {files} of no known label format ({', '.join(unknown[:2])}{more})"
        yield f"{found}, expected names ending in {suffix}"


def _may_be_label(path: str) -> bool:
    suffix = suffix_of(path)
    return suffix in DATA_SUFFIXES and not (is_companion(path) and suffix not in (".txt", ".json", ".xml", ".csv"))


def _reason_of_unknown(config: Config, path: str, uri: str) -> str | None:
    """Return why a file that looks like no labels is a reject, None if it is none."""
    places = [place.rstrip("/") for place in config.source.annotations]
    images = config.source.images.rstrip("/")
    if not places or is_companion(path):
        return None
    suffix = suffix_of(path)
    if suffix in (".txt", ".csv", ".lst") and is_image_list(path, store.read_start(uri, HEAD_BYTES)):
        return None
    if suffix == ".txt" and not store.read_start(uri, HEAD_BYTES).strip():  # an empty file without an image
        return None
    below_images = uri.startswith(f"{images}/") or any(f"{images}/".startswith(f"{place}/") for place in places)
    return "unread_label" if suffix in DATA_SUFFIXES and not below_images else "unknown_file"


def _split_lists(config: Config) -> Sequence[str]:
    split = config.source.split
    return (*split.train, *split.val, *split.test) if isinstance(split, SplitLists) else ()
