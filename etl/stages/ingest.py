"""From one image's bytes and labels to rows: the image, its boxes, and what was wrong with either."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from etl.config import Config
from etl.errors import SourceError
from etl.formats.labels import ImageLabels, LabelBox
from etl.ids import AnnotationIds, image_id
from etl.imaging import codec
from etl.imaging.image_file import ImageFile
from etl.schema import LEDGER, REJECTS, place, reject, reject_bad_box, table
from etl.stages.ledger import Row, entry, entry_of_bad_box, written_ids

VERSION = 2
_TOLERANCE = 0.01  # px: a box that reaches less far outside its image is written with rounding, not wrongly
_FARTHEST = 1e9  # px: no coordinate, and nothing computed of those below it overflows


@dataclass
class Rows:
    """Rows for the tables, gathered over the images of one part."""

    images: list[Row] = field(default_factory=list)
    annotations: list[Row] = field(default_factory=list)
    ledger: list[Row] = field(default_factory=list)
    rejects: list[Row] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Return how many rows there are by now, by table."""
        return {name: len(rows) for name, rows in vars(self).items()}


def probe(path: str, file: ImageFile, max_megapixels: float) -> tuple[codec.Header, Row]:
    """Return an image's header and the columns its file alone decides; UnreadableImageError when it is unusable."""
    found = file.header(max_megapixels)
    measures = file.measure(found)
    width, height = found.upright_wh
    row = {
        "image_id": image_id(path),
        "path": PurePosixPath(path).as_posix(),  # as on the disk: only the id is normalised
        "sha256": file.sha256,
        "width": width,
        "height": height,
        "format": found.format,
        "exif_orientation": found.orientation,
        "exif_applied": found.orientation != 1,
        "phash": measures.phash,
        "brightness": measures.brightness,
        "contrast": measures.contrast,
        "sharpness": measures.sharpness,
    }
    return found, row


def settle_size(row: Row, found: codec.Header, labels: Sequence[ImageLabels]) -> str | None:
    """Decide in place, by the size its labels declare, whether EXIF turns the image; return a contradiction or None."""
    declared = {label.declared_wh for label in labels if label.declared_wh is not None and min(label.declared_wh) > 0}
    stored, turned = (found.width, found.height), found.upright_wh
    if not declared or declared == {turned}:
        return None
    if declared == {stored}:  # drawn on the image as stored
        row["width"], row["height"] = stored
        row["exif_applied"] = False
        return None
    return " and ".join(f"{w}x{h}" for w, h in sorted(declared))


def add_image(rows: Rows, row: Row, labels: Sequence[ImageLabels]) -> None:
    """Add one usable image and every box its label files hold; bad ones become rejects and dropped ledger rows."""
    rows.images.append({**row, "labelled": bool(labels)})
    ids = AnnotationIds(row["image_id"])
    for label in labels:
        for box in label.boxes:
            _add_box(
                rows,
                row,
                ids.box(box.category, box.xyxy) if _finite(box) else ids.text(repr((box.category, box.xyxy))),
                label.file,
                box,
            )
        for bad in label.bad:
            rows.rejects.append(reject_bad_box(place(label.file, bad.line), bad.reason, bad.found, bad.expected))
            rows.ledger.append(entry_of_bad_box(ids.text(bad.found), bad.reason))


def _finite(box: LabelBox) -> bool:
    return all(abs(side) < _FARTHEST for side in box.xyxy)


def _add_box(rows: Rows, image: Row, annotation: str, file: str, box: LabelBox) -> None:
    where = place(file, box.line)
    if not _finite(box):
        rows.rejects.append(reject("annotation", where, "not_finite", box.xyxy, "four finite numbers"))
        rows.ledger.append(entry(annotation, "ingest", "dropped", "not_finite"))
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
        }
    )  # fmt: skip
    size = f"{x1 - x0:g} x {y1 - y0:g} px"
    if box.empty or x1 <= x0 or y1 <= y0:
        rows.rejects.append(reject("annotation", where, "zero_size", size, "a box with positive sides"))
        rows.ledger.append(entry(annotation, "ingest", "dropped", "zero_size", 0.0))
        return
    width, height = image["width"], image["height"]
    if x0 >= width or y0 >= height or x1 <= 0 or y1 <= 0:
        found = f"{x0:g} {y0:g} {x1:g} {y1:g}"
        rows.rejects.append(reject("annotation", where, "outside_image", found, f"a box within {width}x{height}"))
        rows.ledger.append(entry(annotation, "ingest", "dropped", "outside_image"))
        return
    overflow = max(-x0, -y0, x1 - width, y1 - height)
    if overflow > _TOLERANCE:
        rows.ledger.append(entry(annotation, "ingest", "clipped", "image_border", overflow))


def discovered(annotations: pa.Table) -> list[str]:
    """Return the class names that occur, sorted; ignored regions are no class."""
    return sorted(set(annotations.filter(pc.invert(annotations["ignore"]))["category"].to_pylist()))


def refuse_unknown(tables: dict[str, pa.Table], categories: Sequence[str]) -> dict[str, pa.Table]:
    """Return the tables with every box of a class not among the categories rejected; its row stays, as written.

    A box that was rejected before keeps its first reason.
    """
    annotations, ledger = tables["annotations"], tables["ledger"]
    gone = ledger.filter(pc.equal(ledger["outcome"], "dropped"))["annotation_id"].combine_chunks()
    known = pc.or_(pc.is_in(annotations["category"], pa.array(categories, pa.string())), annotations["ignore"])
    passed = pc.or_(known, pc.is_in(annotations["annotation_id"], gone))
    unknown = annotations.filter(pc.invert(passed)).select(["annotation_id", "category", "file", "line"]).to_pylist()
    expected = f"one of the {len(categories)} known classes"
    rejects = [
        reject("annotation", place(row["file"], row["line"]), "unknown_category", row["category"], expected)
        for row in unknown
    ]
    dropped = [entry(row["annotation_id"], "ingest", "dropped", "unknown_category") for row in unknown]
    return tables | {
        "rejects": pa.concat_tables([tables["rejects"], table(REJECTS, rejects)]),
        "ledger": pa.concat_tables([ledger, table(LEDGER, dropped)]),
    }


def boxes_written(tables: dict[str, pa.Table]) -> int:
    """Return how many boxes the label files of the read images hold, unreadable ones included."""
    return len(written_ids(tables["annotations"], tables["ledger"]))


def check_rejects(config: Config, rejects: pa.Table, images: int, boxes: int) -> None:
    """Raise SourceError, naming the worst files, when more is rejected than the configuration allows."""
    by_kind = {kind: rejects.filter(pc.equal(rejects["kind"], kind)) for kind in ("image", "annotation")}
    totals = {"image": images + by_kind["image"].num_rows, "annotation": max(boxes, by_kind["annotation"].num_rows)}
    for kind, bad in by_kind.items():
        if bad.num_rows > config.source.max_rejects * totals[kind]:
            places = Counter(
                where.rsplit(":", 1)[0] if kind == "annotation" else where for where in bad["where"].to_pylist()
            )
            worst = ", ".join(f"{place} ({count})" for place, count in places.most_common(5))
            reasons = ", ".join(
                f"{reason} {count}" for reason, count in Counter(bad["reason"].to_pylist()).most_common()
            )
            raise SourceError(
                f"{config.name}: {bad.num_rows} of {totals[kind]} {kind}s cannot be used ({reasons}), "
                f"more than source.max_rejects {config.source.max_rejects:g} allows; the worst: {worst}"
            )
