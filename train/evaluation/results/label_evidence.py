"""Whether results agree with the labelled boxes of a dataset, under a reading of their ids."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from etl import boxes
from train.detections import Index
from train.evaluation.results.known_dataset import KnownDataset
from train.evaluation.results.results_file import ResultsFile
from train.metrics.summary import MATCHED_IOU

_MOST = 20_000  # results that are compared, those of the highest scores

Mask = NDArray[np.bool_]


class LabelEvidence:
    """Compares the results of a file with the images and labelled boxes of a dataset."""

    def __init__(self, file: ResultsFile, known: KnownDataset, judged: Collection[str]) -> None:
        """Take the ids of the evaluated images, too."""
        self._file, self._known = file, known
        self._is_judged = np.array([key in judged for key in known.images["image_id"].to_pylist()], dtype=np.bool_)
        self._compared = np.argsort(-file.score, kind="stable")[:_MOST]

    def on_an_object(self, images: Index) -> Mask:
        """Return which results [N] lie on a labelled box of the images that they belong to."""
        return self._overlap(images, None)

    def on_a_judged_object(self, images: Index) -> Mask:
        """Return which results [N] lie on a labelled box of an evaluated image."""
        judged = np.append(self._is_judged, False)[np.maximum(images, -1)]
        return self._overlap(np.where(judged, images, -1), None)

    def on_an_object_of(self, images: Index, categories: Index) -> Mask:
        """Return which results [N] lie on a labelled box of their category."""
        return self._overlap(images, categories)

    def in_the_image(self, images: Index) -> Mask:
        """Return which results [N] have their centre in the image that they belong to."""
        inside = np.zeros(len(self._file), dtype=np.bool_)
        rows = self._compared[images[self._compared] >= 0]
        centre = (self._file.xyxy[rows, :2] + self._file.xyxy[rows, 2:]) / 2
        wh = np.column_stack([self._known.images[side].to_numpy() for side in ("width", "height")])
        inside[rows] = ((centre >= 0) & (centre <= wh[images[rows]])).all(axis=1)
        return inside

    def _overlap(self, images: Index, categories: Index | None) -> Mask:
        hit = np.zeros(len(self._file), dtype=np.bool_)
        rows = self._compared[images[self._compared] >= 0]
        rows = rows[np.argsort(images[rows], kind="stable")]
        places, starts = np.unique(images[rows], return_index=True)
        for place, (start, end) in zip(places.tolist(), pairwise([*starts.tolist(), len(rows)]), strict=True):
            own = rows[start:end]
            xyxy, category = self._labels.get(place, (None, None))
            if xyxy is not None:
                close = boxes.iou(self._file.xyxy[own], xyxy) >= MATCHED_IOU
                hit[own] = (close if categories is None else close & (categories[own, None] == category)).any(axis=1)
        return hit

    @cached_property
    def _labels(self) -> dict[int, tuple[boxes.Boxes, Index]]:
        """The boxes and the numbers of their categories, by place of the image."""
        table = self._known.load_boxes()
        if table is None or not table.num_rows:
            return {}
        place_of = {image_id: place for place, image_id in enumerate(self._known.images["image_id"].to_pylist())}
        number_of = {name: number for number, name in enumerate(self._known.categories)}
        place = np.array([place_of[image_id] for image_id in table["image_id"].to_pylist()], dtype=np.int64)
        category = np.array([number_of.get(name, -1) for name in table["category"].to_pylist()], dtype=np.int64)
        order, xyxy = np.argsort(place, kind="stable"), boxes.from_table(table)
        places, starts = np.unique(place[order], return_index=True)
        parts = np.split(order, starts[1:])
        return {key: (xyxy[rows], category[rows]) for key, rows in zip(places.tolist(), parts, strict=True)}
