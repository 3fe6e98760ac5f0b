"""Read label files that list their images."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl.codes import FINDINGS, Severity
from etl.execution import progress
from etl.findings import Finding, finding
from etl.formats import coco
from etl.formats.coco_document import Piece
from etl.formats.image_index import ImageIndex
from etl.formats.image_names import BESIDE, GUESS_OF, MATCH, ROOT, TAIL, NameRules, match_names
from etl.formats.label_table import LABELS, from_labels
from etl.schema import place, reject
from etl.sources.listed_labels import ListedLabels

_TRACKED = 20_000_000  # characters from which the reading of a file reports its progress
_SHOWN = 3  # files that a finding explains
_MISSING = {"reason": "missing_image", "found": "no such file", "expected": "an image file"}

Row = dict[str, str]  # of the rejects


@dataclass(frozen=True)
class DatasetLabels:
    """The labels of a source whose label files list their images, and what could not be used."""

    listed: ListedLabels = field(default_factory=ListedLabels)
    categories: Sequence[str] | None = None  # declared by the label files
    rejects: Sequence[Row] = ()
    findings: Sequence[Finding] = ()
    guesses: tuple[str, ...] = ()
    images_of_file: Mapping[str, Collection[str]] | None = None  # known for COCO
    roots: tuple[str, ...] = ()  # categories that are the supercategory of all others in their file


def read_datasets(
    reader: Any,
    contents: Mapping[str, bytes],
    images: Sequence[str],
    rules: NameRules | None = None,
    names: Sequence[str] | None = None,
) -> DatasetLabels:
    """Return the labels by listed image, each file parsed once; `names` are the configured categories.

    An image whose labels are unclear is rejected with all its boxes, not used without them.
    """
    if reader is coco:
        return _read_coco(contents, images, rules or NameRules(), names)
    labels = from_labels(reader.read_dataset(dict(contents), images))
    if rules is not None and rules.match is not None:
        labels = _match_missing(labels, images, NameRules(rules.match, ()))
    listed, rejects = _split_unusable(labels, images)
    declared = reader.categories(dict(contents)) if hasattr(reader, "categories") else None
    return DatasetLabels(listed, declared, rejects)


def _read_coco(
    contents: Mapping[str, bytes], images: Sequence[str], rules: NameRules, names: Sequence[str] | None
) -> DatasetLabels:
    read = coco.read_tables(contents, images, rules, names, _track)
    listed, rejects = _split_unusable(read.labels, images)
    expected = "lists 'images' and 'annotations', as COCO has them"
    unread = [row for row in read.skipped if row.holds_boxes]
    rejects += [reject("file", row.file, "unread_label", row.reason, expected) for row in unread]
    rejects += [
        reject("file", f"{file}: {bad.source_id}", bad.reason, bad.found, bad.expected)
        for file, bad in read.bad_categories
    ]
    guesses = tuple(sorted(GUESS_OF[way] for way in read.ways if way in GUESS_OF))
    of_files = coco.images_of_files(read.labels)
    return DatasetLabels(
        listed, read.categories, rejects, tuple(_findings(read)), guesses, of_files, tuple(sorted(read.roots))
    )


def _match_missing(labels: pa.Table, images: Sequence[str], rules: NameRules) -> pa.Table:
    """Return the labels with the images of `source.match` for names that the reader found no image for."""
    paths, names, files = (labels[column].to_pylist() for column in ("path", "name", "file"))
    read = set(paths)
    index = ImageIndex([image for image in images if image not in read])
    missing: dict[str, set[str]] = {}
    for path, name, file in zip(paths, names, files, strict=True):
        if path is None and name:
            missing.setdefault(file, set()).add(name)
    found = {file: match_names(file, written, index, rules).found for file, written in missing.items()}
    matched = [
        found.get(file, {}).get(name) if path is None else path
        for path, name, file in zip(paths, names, files, strict=True)
    ]
    return labels.set_column(0, LABELS.field("path"), pa.array(matched, pa.string()))


def _track(pieces: Iterable[Piece], file: str, total: int) -> Iterable[Piece]:
    if total < _TRACKED:
        return pieces
    return progress.track(pieces, file, total, "character", count=lambda piece: piece.size)


def _split_unusable(labels: pa.Table, images: Sequence[str]) -> tuple[ListedLabels, list[Row]]:
    """Return the labels of the usable images, and the rejects of all others and of the images without labels."""
    bad = labels["bad"].combine_chunks()
    unclear = pc.list_parent_indices(bad).filter(pc.list_flatten(bad).field("of_image"))
    unclear_paths = pc.unique(labels["path"].take(unclear)).drop_null()
    unusable = pc.or_(pc.is_null(labels["path"]), pc.is_in(labels["path"], unclear_paths))
    rejects = list(_rejects_of_images(labels.filter(unusable)))
    known = set(labels["path"].to_pylist())
    rejects += [
        reject("file", path, "unlisted_image", "in no label file", "an entry that lists the image")
        for path in images
        if path not in known
    ]
    return ListedLabels(labels.filter(pc.invert(unusable))), rejects


def _rejects_of_images(rows: pa.Table) -> Iterator[Row]:
    """Yield the rejects of images that cannot be used, once for each image, and of all their annotations."""
    paths = rows["path"].to_pylist()
    own = [next((bad for bad in found if bad["of_image"]), None) for found in rows["bad"].to_pylist()]
    of_path = {path: bad for path, bad in zip(paths, own, strict=True) if bad is not None and path is not None}
    seen: set[str] = set()
    for number, path in enumerate(paths):
        row = rows.slice(number, 1).to_pylist()[0]
        reason = own[number] or of_path.get(path) or _MISSING
        where = f"{row['file']}: {row['name']}" if path is None else path
        if row["name"] != coco.NO_IMAGE and where not in seen:
            seen.add(where)
            yield _reject("image", where, reason)
        for box in row["boxes"]:
            yield _reject("annotation", place(row["file"], box["line"], row["name"], box["source_id"]), reason)
        for bad in row["bad"]:
            if not bad["of_image"]:
                yield _reject("annotation", place(row["file"], bad["line"], row["name"], bad["source_id"]), bad)
            elif row["name"] == coco.NO_IMAGE:
                yield _reject("image", f"{row['file']}: {bad['source_id']}", bad)


def _reject(kind: str, where: str, bad: Mapping[str, Any]) -> Row:
    return {"kind": kind, "where": where, **{key: bad[key] for key in ("reason", "found", "expected")}}


def _findings(read: coco.CocoLabels) -> Iterator[Finding]:
    """Yield what was guessed, and which files were not used."""
    unusual = {way: count for way, count in read.ways.items() if way not in (BESIDE, ROOT)}
    if unusual:
        counts = ", ".join(f"{count} {way}" for way, count in sorted(read.ways.items()))
        severity: Severity = "info" if unusual.keys() <= {MATCH, TAIL} else "warning"
        entry = FINDINGS["image_names"]
        advice = f"{entry.meaning} Found: {counts}. {entry.cure}"
        yield finding("image_names", advice, count=sum(unusual.values()), severity=severity)
    if without_boxes := [row for row in read.skipped if not row.holds_boxes]:
        reasons = "; ".join(f"{row.file} {row.reason}" for row in without_boxes[:_SHOWN])
        more = f"; and {len(without_boxes) - _SHOWN} more" if len(without_boxes) > _SHOWN else ""
        advice = f"{FINDINGS['files_without_boxes'].meaning} {reasons}{more}."
        yield finding("files_without_boxes", advice, [row.file for row in without_boxes], count=len(without_boxes))
    for code, counts_of in (("repeated_by_keypoints", read.repeated), ("loose_types", read.as_text)):
        if counts_of:
            yield finding(code, None, sorted(counts_of), count=sum(counts_of.values()))
