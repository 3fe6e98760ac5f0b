"""Write the samples of one part: encoded tiles, index rows, ledger rows."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from etl import boxes, schema
from etl.boxes import Boxes
from etl.stages import ledger, tile
from etl.storage import shard


class _SampleWriter:
    """Writes samples one after the other to a file and gathers their index rows and ledger rows."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.rows: list[dict[str, Any]] = []
        self.lengths: list[int] = []
        self.ledger: list[dict[str, Any]] = []
        self._offset = 0

    def add(self, row: dict[str, Any], image: bytes) -> None:
        row |= {"size": len(image), "sha256": hashlib.sha256(image).hexdigest(), "offset": self._offset}
        pieces = shard.sample_pieces(row["sample_id"], image, _record(row))
        self._file.writelines(pieces)
        length = sum(map(len, pieces))
        self.rows.append(row)
        self.lengths.append(length)
        self._offset += length

    def table(self) -> pa.Table:
        """The index rows; `offset` and the extra column `length` are those of the sample's tar blocks."""
        return schema.table(schema.SAMPLES, self.rows).append_column("length", pa.array(self.lengths, pa.int64()))


_RECORDED = (
    "sample_id", "split", "image_id", *boxes.XYXY, "scale", "width", "height", "recipe", "boxes", "ignore",
)  # fmt: skip
_to_json = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode


def _record(row: dict[str, Any]) -> bytes:
    return _to_json({name: row[name] for name in _RECORDED}).encode()


@dataclass(frozen=True)
class _Made:
    """A sample before it is written."""

    name: str
    cut: tile.Tile
    kind: str
    seed: int
    parameters: dict[str, Any]
    parents: list[str]
    boxes: Boxes
    rows: Any
    visibility: Any
    ignore: Boxes
    weights: Any | None


def _add(
    writer: _SampleWriter, image: dict[str, Any], rows: list[dict[str, Any]], made: _Made, data: bytes, buckets: Any
) -> None:
    sizes = np.bincount(buckets[made.rows], minlength=len(boxes.BUCKETS))
    x0, y0, x1, y1 = made.cut.window
    width, height = made.cut.size_wh
    writer.add(
        {
            "sample_id": made.name,
            "split": made.cut.split,
            "image_id": image["image_id"],
            "x0": x0, "y0": y0, "x1": x1, "y1": y1,
            "scale": made.cut.scale,
            "width": width,
            "height": height,
            "recipe": {
                "kind": made.kind,
                "seed": made.seed,
                "parameters": json.dumps(made.parameters, sort_keys=True),
                "parents": made.parents,
            },
            "boxes": [
                {
                    **_corners(made.boxes[number]),
                    "category": rows[row]["category"],
                    "annotation_id": rows[row]["annotation_id"],
                    "visibility": float(made.visibility[number]),
                    "weight": None if made.weights is None else float(made.weights[row]),
                }
                for number, row in enumerate(made.rows)
            ],
            "ignore": [_corners(box) for box in made.ignore],
            "counts": dict(zip(boxes.BUCKETS, sizes.tolist(), strict=True)),
        },
        data,
    )  # fmt: skip


def _corners(box: Any) -> dict[str, float]:
    return dict(zip(boxes.XYXY, (float(side) for side in box), strict=True))


def _ledger(
    writer: _SampleWriter,
    stage: str,
    sample: str,
    rows: list[dict[str, Any]],
    labelled: Any,
    visibility: Any,
    ignored: Any,
) -> None:
    for row, share in zip(labelled, visibility, strict=True):
        rule = "whole" if share >= 1 else "visible"
        writer.ledger.append(
            {**ledger.entry(rows[row]["annotation_id"], stage, "kept", rule, float(share)), "sample_id": sample}
        )
    for row in ignored:
        writer.ledger.append(
            {**ledger.entry(rows[row]["annotation_id"], stage, "ignored", "min_visibility"), "sample_id": sample}
        )
