"""Join the images, annotations and categories of COCO documents by their ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.boxes import XYXY
from etl.formats import coco_repeats
from etl.formats.coco_categories import read_categories
from etl.formats.coco_columns import Annotations, Ints
from etl.formats.coco_content import Content
from etl.formats.coco_images import NO_IMAGE, ImageRow
from etl.formats.coco_numbers import same_id
from etl.formats.image_index import ImageIndex
from etl.formats.image_names import NameMatches, NameRules, explain_missing, match_names
from etl.formats.label_table import BAD, BOX, LABELS, bad_row, group_rows
from etl.formats.labels import BadBox
from etl.formats.text import excerpt

__all__ = ["NO_IMAGE", "Document", "join", "merge"]


@dataclass
class Document:
    """One COCO document, joined: entries are its images, and one more for what belongs to none."""

    file: str
    entries: list[dict[str, Any]] = field(default_factory=list)  # columns path, name, width, height of LABELS
    boxes: pa.Table = field(default_factory=BOX.empty_table)
    box_entry: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    box_image: Ints = field(default_factory=lambda: np.empty(0, np.int64))  # code of the image id
    bad: list[tuple[int, BadBox, bool]] = field(default_factory=list)  # entry, reason, whether it is the image's
    categories: Mapping[Any, str] = field(default_factory=dict)  # declared, by id
    root: str | None = None  # the category that is the supercategory of all others
    bad_categories: Sequence[BadBox] = ()
    ways: Mapping[str, int] = field(default_factory=dict)
    as_text: int = 0
    is_keypoints: bool = False


def join(file: str, content: Content, index: ImageIndex, rules: NameRules, names: Sequence[str] | None) -> Document:
    """Return the document with each annotation at its image and with its category's name.

    SourceError if its categories cannot be known.
    """
    annotations = content.annotations
    declared = read_categories(file, content.categories, annotations.category_ids, names)
    rows = content.images
    matches = match_names(file, (row.name for row in rows), index, rules)
    document = Document(file, categories=declared.names, root=declared.root, ways=Counter(matches.ways.values()))
    document.bad_categories = declared.bad
    document.is_keypoints = annotations.kinds["keypoints"] > 0
    entry_of_id = _add_entries(document, rows, matches)
    _reject_missing(document, matches, index, rules)
    nowhere = len(document.entries)
    document.entries.append({"path": None, "name": NO_IMAGE, "width": None, "height": None})
    document.bad += [(nowhere, bad, True) for bad in content.unnamed]
    _join_annotations(document, annotations, entry_of_id, nowhere)
    return document


def _add_entries(document: Document, rows: Iterable[ImageRow], matches: NameMatches) -> dict[Any, list[int]]:
    """Add an entry for each image, and return the entries of each image id."""
    number_of: dict[tuple[str | None, str], int] = {}
    entries_of: dict[Any, list[int]] = {}
    names_of: dict[Any, list[str]] = {}
    for row in rows:
        path = matches.found.get(row.name)
        number = number_of.setdefault((path, row.name if path is None else path), len(number_of))
        if number == len(document.entries):
            document.entries.append({"path": path, "name": row.name, "width": None, "height": None})
            if row.name in matches.ambiguous:
                others = excerpt(", ".join(matches.ambiguous[row.name]))
                document.bad.append((number, BadBox("ambiguous_label", others, "one image for each name"), True))
        entry = document.entries[number]
        if entry["width"] is None and row.declared_wh is not None:
            entry["width"], entry["height"] = row.declared_wh
        if number not in (known := entries_of.setdefault(row.key, [])):
            known.append(number)
            names_of.setdefault(row.key, []).append(row.name)
    for key, numbers in entries_of.items():
        if len(numbers) > 1:
            found = excerpt(f"image id {key}: {', '.join(names_of[key])}")
            document.bad += [(n, BadBox("ambiguous_image_id", found, "an id for each image"), True) for n in numbers]
    return entries_of


def _reject_missing(document: Document, matches: NameMatches, index: ImageIndex, rules: NameRules) -> None:
    """Say of each image that was not found what was tried, and what would find it."""
    names = [entry["name"] for entry in document.entries]
    missing = [name for name in names if name not in matches.found and name not in matches.ambiguous]
    if missing:
        found, expected = explain_missing(sorted(set(missing)), index, rules)
        lost = {name: BadBox("missing_image", found, expected) for name in missing}
        for name in lost.keys() & matches.elsewhere.keys():
            contrary = f"no such image: {matches.elsewhere[name]} has its name, but another split or folder"
            lost[name] = BadBox("missing_image", contrary, "an image file, or a rule in source.match")
        document.bad += [(number, lost[name], True) for number, name in enumerate(names) if name in lost]


def _join_annotations(
    document: Document, annotations: Annotations, entries_of: dict[Any, list[int]], nowhere: int
) -> None:
    image, category = annotations.image(), annotations.category()
    image_keys, loose_images = _resolve(annotations.image_ids, entries_of)
    category_keys, loose_categories = _resolve(annotations.category_ids, document.categories)
    entry_of_code = np.array([nowhere if key is None else entries_of[key][0] for key in image_keys] or [nowhere])
    ambiguous = np.array([key is not None and len(entries_of[key]) > 1 for key in image_keys] or [False])
    unknown = np.array([key is None for key in image_keys] or [True])
    entry = entry_of_code[image] if len(image) else np.empty(0, np.int64)
    boxes, numbers = annotations.boxes()
    has_name = np.array([key is not None for key in category_keys] or [False])
    lost = unknown[image] | ambiguous[image] if len(image) else np.empty(0, bool)
    keep = ~lost[numbers] & has_name[category[numbers]]
    named = pa.array([None if key is None else document.categories[key] for key in category_keys], pa.string())
    kept = numbers[keep]
    boxes = boxes.filter(pa.array(keep))
    document.boxes = boxes.set_column(0, BOX.field("category"), named.take(pa.array(category[kept])))
    document.box_entry, document.box_image = entry[kept], image[kept]
    document.as_text = annotations.as_text + int((loose_images[image] | loose_categories[category])[kept].sum())
    ids = annotations.source_ids()
    unclear = {number: bad for number, bad in annotations.bad if bad.reason == coco_repeats.REASON}
    for number in np.flatnonzero(lost).tolist():
        code = image[number]
        names = [document.entries[n]["name"] for n in entries_of.get(image_keys[code], ())]
        bad = unclear.get(number) or _lost_image(annotations.image_ids[code], names, ids[number].as_py())
        document.bad.append((int(entry[number]), bad, False))
    document.bad += [(int(entry[number]), bad, False) for number, bad in annotations.bad if not lost[number]]
    for number in numbers[~keep & ~lost[numbers]].tolist():
        found = f"category_id {_shown(annotations.category_ids[category[number]])}"
        expected = "the id of a category in the same file"
        bad = BadBox("unknown_category_id", found, expected, source_id=ids[number].as_py())
        document.bad.append((int(entry[number]), bad, False))


def _lost_image(key: Any, names: Sequence[str], source_id: str) -> BadBox:
    """Return why an annotation has no image: several entries, which have these names, have its id, or none has."""
    if names:
        found = excerpt(f"image id {key}: {', '.join(names)}")
        return BadBox("ambiguous_image_id", found, "the id of one image", source_id=source_id)
    expected = "the id of an image in the same file"
    return BadBox("unknown_image_id", f"image_id {_shown(key)}", expected, source_id=source_id)


def _shown(key: Any) -> str:
    return key[0] if isinstance(key, tuple) else excerpt(repr(key))


def _resolve(ids: Sequence[Any], known: Mapping[Any, Any]) -> tuple[list[Any], np.ndarray[Any, np.dtype[np.bool_]]]:
    """Return the known id that each id means, None if there is none, and whether the two differ in their type.

    An id that is not known means the only known one that differs in its type, as "1" from 1.
    """
    alike: dict[Any, list[Any]] = {}
    if not all(key in known for key in ids):
        for key in known:
            alike.setdefault(same_id(key), []).append(key)
    found, loose = [], []
    for key in ids:
        others = [] if key in known or isinstance(key, tuple) else alike.get(same_id(key), [])
        found.append(key if key in known else others[0] if len(others) == 1 else None)
        loose.append(len(others) == 1)
    return found, np.array(loose or [False])


def merge(documents: Sequence[Document]) -> tuple[pa.Table, dict[str, int]]:
    """Return the labels of all documents by image, and how many boxes of keypoint files other files hold too.

    A box that another file, or another image id, has already given to its image is a duplicate.
    """
    documents = sorted(documents, key=lambda document: (document.is_keypoints, document.file))
    repeated: dict[str, int] = {}
    first: dict[tuple[Any, ...], tuple[str, int]] = {}
    shared = _images_of_several(documents)
    tables = []
    for document in documents:
        keep = np.ones(document.boxes.num_rows, dtype=bool)
        paths = [entry["path"] for entry in document.entries]
        is_shared = np.array([path in shared for path in paths], dtype=bool)
        rows = np.flatnonzero(is_shared[document.box_entry])
        for row, box in zip(rows.tolist(), document.boxes.select(_SAME).take(pa.array(rows)).to_pylist(), strict=True):
            entry, source = int(document.box_entry[row]), (document.file, int(document.box_image[row]))
            key = (paths[entry], *box.values())
            if first.setdefault(key, source) == source:
                continue
            keep[row] = False
            if document.is_keypoints and first[key][0] != document.file:
                repeated[document.file] = repeated.get(document.file, 0) + 1
            else:
                found = f"{box['category']} {tuple(box[side] for side in XYXY)}"
                source_id = document.boxes["source_id"][row].as_py()
                document.bad.append((entry, BadBox("duplicate_annotation", found, _ONCE, None, source_id), False))
        tables.append(_table(document, keep))
    labels = pa.concat_tables(tables)
    order = sorted(range(labels.num_rows), key=_order(labels))
    return labels.take(pa.array(order, pa.int64())).combine_chunks(), repeated


_SAME = ["category", *XYXY, "crowd"]  # what equal boxes of one image share
_ONCE = "each box in one file, for one image id"


def _images_of_several(documents: Iterable[Document]) -> set[str]:
    """Return the images that several files or several image ids have boxes for."""
    sources: dict[str, tuple[str, int]] = {}
    shared = set[str]()
    for document in documents:
        pairs = np.stack([document.box_entry, document.box_image])
        is_new = np.ones(pairs.shape[1], dtype=bool)
        is_new[1:] = (np.diff(pairs) != 0).any(axis=0)  # files usually hold the boxes of an image together
        for entry, image in pairs[:, is_new].T.tolist():
            path, source = document.entries[entry]["path"], (document.file, image)
            if path is not None and sources.setdefault(path, source) != source:
                shared.add(path)
    return shared


def _table(document: Document, keep: np.ndarray[Any, np.dtype[np.bool_]]) -> pa.Table:
    count = len(document.entries)
    bad = sorted(document.bad, key=lambda row: row[0])
    bad_rows = pa.Table.from_pylist([{**bad_row(box), "of_image": of_image} for _, box, of_image in bad], schema=BAD)
    bad_entry = np.array([entry for entry, _, _ in bad], np.int64)
    boxes = document.boxes.filter(pa.array(keep)) if not keep.all() else document.boxes
    columns = {name: [entry[name] for entry in document.entries] for name in ("path", "name", "width", "height")}
    columns["file"] = [document.file] * count
    table = (
        pa.table(
            {
                **columns,
                "boxes": group_rows(boxes, document.box_entry[keep], count),
                "bad": group_rows(bad_rows, bad_entry, count),
            }
        )
        .select(LABELS.names)
        .cast(LABELS)
    )
    is_used = pc.or_(pc.greater(pc.binary_length(table["name"]), 0), pc.greater(pc.list_value_length(table["bad"]), 0))
    return table.filter(is_used)


def _order(labels: pa.Table) -> Any:
    paths, names, files = (labels[name].to_pylist() for name in ("path", "name", "file"))
    return lambda row: (
        paths[row] is None and names[row] == NO_IMAGE, paths[row] or names[row], paths[row] is None, files[row],
    )  # fmt: skip
