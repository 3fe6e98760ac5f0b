"""Integer counts of one part of a dataset over fixed bins, so that any partition adds up to equal counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl import boxes as bx
from etl.boxes import BUCKETS, Boxes
from etl.imaging.formats import suffix_fits
from etl.schema import LEFT_OUT
from etl.stages.audit.box_shapes import count_shapes
from etl.stages.audit.class_similarity import Descriptor, lowest_ranks
from etl.stages.audit.crowding import (
    DUPLICATE_IOU,
    boxes_in_cell,
    count_suppressed,
    nearest_distances,
    overlapping_pairs,
    overlaps,
    shared_cells,
)
from etl.stages.audit.drift import count_drift
from etl.stages.audit.localisation import SHIFTS, shifted_iou
from etl.stages.audit.positives import count_positives
from etl.stages.audit.source_counts import count_source
from etl.stages.audit.tally import (
    EDGE,
    FIXED,
    LENGTHS,
    BoxColumns,
    Ints,
    Key,
    Tally,
    bins,
    coded,
    first_names,
    image_sizes,
    split_names,
)

STRIDES = (4, 8, 16, 32)
SPACES = ("source", "network", "full_image")  # as drawn; a scale-1 tile at network size; the whole image letterboxed

SIDES = np.exp2(np.arange(0, 29) / 2)  # px, half octaves from 1 px
ASPECTS = np.exp2(np.arange(-8, 9) / 2)  # w / h
GRID_PER_OCTAVE = 8
GRID = np.exp2(np.arange(0, 12 * GRID_PER_OCTAVE + 1) / GRID_PER_OCTAVE)  # px: sides of boxes by sides, 9 % wide
NMS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # thresholds
DARK, NEARLY_BLACK = 40, 16  # mean luma of an image
EXTREMES = 5  # boxes kept at each end
_SAME_OBJECT, _WITHIN = 0.5, 0.9  # IoU of boxes of two classes on one object; share of a box that lies in another
_WHOLE = 0.9  # share of an image: what covers more is no object in it
_TINY, _STRIDE, _NMS = 16.0, 8, 0.5  # of the boxes that findings name: px, px, IoU
_CLIPPED = 0.01  # px: what reaches less far outside is rounding


@dataclass(frozen=True)
class Summary:
    """Counts of one part of a dataset, with some files and places for each finding."""

    counts: Mapping[Key, int] = field(default_factory=dict)
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    extremes: Mapping[str, tuple[tuple[float, str], ...]] = field(default_factory=dict)  # "end/class": farthest first
    descriptors: Mapping[str, tuple[Descriptor, ...]] = field(default_factory=dict)  # by class, of some objects


def merge(a: Summary, b: Summary) -> Summary:
    """Return the summary of both parts together; associative and commutative."""
    counts = Counter(a.counts)
    counts.update(b.counts)
    names: dict[str, tuple[str, ...]] = {}
    extremes: dict[str, tuple[tuple[float, str], ...]] = {}
    descriptors: dict[str, tuple[Descriptor, ...]] = {}
    for summary in (a, b):
        for code, files in summary.files.items():
            names[code] = first_names([*names.get(code, ()), *files])
        for end, rows in summary.extremes.items():
            extremes[end] = _farthest([*extremes.get(end, ()), *rows])
        for category, rows_of_class in summary.descriptors.items():
            descriptors[category] = lowest_ranks([*descriptors.get(category, ()), *rows_of_class])
    return Summary(dict(counts), names, extremes, descriptors)


@dataclass(frozen=True)
class LabelPart:
    """Some images, tables that contain their boxes, and the sizes that turn source into network pixels.

    Without a table of trained boxes every box of the source that was not dropped is trained.
    """

    images: pa.Table
    annotations: pa.Table  # as written
    tile_size: int
    image_size: int
    dropped: frozenset[str] = frozenset()  # annotation_ids that were rejected on reading
    trained: pa.Table | None = None  # what split and ontology leave, with the names of the trained classes
    held: frozenset[str] | None = None  # image_ids that the snapshot compared with holds; None without a snapshot
    strides: tuple[int, ...] = (8, 16, 32)  # of the model's levels; empty if boxes do not contend for their cells


def count_labels(part: LabelPart) -> Summary:
    """Return the summary of a part's images, of their boxes as trained, and of those as written."""
    counter = PartCounter(part)
    counter.count_images()
    counter.count_boxes()
    counter.count_sizes()
    counter.count_neighbours()
    source = count_source(part.images, part.annotations, part.dropped)
    drift = Tally() if part.held is None else counter.count_drift(part.held)
    shapes = counter.count_shapes()
    tallies = (counter, source, drift)
    files = {code: first_names(names) for tally in tallies for code, names in tally.files.items()}
    return Summary(dict(counter.counts + source.counts + drift.counts + shapes.counts), files, counter.extremes)


