"""The sizes and numbers of the labelled boxes that a model was trained with, as model.json keeps them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl import boxes
from etl.document import Document

_PERCENTILES = (1.0, 99.0)  # of the sides; those beyond are mislabelled or too rare to learn from
PER_VIEW = 300  # detections of a view, at least; Ultralytics' limit
_PER_BOX = 2  # detections of a view for each box of the most crowded one
_STEP = 100


class TrainedLabels(Document):
    """The boxes of the train samples."""

    sizes: dict[float, tuple[float, float]]  # 1st and 99th percentile of the sides in network pixels, by tile scale
    most_in_tile: int  # boxes
    most_in_image: int

    @property
    def max_detections(self) -> int:
        """The detections of a view that suffice for the most crowded tile and whole image: at least 300."""
        wanted = _PER_BOX * max(self.most_in_tile, self.most_in_image)
        return max(PER_VIEW, -(-wanted // _STEP) * _STEP)


def measure_labels(samples: pa.Table, network_px: float) -> TrainedLabels:
    """Return what the train samples of a snapshot's table hold; `network_px` is the network pixels per sample pixel."""
    train = samples.filter(pc.equal(samples["split"], "train"))
    number = pc.list_value_length(train["boxes"]).fill_null(0)
    box, rows = pc.list_flatten(train["boxes"]), pc.list_parent_indices(train["boxes"])
    side = boxes.side_length(boxes.from_table(pa.Table.from_struct_array(box))) * network_px
    scale = pc.take(train["scale"], rows).to_numpy().astype(np.float64)
    sizes = {
        float(value): (low, high)
        for value in np.unique(scale[np.isfinite(scale)])
        for low, high in [np.percentile(side[scale == value], _PERCENTILES).round(2).tolist()]
    }
    objects = pa.table({"image": pc.take(train["image_id"], rows), "box": pc.struct_field(box, "annotation_id")})
    in_image = objects.group_by("image").aggregate([("box", "count_distinct")])["box_count_distinct"]
    return TrainedLabels(
        sizes=sizes, most_in_tile=pc.max(number).as_py() or 0, most_in_image=pc.max(in_image).as_py() or 0
    )
