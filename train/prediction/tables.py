"""The tables that `speck predict` writes: COCO JSON, a list of COCO results, and Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from etl.boxes import XYXY
from etl.storage import store
from train.detections import Detections
from train.prediction.inputs import RESULTS

_TABLE = pa.schema(
    [
        ("file", pa.string()), ("category", pa.string()), ("score", pa.float64()),
        *((side, pa.float64()) for side in XYXY),
    ]
)  # fmt: skip
_RESULT = ("image_id", "category_id", "bbox", "score")  # of a detection, as pycocotools' loadRes takes it


class Written(NamedTuple):
    """The paths of the files."""

    detections: str
    results: str
    table: str


@dataclass
class Tables:
    """The detections of all frames, as a COCO document, as a COCO results list and as table columns."""

    categories: Sequence[str]
    _images: list[dict[str, Any]] = field(default_factory=list)
    _annotations: list[dict[str, Any]] = field(default_factory=list)
    _columns: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in _TABLE.names})

    @property
    def images(self) -> int:
        return len(self._images)

    def add(self, name: str, wh: tuple[int, int], detections: Detections) -> None:
        """Append the detections of a frame."""
        image_id, first_id = len(self._images) + 1, len(self._annotations) + 1
        self._images.append({"id": image_id, "file_name": name, "width": wh[0], "height": wh[1]})
        self._annotations += _coco_annotations(detections, image_id, first_id, self.categories)
        self._columns["file"] += [name] * len(detections)
        self._columns["category"] += [self.categories[category] for category in detections.category.tolist()]
        self._columns["score"] += detections.score.tolist()
        for side, values in zip(XYXY, detections.xyxy.T.tolist(), strict=True):
            self._columns[side] += values

    def write(self, out: Path, pictures: Sequence[str]) -> Written:
        """Write detections.json, which names the pictures, results.json and detections.parquet; return their paths."""
        categories = [{"id": number, "name": name} for number, name in enumerate(self.categories, start=1)]
        written = Written(*(str(out / name) for name in (RESULTS, "results.json", "detections.parquet")))
        info = {"pictures": list(pictures)}
        document = {"info": info, "images": self._images, "annotations": self._annotations, "categories": categories}
        store.write_json(written.detections, document)
        store.write_json(written.results, self._results())
        store.write_table(written.table, pa.table(self._columns, schema=_TABLE))
        return written

    def _results(self) -> list[dict[str, Any]]:
        """Return the results with the names that their ids stand for: ids of other files may be the same numbers."""
        names = zip(self._annotations, self._columns["file"], strict=True)
        return [
            {key: row[key] for key in _RESULT} | {"file_name": file, "category_name": row["category"]}
            for row, file in names
        ]


def earlier_pictures(out: Path) -> set[str]:
    """Return the paths of the pictures that earlier runs wrote below a folder; none if its file is of others."""
    uri = str(out / RESULTS)
    document = store.read_json(uri) if store.exists(uri) else {}
    info = document.get("info") if isinstance(document, dict) else None
    return set(info.get("pictures", ())) if isinstance(info, dict) else set()


def _coco_annotations(
    detections: Detections, image_id: int, first_id: int, categories: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the detections as COCO annotations with scores and category names, numbered from `first_id`."""
    xyxy = detections.xyxy
    xywh = np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1).round(2).tolist()
    rows = zip(xywh, detections.category.tolist(), detections.score.tolist(), strict=True)
    return [
        {
            "id": annotation_id, "image_id": image_id, "category_id": category + 1, "category": categories[category],
            "bbox": box, "area": round(box[2] * box[3], 2), "iscrowd": 0, "score": round(score, 5),
        }
        for annotation_id, (box, category, score) in enumerate(rows, start=first_id)
    ]  # fmt: skip