class PartCounter(Tally):
    """The images of one part and their boxes as trained, and the counts gathered from them."""

    def __init__(self, part: LabelPart) -> None:
        super().__init__()
        self.images, self.dropped, self.strides = part.images, part.dropped, part.strides
        self.extremes: dict[str, tuple[tuple[float, str], ...]] = {}
        self.paths: list[str] = part.images["path"].to_pylist()
        self.splits = split_names(part.images)
        self.wh = image_sizes(part.images)
        self.boxes = BoxColumns.of(part.images, part.annotations if part.trained is None else part.trained)
        self.owner, self.names, self.category = self.boxes.owner, self.boxes.names, self.boxes.category
        self.xyxy = bx.clip(self.boxes.xyxy, (0, 0, *self.wh[self.owner].T))  # what lies outside is not trained
        longest = self.wh.max(axis=1, initial=1.0)[self.owner]
        self.scales = {  # network pixels per source pixel [N]
            "source": np.ones(len(self.owner)),
            "network": np.full(len(self.owner), part.image_size / part.tile_size),
            "full_image": part.image_size / longest,
        }

    def count_images(self) -> None:
        """Count the images by split, size and format, and report their faults."""
        columns = {name: self.images[name].to_pylist() for name in ("format", "exif_orientation", "exif_applied")}
        self.counts.update(("images", split) for split in self.splits)
        self.counts.update(("image_size", int(w), int(h)) for w, h in self.wh)
        self.counts.update(("format", name or "unknown") for name in columns["format"])
        turned = np.array([(orientation or 1) != 1 for orientation in columns["exif_orientation"]], dtype=bool)
        kept = np.array([applied is False for applied in columns["exif_applied"]], dtype=bool)
        self.report("exif_not_applied", turned & kept, self._paths)
        self.report("mpo", np.array([name == "MPO" for name in columns["format"]], dtype=bool), self._paths)
        wrong = [not suffix_fits(path, name) for path, name in zip(self.paths, columns["format"], strict=True)]
        self.report("extension_mismatch", np.array(wrong, dtype=bool), self._paths)
        self.report("left_out", np.array([split == LEFT_OUT for split in self.splits]), self._paths)
        unlabelled = np.array([labelled is False for labelled in self.images["labelled"].to_pylist()], dtype=bool)
        self.report("unlabelled_images", unlabelled, self._paths)
        for code, column, wrong_value in _IMAGE_FAULTS:
            measured = self.images[column].to_pylist()
            affected = np.array([value is not None and wrong_value(value) for value in measured], dtype=bool)
            self.report(code, affected, self._paths)
        luma = [value for value in self.images["brightness"].to_pylist() if value is not None]
        self.counts["nearly_black",] += sum(value < NEARLY_BLACK for value in luma)

    def count_boxes(self) -> None:
        """Find the boxes that are trained, and report their faults."""
        boxes = self.boxes
        dropped = np.asarray(pc.is_in(boxes.rows["annotation_id"], value_set=pa.array(self.dropped, pa.string())))
        usable = ~(boxes.empty | boxes.outside | dropped)
        self.objects = usable & ~boxes.region
        width, height = bx.size(boxes.xyxy).T
        difficult = boxes.rows["difficult"].fill_null(0).to_numpy() > 0
        self.report("clipped", usable & (boxes.overflow > _CLIPPED), boxes.where)
        self.report("under_3px", self.objects & (np.minimum(width, height) < 3), boxes.where)
        self.report("difficult", self.objects & difficult, boxes.where)
        self.report("ignore_regions", usable & boxes.region, boxes.where)
        whole = self.objects & (bx.area(self.xyxy) >= _WHOLE * self.wh[self.owner].prod(axis=1))
        self.report("whole_image_boxes", whole, boxes.where)
        self.add(("whole",), (self.names, self.category[whole]))

    def count_sizes(self) -> None:
        """Count the trainable boxes by class and size in each space; keep the extremes of each class."""
        chosen = np.flatnonzero(self.objects)
        xyxy, owner = self.xyxy[chosen], self.owner[chosen]
        splits, split = coded(pa.chunked_array([self.splits], pa.string()))
        names, category, split = self.names, self.category[chosen], split[owner]
        logs = np.log2(bx.size(xyxy))
        length = logs.mean(axis=1)
        cells = range(len(GRID) + 1)
        for space, scale in self.scales.items():
            octaves = np.log2(scale[chosen])
            in_space = length + octaves
            bucket = bx.bucket(np.exp2(in_space + EDGE))
            self.add(("size", space), (splits, split), (names, category), (range(len(BUCKETS)), bucket))
            self.add(("length", space), (splits, split), (range(len(LENGTHS) + 1), bins(in_space, LENGTHS)))
            if space != "source":
                across, down = (bins(logs[:, axis] + octaves, GRID) for axis in (0, 1))
                self.add(("sides", space), (names, category), (cells, across), (cells, down))
            if space == "network":
                self.add(("shape",), (range(len(BUCKETS)), bucket), (cells, across), (cells, down))
        self._name("tight_labels", chosen[np.exp2(length) < _TINY])
        self._name("coarse_levels", chosen[np.exp2(length) * self.scales["network"][chosen] < _TINY])
        self._name("tiny_labels", chosen[np.exp2(length) * self.scales["network"][chosen] < _TINY])
        size = bx.bucket(np.exp2(length + EDGE))
        for shift in SHIFTS:
            kept = np.rint(shifted_iou(np.exp2(logs), shift) * FIXED).astype(np.int64)
            self.add(("shifted_iou", shift), (range(len(BUCKETS)), size), amounts=kept)
        sides = range(len(SIDES) + 1)
        self.add(("wh",), (sides, bins(logs[:, 0], SIDES)), (sides, bins(logs[:, 1], SIDES)))
        shape = logs[:, 0] - logs[:, 1]
        self.add(("aspect",), (range(len(ASPECTS) + 1), bins(shape, ASPECTS)))
        boxes_of_image = np.bincount(owner, minlength=len(self.paths))
        self.counts.update(
            ("per_image", name, int(number))
            for name, number in zip(self.splits, boxes_of_image, strict=True)
            if name != LEFT_OUT
        )
        self.report("crowded_images", boxes_of_image > 300, self._paths)
        self._keep_extremes(chosen, category, {"shape": shape, "size": length})

    def _keep_extremes(self, chosen: Ints, category: Ints, measures: Mapping[str, NDArray[np.float64]]) -> None:
        """Keep the boxes of each class with the highest and the lowest values of each measure."""
        order = np.argsort(category, kind="stable")
        borders = np.searchsorted(category[order], np.arange(len(self.names) + 1))
        for code, name in enumerate(self.names):
            members = order[borders[code] : borders[code + 1]]
            if not len(members):
                continue
            for (measure, values), (sign, end) in product(measures.items(), ((1.0, "most"), (-1.0, "least"))):
                far = sign * values[members]
                least = np.partition(far, -EXTREMES)[-EXTREMES] if len(far) > EXTREMES else -np.inf
                rows = members[far >= least]  # with ties: their names decide which are kept
                named = zip((sign * values[rows]).round(6).tolist(), self.boxes.where(chosen[rows]), strict=True)
                self.extremes[f"{end} {measure}/{name}"] = _farthest(named)

    def count_drift(self, held: Collection[str]) -> Tally:
        """Return the counts that tell new images and their boxes from those that a snapshot holds."""
        chosen = np.flatnonzero(self.objects)
        classes = self.boxes.rows["category"].take(pa.array(chosen))
        return count_drift(self.images, held, self.owner[chosen], bx.side_length(self.xyxy[chosen]), classes)

    def count_shapes(self) -> Tally:
        """Return the counts of where the trainable boxes lie in their images, and of their shapes by class."""
        chosen = np.flatnonzero(self.objects)
        return count_shapes(self.xyxy[chosen], self.wh[self.owner[chosen]], self.names, self.category[chosen])

    def count_neighbours(self) -> None:
        """Count how boxes of one image interfere: shared and contested cells, duplicates, two classes on one object."""
        chosen = np.flatnonzero(self.objects)
        owner, names, category = self.owner[chosen], self.names, self.category[chosen]
        for space in SPACES[1:]:
            self._count_cells(space, self.xyxy[chosen], owner, self.scales[space][chosen])
        network_xyxy = self.xyxy[chosen] * self.scales["network"][chosen, None]
        bucket = bx.bucket(bx.side_length(network_xyxy) * (1 + EDGE))
        if self.strides:
            positives, contested = count_positives(network_xyxy, owner, bucket, self.strides)
            self.counts.update(positives.counts)
            self._name("contested_boxes", chosen[contested])
        distances = nearest_distances((network_xyxy[:, :2] + network_xyxy[:, 2:]) / 2, owner)
        self.add(
            ("nearest",), (range(len(LENGTHS) + 1), bins(np.log2(distances[np.isfinite(distances)] + 1e-9), LENGTHS))
        )
        pairs = np.concatenate([np.empty((0, 2), dtype=np.int64), *overlapping_pairs(network_xyxy, owner)])
        iou, within = overlaps(network_xyxy, pairs)
        same = category[pairs[:, 0]] == category[pairs[:, 1]]
        self._name("nms_ceiling", chosen[pairs[same & (iou > _NMS) & (iou <= DUPLICATE_IOU)][:, 1]])
        for threshold, removed in zip(NMS, count_suppressed(pairs[same], iou[same], NMS), strict=True):
            self.counts["suppressed", str(threshold)] += removed
        self._report_pairs("duplicate_boxes", chosen, pairs[same & (iou > DUPLICATE_IOU)])
        self._report_pairs("nested_boxes", chosen, pairs[same & (iou <= DUPLICATE_IOU) & (within > _WITHIN)])
        self._report_pairs("several_classes", chosen, pairs[~same & (iou > _SAME_OBJECT)])
        both = np.sort(category[pairs[~same & (iou > _SAME_OBJECT)]], axis=1)
        self.add(("on_one_object",), (names, both[:, 0]), (names, both[:, 1]))
        self._count_enclosed(network_xyxy, category, pairs[~same & (iou <= _SAME_OBJECT) & (within > _WITHIN)])

    def _count_enclosed(self, xyxy: Boxes, category: Ints, pairs: Ints) -> None:
        """Count the boxes of each class that lie in a larger one of another class, each once for that class."""
        first_is_larger = bx.area(xyxy[pairs[:, 0]]) > bx.area(xyxy[pairs[:, 1]])
        inner, outer = np.where(first_is_larger[:, None], pairs[:, ::-1], pairs).T
        boxes, around = np.unique(np.stack([inner, category[outer]], axis=1), axis=0).T
        self.add(("within",), (self.names, category[boxes]), (self.names, around))

    def _report_pairs(self, code: str, chosen: Ints, pairs: Ints) -> None:
        """Count pairs of boxes under the code of a finding, and keep the place of the later box of each."""
        if len(pairs):
            self.counts["found", code] += len(pairs)
            self.files[code] = self.boxes.where(chosen[pairs[:, 1]])

    def _count_cells(self, space: str, xyxy: Boxes, owner: Ints, scale: NDArray[np.float64]) -> None:
        centres = (xyxy[:, :2] + xyxy[:, 2:]) / 2 * scale[:, None]
        if space == "network":
            self._name("shared_cells", np.flatnonzero(self.objects)[boxes_in_cell(centres, owner, _STRIDE) > 1])
        for stride in STRIDES:
            pairs, sharing = shared_cells(centres, owner, stride)
            self.counts["cell_pairs", space, stride] += pairs
            self.counts["cell_boxes", space, stride] += sharing

    def _name(self, code: str, rows: Ints) -> None:
        """Keep the place of one of these boxes in each image as an example of a finding that another count decides."""
        if len(rows):
            self.files[code] = self.boxes.where(rows[np.unique(self.owner[rows], return_index=True)[1]])

    def _paths(self, images: Ints) -> list[str]:
        return [self.paths[image] for image in images]


_IMAGE_FAULTS: tuple[tuple[str, str, Callable[[float], bool]], ...] = (
    ("dark_images", "brightness", lambda luma: luma < DARK),
    ("bright_images", "brightness", lambda luma: luma > 215),
    ("one_colour_images", "contrast", lambda deviation: deviation < 2),
    ("flat_images", "contrast", lambda deviation: deviation < 15),
    ("blurred_images", "sharpness", lambda variance: variance < 10),
)


def _farthest(rows: Iterable[tuple[float, str]]) -> tuple[tuple[float, str], ...]:
    return tuple(sorted(rows, key=lambda row: (-row[0], row[1]))[:EXTREMES])
