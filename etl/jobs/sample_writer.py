"""Write the samples of one part: tar blocks with the encoded images, index rows and ledger rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from etl import boxes, schema
from etl.boxes import XYXY
from etl.stages.ledger import LedgerRow, ledger_row
from etl.stages.rows import AnnotationRow
from etl.stages.samples import Sample
from etl.storage import shard

_RECORDED = (
    "sample_id", "split", "image_id", *XYXY, "scale", "width", "height", "recipe", "boxes", "ignore",
)  # fmt: skip
_to_json = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode


@dataclass(frozen=True)
class SourceObjects:
    """The annotations of an image and of its donors, in the order in which samples number them."""

    rows: Sequence[AnnotationRow]
    sides: NDArray[np.float64]  # [N] side lengths in source pixels

    @cached_property
    def buckets(self) -> NDArray[np.int64]:
        """The size bucket of each [N]."""
        return boxes.bucket(self.sides)


class SampleWriter:
    """Writes the tar blocks of samples to a file, one after the other, and collects their index and ledger rows."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._offset = 0
        self._rows: list[Mapping[str, object]] = []
        self._lengths: list[int] = []
        self._ledger: list[LedgerRow] = []

    def add(self, sample: Sample, jpeg: bytes, objects: SourceObjects) -> None:
        """Write a sample, whose labels and ignore regions are rows of `objects`."""
        row = _index_row(sample, objects)
        record = _to_json({name: row[name] for name in _RECORDED}).encode()
        pieces = shard.sample_pieces(sample.sample_id, jpeg, record)
        self._file.writelines(pieces)
        self._rows.append(
            {**row, "size": len(jpeg), "sha256": hashlib.sha256(jpeg).hexdigest(), "offset": self._offset}
        )
        self._lengths.append(sum(map(len, pieces)))
        self._offset += self._lengths[-1]
        self._ledger += _ledger_rows(sample, objects.rows)

    def index_table(self) -> pa.Table:
        """Return the index rows; `offset` and the extra column `length` are those of the sample's tar blocks."""
        return schema.table(schema.SAMPLES, self._rows).append_column("length", pa.array(self._lengths, pa.int64()))

    def ledger_table(self) -> pa.Table:
        """Return the ledger rows: which annotation is a label or an ignore region in which sample."""
        return schema.table(schema.LEDGER, self._ledger)


def _index_row(sample: Sample, objects: SourceObjects) -> dict[str, object]:
    """Return the row of `schema.SAMPLES` without the columns that the encoded image decides."""
    width, height = sample.tile.size_wh
    counts = np.bincount(objects.buckets[sample.rows], minlength=len(boxes.BUCKETS))
    return {
        "sample_id": sample.sample_id,
        "split": sample.tile.split,
        "image_id": sample.image_id,
        **dict(zip(XYXY, sample.tile.window, strict=True)),
        "scale": sample.tile.scale,
        "width": width,
        "height": height,
        "recipe": {
            "kind": sample.kind,
            "seed": sample.seed,
            "parameters": json.dumps(sample.parameters, sort_keys=True),
            "parents": list(sample.parents),
        },
        "boxes": [
            {
                **_corners(sample.boxes[label]),
                "category": objects.rows[row]["category"],
                "annotation_id": objects.rows[row]["annotation_id"],
                "visibility": float(sample.visibility[label]),
                "weight": None if sample.weights is None else float(sample.weights[label]),
            }
            for label, row in enumerate(sample.rows)
        ],
        "ignore": [_corners(box) for box in sample.ignore],
        "counts": dict(zip(boxes.BUCKETS, counts.tolist(), strict=True)),
    }


def _corners(box: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(XYXY, box.tolist(), strict=True))


def _ledger_rows(sample: Sample, rows: Sequence[AnnotationRow]) -> list[LedgerRow]:
    stage = "tile" if sample.kind == schema.BASE else "augment"
    labels = [
        ledger_row(
            rows[row]["annotation_id"], stage, "kept", "whole" if share >= 1 else "visible", share, sample.sample_id
        )
        for row, share in zip(sample.rows, sample.visibility.tolist(), strict=True)
    ]
    too_small = sample.tile.too_small.tolist() if sample.kind == schema.BASE else [False] * len(sample.ignored)
    ignored = [
        ledger_row(
            rows[row]["annotation_id"], stage, "ignored", "coarse_min_side" if small else "min_visibility",
            sample_id=sample.sample_id,
        )
        for row, small in zip(sample.ignored, too_small, strict=True)
    ]  # fmt: skip
    return labels + ignored
