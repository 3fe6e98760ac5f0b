"""Counts of the boxes as the label files have them, before split and ontology."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl import boxes as bx
from etl.boxes import BUCKETS
from etl.stages.audit.tally import LENGTHS, BoxColumns, Tally, bins, coded, split_names

WRITTEN = "written"  # in the keys of counts, what a space of the trained boxes is


def count_source(images: pa.Table, annotations: pa.Table, dropped: Collection[str]) -> Tally:
    """Return the counts of the boxes of the images as written: all, faulty ones, and objects by class and size.

    `dropped` are the ids of the boxes that were rejected on reading.
    """
    tally, boxes = Tally(), BoxColumns.of(images, annotations)
    tally.counts["annotations",] += len(boxes.owner)
    tally.report("zero_size", boxes.empty, boxes.where)
    tally.report("outside_image", boxes.outside, boxes.where)
    unlabelled = np.array([labelled is False for labelled in images["labelled"].to_pylist()], dtype=bool)
    without = ~unlabelled & (np.bincount(boxes.owner, minlength=len(boxes.paths)) == 0)
    tally.report("empty_labels", without, lambda rows: [boxes.paths[row] for row in rows])
    rejected = np.asarray(pc.is_in(boxes.rows["annotation_id"], value_set=pa.array(dropped, pa.string())))
    chosen = np.flatnonzero(~(boxes.empty | boxes.outside | boxes.region | rejected))
    splits, split = coded(pa.chunked_array([split_names(images)], pa.string()))
    in_split = (splits, split[boxes.owner[chosen]])
    length = bx.side_length(boxes.xyxy[chosen])
    by_class = (boxes.names, boxes.category[chosen])
    tally.add(("size", WRITTEN), in_split, by_class, (range(len(BUCKETS)), bx.bucket(length)))
    tally.add(("length", WRITTEN), in_split, (range(len(LENGTHS) + 1), bins(np.log2(length), LENGTHS)))
    return tally
