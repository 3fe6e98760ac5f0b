"""What every count of an audit needs: the columns of a part's boxes as arrays, and a tally of counts and places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl.boxes import Boxes, from_table
from etl.findings import EXAMPLES
from etl.schema import place

UNSPLIT = "unsplit"
PER_OCTAVE = 64  # bins of sqrt(w * h): 1.1 % wide
LENGTHS = np.exp2(np.arange(-4 * PER_OCTAVE, 14 * PER_OCTAVE + 1) / PER_OCTAVE)  # px
FIXED = 1 << 20  # fixed point of shares
EDGE = 1e-9  # of a bin: what lies on an edge belongs above it, also after rounding

Key = tuple[str | int, ...]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Tally:
    """Counts by key, and some files or places of each finding."""

    def __init__(self) -> None:
        self.counts: Counter[Key] = Counter()
        self.files: dict[str, list[str]] = {}

    def report(self, code: str, affected: Bools, names: Callable[[Ints], Iterable[str]]) -> None:
        """Count the affected rows [N] under the code of a finding, and keep their names."""
        if affected.any():
            self.counts["found", code] += int(affected.sum())
            self.files[code] = list(names(np.flatnonzero(affected)))

    def add(self, head: Key, *columns: tuple[Sequence[str | int], Ints], amounts: Ints | None = None) -> None:
        """Add how often each combination of labels occurs, or the sum of the amounts over it."""
        shape = tuple(max(len(labels), 1) for labels, _ in columns)
        flat = np.ravel_multi_index(tuple(codes for _, codes in columns), shape)
        sums = np.bincount(flat, amounts)  # exact: whole numbers below 2^53
        places = np.flatnonzero(sums)
        codes = [index.tolist() for index in np.unravel_index(places, shape)]
        marked = [[labels[code] for code in of] for (labels, _), of in zip(columns, codes, strict=True)]
        for *labels, number in zip(*marked, sums[places].tolist(), strict=True):
            self.counts[(*head, *labels)] += int(number)


@dataclass(frozen=True, eq=False)
class BoxColumns:
    """The boxes of some images: their rows, and the columns that are counted as arrays."""

    rows: pa.Table
    paths: Sequence[str]  # of the images
    owner: Ints  # [N] place of each box's image
    xyxy: Boxes  # [N, 4] source px
    names: list[str]  # of the classes, in order
    category: Ints  # [N] place of each box's class
    empty: Bools  # [N] boxes without area
    outside: Bools  # [N] boxes that do not touch their image
    region: Bools  # [N] crowds and ignore regions
    overflow: NDArray[np.float64]  # [N] px by which a box reaches outside its image

    @classmethod
    def of(cls, images: pa.Table, annotations: pa.Table) -> BoxColumns:
        """Return the boxes of the images; boxes of other images are left out."""
        owner = pc.index_in(annotations["image_id"], value_set=images["image_id"].combine_chunks())
        rows = annotations.filter(pc.is_valid(owner)) if owner.null_count else annotations
        places: Ints = owner.drop_null().to_numpy().astype(np.int64)
        xyxy = from_table(rows)
        x0, y0, x1, y1 = xyxy.T
        width, height = image_sizes(images)[places].T
        empty = (x1 <= x0) | (y1 <= y0)
        outside = ~empty & ((x0 >= width) | (y0 >= height) | (x1 <= 0) | (y1 <= 0))
        overflow = np.stack([-x0, -y0, x1 - width, y1 - height]).max(axis=0)
        region = np.asarray(pc.or_kleene(rows["crowd"], rows["ignore"]).fill_null(False))
        names, category = coded(rows["category"])
        return cls(rows, images["path"].to_pylist(), places, xyxy, names, category, empty, outside, region, overflow)

    def where(self, rows: Ints) -> list[str]:
        """Return the place of each box in its label file, by line or by image and id; without a file its image."""
        written = self.rows.select(["file", "line", "source_id"]).take(pa.array(rows)).to_pylist()
        images = [self.paths[image] for image in self.owner[rows]]
        return [
            image if row["file"] is None else place(row["file"], row["line"], image, row["source_id"])
            for row, image in zip(written, images, strict=True)
        ]


def image_sizes(images: pa.Table) -> NDArray[np.float64]:
    """Return width and height [I, 2] of the images."""
    return np.stack([images[name].to_numpy().astype(np.float64) for name in ("width", "height")], axis=1)


def split_names(images: pa.Table) -> list[str]:
    """Return the split of each image."""
    return [split if split is not None else UNSPLIT for split in images["split"].to_pylist()]


def coded(values: pa.ChunkedArray) -> tuple[list[str], Ints]:
    """Return the distinct values in order, and the index of each value among them."""
    labels = sorted(pc.unique(values).to_pylist())
    codes: Ints = pc.index_in(values, value_set=pa.array(labels, pa.string())).to_numpy().astype(np.int64)
    return labels, codes


def bins(logs: NDArray[np.float64], edges: NDArray[np.float64]) -> Ints:
    """Return what `np.digitize` would of 2^logs [N], for edges that are evenly spaced powers of 2."""
    first = np.log2(edges[0])
    step = (np.log2(edges[-1]) - first) / (len(edges) - 1)
    places: Ints = np.clip(np.floor((logs - first) / step + EDGE) + 1, 0, len(edges)).astype(np.int64)
    return places


def first_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the first of the names in order, as many as a finding lists."""
    return tuple(sorted(set(names))[:EXAMPLES])
