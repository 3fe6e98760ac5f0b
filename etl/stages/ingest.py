"""Turn an image's file and labels into rows: the image, its boxes, ledger rows, and rejects with a reason."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from etl.formats.labels import BadBox, ImageLabels, LabelBox
from etl.ids import AnnotationIds, image_id
from etl.imaging import codec
from etl.imaging.image_file import ImageFile
from etl.numbers import count_of
from etl.schema import LEDGER, REJECTS, place, reject, reject_bad_box, table
from etl.stages.image_traits import TraitRow
from etl.stages.ledger import LedgerRow, ledger_row, ledger_row_of_bad_box
from etl.stages.rows import AnnotationRow, ImageFileRow, IngestedImageRow

VERSION = 6
_TOLERANCE = 0.01  # px: a box that extends less outside its image was rounded, and is not clipped
_MAX_COORDINATE = 1e9  # px: larger coordinates are rejected; nothing computed from smaller ones overflows


@dataclass
class IngestRows:
    """Rows for the tables, collected over the images of one part."""

    images: list[IngestedImageRow] = field(default_factory=list)
    annotations: list[AnnotationRow] = field(default_factory=list)
    ledger: list[LedgerRow] = field(default_factory=list)
    rejects: list[dict[str, str]] = field(default_factory=list)
    traits: list[TraitRow] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Return the current number of rows by table."""
        return {name: len(rows) for name, rows in vars(self).items()}


def probe_image(
    path: str, file: ImageFile, max_megapixels: float, exif: Literal["apply", "ignore"] = "apply"
) -> tuple[codec.Header, ImageFileRow]:
    """Return an image's header and the columns its file alone decides; UnreadableImageError when it is unusable.

    The measures of an image of more than 8 bits are null until the range of its values is known.
    """
    header = file.header(max_megapixels)
    if file.needs_range:
        _ = file.value_stats  # decodes the image, as its measures do
    measures = None if file.needs_range else file.measure(header)
    width, height = header.upright_wh if exif == "apply" else (header.width, header.height)
    row: ImageFileRow = {
        "image_id": image_id(path),
        "path": PurePosixPath(path).as_posix(),  # as on the disk: only the id is normalised
        "sha256": file.sha256,
        "width": width,
        "height": height,
        "format": header.format,
        "exif_orientation": header.orientation,
        "exif_applied": header.orientation != 1 and exif == "apply",
        "phash": measures.phash if measures is not None else None,
        "brightness": measures.brightness if measures is not None else None,
        "contrast": measures.contrast if measures is not None else None,
        "sharpness": measures.sharpness if measures is not None else None,
    }
    return header, row


def apply_declared_size(row: ImageFileRow, header: codec.Header, labels: Sequence[ImageLabels]) -> str | None:
    """Set the row's size and `exif_applied` by the size that its labels declare; return a contradiction, else None.

    Labels that declare the stored size were drawn without applying the EXIF orientation. Where both sizes are equal,
    the row stays as `source.exif` says.
    """
    declared = {label.declared_wh for label in labels if label.declared_wh is not None and min(label.declared_wh) > 0}
    stored, upright = (header.width, header.height), header.upright_wh
    if not declared or (declared == {stored} == {upright}):
        return None
    if declared in ({stored}, {upright}):
        ((row["width"], row["height"]),) = declared
        row["exif_applied"] = declared == {upright} and header.orientation != 1
        return None
    return " and ".join(f"{w}x{h}" for w, h in sorted(declared))


def add_image(rows: IngestRows, row: ImageFileRow, labels: Sequence[ImageLabels]) -> bool:
    """Add a usable image and every box of its label files; an invalid box becomes a reject and a dropped ledger row.

    An image is not used, and False is returned, if nothing of its labels can be read: it may show objects.
    """
    if (unreadable := _unreadable(labels)) is not None:
        file, bad = unreadable
        rows.rejects.append(reject("image", row["path"], bad.reason, f"{file}: {bad.found}", bad.expected))
        return False
    rows.images.append({**row, "labelled": bool(labels)})
    ids = AnnotationIds(row["image_id"])
    for label in labels:
        for box in label.boxes:
            _add_box(
                rows,
                row,
                ids.box(box.category, box.xyxy) if _is_finite(box) else ids.text(repr((box.category, box.xyxy))),
                label.file,
                box,
            )
        for bad in label.bad:
            rows.rejects.append(reject_bad_box(_place(label.file, row, bad), bad.reason, bad.found, bad.expected))
            rows.ledger.append(ledger_row_of_bad_box(ids.text(bad.found), bad.reason))
    return True


def _unreadable(labels: Sequence[ImageLabels]) -> tuple[str, BadBox] | None:
    """Return the first label file that cannot be read, and why, unless boxes of another one are known."""
    if any(label.boxes for label in labels):
        return None
    bad = ((label.file, bad) for label in labels for bad in label.bad)
    return next(((file, entry) for file, entry in bad if entry.reason == "unreadable_label"), None)


def reject_image(rows: IngestRows, rejected: dict[str, str], labels: Sequence[ImageLabels]) -> None:
    """Add the reject of an image, and for each of its boxes a reject with the same reason and a ledger row."""
    why = {key: rejected[key] for key in ("reason", "found", "expected")}
    boxes: list[dict[str, str]] = []
    for label in labels:
        entries: list[LabelBox | BadBox] = [*label.boxes, *label.bad]
        for box in entries:
            where = place(label.file, box.line, rejected["where"], box.source_id)
            boxes.append(reject("annotation", where, **why))
    rows.rejects += [rejected, *boxes]
    rows.ledger += drop_unread(boxes, rejected["where"])


def drop_unread(rejects: Iterable[Mapping[str, str]], image: str = "") -> list[LedgerRow]:
    """Return the ledger rows of the boxes among the rejects of one image, or of no image."""
    ids = AnnotationIds(image_id(image) if image else image)
    return [
        ledger_row_of_bad_box(ids.text(row["where"]), row["reason"]) for row in rejects if row["kind"] == "annotation"
    ]


def _is_finite(box: LabelBox) -> bool:
    return all(abs(side) < _MAX_COORDINATE for side in box.xyxy)


def _add_box(rows: IngestRows, image: ImageFileRow, annotation: str, file: str, box: LabelBox) -> None:
    location = _place(file, image, box)
    if not _is_finite(box):
        rows.rejects.append(reject("annotation", location, "not_finite", box.xyxy, "four finite numbers"))
        rows.ledger.append(ledger_row(annotation, "ingest", "dropped", "not_finite"))
        return
    x0, y0, x1, y1 = box.xyxy
    rows.annotations.append(
        {
            "annotation_id": annotation,
            "image_id": image["image_id"],
            "category": box.category,
            "x0": x0, "y0": y0, "x1": x1, "y1": y1,
            "crowd": box.crowd,
            "ignore": box.ignore,
            "difficult": box.difficult,
            "truncated": box.truncated,
            "occluded": box.occluded,
            "area": box.area if box.area is not None else max(x1 - x0, 0.0) * max(y1 - y0, 0.0),
            "polygon": None if box.polygon is None else list(box.polygon),
            "track_id": box.track_id,
            "extra": json.dumps(box.extra, sort_keys=True, ensure_ascii=False) if box.extra else None,
            "file": file,
            "line": box.line,
            "source_id": box.source_id,
        }
    )  # fmt: skip
    if box.corrected is not None:
        rows.ledger.append(ledger_row(annotation, "ingest", "kept", box.corrected))
    size = f"{x1 - x0:g} x {y1 - y0:g} px"
    if box.empty or x1 <= x0 or y1 <= y0:
        rows.rejects.append(reject("annotation", location, "zero_size", size, "a box with positive sides"))
        rows.ledger.append(ledger_row(annotation, "ingest", "dropped", "zero_size", 0.0))
        return
    width, height = image["width"], image["height"]
    if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
        corners = f"{x0:g} {y0:g} {x1:g} {y1:g}"
        rows.rejects.append(reject("annotation", location, "outside_image", corners, f"a box within {width}x{height}"))
        rows.ledger.append(ledger_row(annotation, "ingest", "dropped", "outside_image"))
        return
    overflow = max(-x0, -y0, x1 - width, y1 - height)
    if overflow > _TOLERANCE:
        rows.ledger.append(ledger_row(annotation, "ingest", "clipped", "image_border", overflow))


def _place(file: str, image: ImageFileRow, box: LabelBox | BadBox) -> str:
    return place(file, box.line, image["path"], box.source_id)


def reject_unknown_categories(tables: dict[str, pa.Table], categories: Sequence[str]) -> dict[str, pa.Table]:
    """Return the tables with every box of a class outside `categories` rejected; its annotation row is kept.

    A box that was already rejected keeps its first reason.
    """
    annotations = tables["annotations"]
    known = pc.or_(pc.is_in(annotations["category"], pa.array(categories, pa.string())), annotations["ignore"])
    unknown = annotations.filter(pc.invert(pc.or_(known, is_dropped(tables))))
    expected = f"one of the {count_of(len(categories), 'known class')}"
    return add_drops(tables, unknown, "unknown_category", unknown["category"].to_pylist(), expected)


def is_dropped(tables: Mapping[str, pa.Table]) -> pa.ChunkedArray:
    """Return, for each row of annotations, whether the box is rejected already."""
    ledger = tables["ledger"]
    rejected = ledger.filter(pc.equal(ledger["outcome"], "dropped"))["annotation_id"].combine_chunks()
    return pc.is_in(tables["annotations"]["annotation_id"], rejected)


def add_drops(
    tables: dict[str, pa.Table], boxes: pa.Table, reason: str, found: Iterable[object], expected: str
) -> dict[str, pa.Table]:
    """Return the tables with a reject and a ledger row for each of these annotations, of which `found` has values."""
    rows = boxes.select(["annotation_id", "image_id", "file", "line", "source_id"]).to_pylist()
    path_of = dict(zip(*(tables["images"][name].to_pylist() for name in ("image_id", "path")), strict=True))
    rejects = [
        reject(
            "annotation",
            place(row["file"], row["line"], path_of[row["image_id"]], row["source_id"]),
            reason,
            text,
            expected,
        )
        for row, text in zip(rows, found, strict=True)
    ]
    dropped = [ledger_row(row["annotation_id"], "ingest", "dropped", reason) for row in rows]
    return tables | {
        "rejects": pa.concat_tables([tables["rejects"], table(REJECTS, rejects)]),
        "ledger": pa.concat_tables([tables["ledger"], table(LEDGER, dropped)]),
    }


def count_boxes(tables: Mapping[str, pa.Table]) -> int:
    """Return the number of boxes in the label files, including rejected ones."""
    annotations, noted = tables["annotations"]["annotation_id"], pc.unique(tables["ledger"]["annotation_id"])
    of_table = pc.sum(pc.is_in(annotations, noted)).as_py() or 0  # each has an id of its own
    return len(annotations) + len(noted) - int(of_table)
