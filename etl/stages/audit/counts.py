"""Integer counts of one part of a dataset over fixed bins, so that any partition adds up to equal counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl import boxes as geometry
from etl.boxes import BUCKETS, Boxes, from_table
from etl.findings import EXAMPLES
from etl.schema import place
from etl.stages.audit.class_similarity import Sight, first
from etl.stages.audit.crowding import DUPLICATE_IOU, meetings, nearest, overlaps, shared_area, shared_cells, suppressed

STRIDES = (4, 8, 16, 32)
SPACES = ("source", "network", "full_image")  # as drawn; a scale-1 tile at network size; the whole image letterboxed
UNSPLIT = "unsplit"

PER_OCTAVE = 64  # bins of sqrt(w * h): 1.1 % wide
LENGTHS = np.exp2(np.arange(-4 * PER_OCTAVE, 14 * PER_OCTAVE + 1) / PER_OCTAVE)  # px
SIDES = np.exp2(np.arange(0, 29) / 2)  # px, half octaves from 1 px
ASPECTS = np.exp2(np.arange(-8, 9) / 2)  # w / h
FIXED = 1 << 20  # fixed point of shares
GRID_PER_OCTAVE = 8
GRID = np.exp2(np.arange(0, 12 * GRID_PER_OCTAVE + 1) / GRID_PER_OCTAVE)  # px: sides of boxes by sides, 9 % wide
LEAST = (0, 8, 16)  # px: sides that assigners raise smaller ones to
NMS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # thresholds
EXTREMES = 5  # boxes kept at each end
_EDGE = 1e-9  # of a bin: what lies on an edge belongs above it, also after rounding
_SAME_OBJECT, _WITHIN = 0.5, 0.9  # IoU of boxes of two classes on one object; share of a box that lies in another
_CLIPPED = 0.01  # px: what reaches less far outside is rounding

Key = tuple[str | int, ...]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Summary:
    """Counts of one part of a dataset, and the first few names behind each finding."""

    counts: Mapping[Key, int] = field(default_factory=dict)
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    extremes: Mapping[str, tuple[tuple[float, str], ...]] = field(default_factory=dict)  # "end/class": farthest first
    sights: Mapping[str, tuple[Sight, ...]] = field(default_factory=dict)  # by class: some objects as they look


def merge(a: Summary, b: Summary) -> Summary:
    """Return the summary of both parts together; associative and commutative."""
    counts = Counter(a.counts)
    counts.update(b.counts)
    names: dict[str, tuple[str, ...]] = {}
    extremes: dict[str, tuple[tuple[float, str], ...]] = {}
    sights: dict[str, tuple[Sight, ...]] = {}
    for summary in (a, b):
        for code, files in summary.files.items():
            names[code] = _first([*names.get(code, ()), *files])
        for end, rows in summary.extremes.items():
            extremes[end] = _farthest([*extremes.get(end, ()), *rows])
        for category, seen in summary.sights.items():
            sights[category] = first([*sights.get(category, ()), *seen])
    return Summary(dict(counts), names, extremes, sights)


def to_json(summary: Summary) -> dict[str, Any]:
    """Return the summary as JSON-able data, in canonical order."""
    counts = sorted(([list(key), number] for key, number in summary.counts.items()), key=repr)
    files = {code: list(names) for code, names in sorted(summary.files.items())}
    return {
        "counts": counts,
        "files": files,
        "extremes": {end: list(rows) for end, rows in sorted(summary.extremes.items())},
        "sights": {
            name: [[row.rank, row.image_id, row.features.hex()] for row in rows]
            for name, rows in sorted(summary.sights.items())
        },
    }


def from_json(data: Mapping[str, Any]) -> Summary:
    """Return the summary that `to_json` wrote."""
    counts = {tuple(key): number for key, number in data["counts"]}
    extremes = {end: tuple((value, name) for value, name in rows) for end, rows in data["extremes"].items()}
    sights = {
        name: tuple(Sight(rank, image, bytes.fromhex(features)) for rank, image, features in rows)
        for name, rows in data["sights"].items()
    }
    return Summary(counts, {code: tuple(names) for code, names in data["files"].items()}, extremes, sights)


@dataclass(frozen=True)
class Part:
    """Some images, the annotations among which theirs are, and the sizes that turn source into network pixels."""

    images: pa.Table
    annotations: pa.Table
    tile_size: int
    image_size: int
    dropped: frozenset[str] = frozenset()  # annotation_ids that were rejected on reading


def summarize(part: Part) -> Summary:
    """Return the summary of a part's images and of those of its annotations that lie on them."""
    count = Count(part)
    count.count_images()
    count.count_boxes()
    count.count_sizes()
    count.count_neighbours()
    return Summary(dict(count.counts), {code: _first(names) for code, names in count.files.items()}, count.extremes)


class Count:
    """The columns of one part as arrays, and the counts gathered from them."""

    def __init__(self, part: Part) -> None:
        images, annotations = part.images, part.annotations
        self.counts: Counter[Key] = Counter()
        self.files: dict[str, list[str]] = {}
        self.extremes: dict[str, tuple[tuple[float, str], ...]] = {}
        self.images, self.dropped = images, part.dropped
        self.paths: list[str] = images["path"].to_pylist()
        self.splits = [split if split is not None else UNSPLIT for split in images["split"].to_pylist()]
        self.wh = np.stack([images[name].to_numpy().astype(np.float64) for name in ("width", "height")], axis=1)
        owner = pc.index_in(annotations["image_id"], value_set=images["image_id"].combine_chunks())
        self.rows = annotations.filter(pc.is_valid(owner)) if owner.null_count else annotations
        self.owner: Ints = owner.drop_null().to_numpy().astype(np.int64)
        self.xyxy: Boxes = from_table(self.rows)
        self.names, self.category = _coded(self.rows["category"])
        longest = self.wh.max(axis=1, initial=1.0)[self.owner]
        self.scales = {  # network pixels per source pixel [N]
            "source": np.ones(len(self.owner)),
            "network": np.full(len(self.owner), part.image_size / part.tile_size),
            "full_image": part.image_size / longest,
        }

    def find(self, code: str, hit: NDArray[np.bool_], names: Callable[[Ints], Iterable[str]]) -> None:
        """Count the rows that are hit under a finding's code and keep the first names."""
        if hit.any():
            self.counts["found", code] += int(hit.sum())
            self.files[code] = list(names(np.flatnonzero(hit)))

    def count_images(self) -> None:
        """Count the images by split, size and format, and find what is wrong with them before any box is looked at."""
        columns = {name: self.images[name].to_pylist() for name in ("format", "exif_orientation", "exif_applied")}
        self.counts.update(("images", split) for split in self.splits)
        self.counts.update(("image_size", int(w), int(h)) for w, h in self.wh)
        self.counts.update(("format", found or "unknown") for found in columns["format"])
        turned = np.array([(orientation or 1) != 1 for orientation in columns["exif_orientation"]], dtype=bool)
        kept = np.array([applied is False for applied in columns["exif_applied"]], dtype=bool)
        self.find("exif_not_applied", turned & kept, self._paths)
        self.find("mpo", np.array([found == "MPO" for found in columns["format"]], dtype=bool), self._paths)
        wrong = [not _suffix_fits(path, found) for path, found in zip(self.paths, columns["format"], strict=True)]
        self.find("extension_mismatch", np.array(wrong, dtype=bool), self._paths)
        self.find("left_out", np.array([split == "left_out" for split in self.splits]), self._paths)
        unlabelled = np.array([labelled is False for labelled in self.images["labelled"].to_pylist()], dtype=bool)
        self.find("unlabelled_images", unlabelled, self._paths)
        empty = ~unlabelled & (np.bincount(self.owner, minlength=len(self.paths)) == 0)
        self.find("empty_labels", empty, self._paths)
        for code, column, wrong_value in _QUALITY:
            measured = self.images[column].to_pylist()
            hit = np.array([value is not None and wrong_value(value) for value in measured], dtype=bool)
            self.find(code, hit, self._paths)

    def count_boxes(self) -> None:
        """Count every box as written, and find what is wrong with it."""
        self.counts["annotations",] += len(self.owner)
        self._tally(("category",), (self.names, self.category))
        x0, y0, x1, y1 = self.xyxy.T
        width, height = self.wh[self.owner].T if len(self.owner) else (np.empty(0), np.empty(0))
        empty = (x1 <= x0) | (y1 <= y0)
        outside = ~empty & ((x0 >= width) | (y0 >= height) | (x1 <= 0) | (y1 <= 0))
        overflow = np.stack([-x0, -y0, x1 - width, y1 - height]).max(axis=0)
        marked = pc.or_kleene(self.rows["crowd"], self.rows["ignore"]).fill_null(False)
        region = np.asarray(marked)
        difficult = self.rows["difficult"].fill_null(0).to_numpy() > 0
        dropped = np.asarray(pc.is_in(self.rows["annotation_id"], value_set=pa.array(self.dropped, pa.string())))
        self.objects = ~empty & ~outside & ~region & ~dropped
        self.find("zero_size", empty, self._places)
        self.find("outside_image", outside, self._places)
        self.find("clipped", ~empty & ~outside & (overflow > _CLIPPED), self._places)
        self.find("under_3px", self.objects & (np.minimum(x1 - x0, y1 - y0) < 3), self._places)
        self.find("difficult", difficult, self._places)
        self.find("ignore_regions", ~empty & ~outside & region, self._places)

    def count_sizes(self) -> None:
        """Count the boxes that can be trained on by class and size in each space; keep each class's extremes."""
        chosen = np.flatnonzero(self.objects)
        xyxy, owner = self.xyxy[chosen], self.owner[chosen]
        splits, split = _coded(pa.chunked_array([self.splits], pa.string()))
        names, category, split = self.names, self.category[chosen], split[owner]
        logs = np.log2(geometry.size(xyxy))
        length = logs.mean(axis=1)
        cells = range(len(GRID) + 1)
        for space, scale in self.scales.items():
            octaves = np.log2(scale[chosen])
            seen = length + octaves
            bucket = geometry.bucket(np.exp2(seen + _EDGE))
            self._tally(("size", space), (splits, split), (names, category), (range(len(BUCKETS)), bucket))
            self._tally(("length", space), (splits, split), (range(len(LENGTHS) + 1), _bins(seen, LENGTHS)))
            if space != "source":
                across, down = (_bins(logs[:, axis] + octaves, GRID) for axis in (0, 1))
                self._tally(("sides", space), (names, category), (cells, across), (cells, down))
        sides = range(len(SIDES) + 1)
        self._tally(("wh",), (sides, _bins(logs[:, 0], SIDES)), (sides, _bins(logs[:, 1], SIDES)))
        shape = logs[:, 0] - logs[:, 1]
        self._tally(("aspect",), (range(len(ASPECTS) + 1), _bins(shape, ASPECTS)))
        many = np.bincount(owner, minlength=len(self.paths))
        self.counts.update(("per_image", name, int(number)) for name, number in zip(self.splits, many, strict=True))
        self.find("crowded_images", many > 300, self._paths)
        self._keep_extremes(chosen, category, {"shape": shape, "size": length})

    def _keep_extremes(self, chosen: Ints, category: Ints, measures: Mapping[str, NDArray[np.float64]]) -> None:
        """Keep the boxes of each class that have most or least of each measure."""
        order = np.argsort(category, kind="stable")
        borders = np.searchsorted(category[order], np.arange(len(self.names) + 1))
        for code, name in enumerate(self.names):
            mine = order[borders[code] : borders[code + 1]]
            if not len(mine):
                continue
            for (measure, values), (sign, end) in product(measures.items(), ((1.0, "most"), (-1.0, "least"))):
                far = sign * values[mine]
                least = np.partition(far, -EXTREMES)[-EXTREMES] if len(far) > EXTREMES else -np.inf
                rows = mine[far >= least]  # ties, too: which of them are kept is up to their names
                named = zip((sign * values[rows]).round(6).tolist(), self._places(chosen[rows]), strict=True)
                self.extremes[f"{end} {measure}/{name}"] = _farthest(named)

    def count_neighbours(self) -> None:
        """Count what boxes of one image do to each other: shared and contested cells, copies, two classes on one."""
        chosen = np.flatnonzero(self.objects)
        owner, names, category = self.owner[chosen], self.names, self.category[chosen]
        for space in SPACES[1:]:
            self._count_cells(space, self.xyxy[chosen], owner, self.scales[space][chosen])
        seen = self.xyxy[chosen] * self.scales["network"][chosen, None]
        bucket = geometry.bucket(geometry.side_length(seen))
        contested = {least: np.zeros(len(seen)) for least in LEAST}
        raised = {least: _raised(seen, least) for least in LEAST}
        alike: list[Ints] = []
        for pairs in meetings(raised[max(LEAST)], owner):
            for least, boxes in raised.items():
                shared, own = shared_area(boxes, pairs), geometry.area(boxes)
                for mine in (0, 1):
                    rows = pairs[:, mine]
                    contested[least] += np.bincount(rows, np.rint(shared / own[rows] * FIXED), minlength=len(own))
            alike.append(pairs[shared_area(seen, pairs) > 0])
        for least, share in contested.items():
            fixed = np.minimum(share, FIXED).astype(np.int64)
            self._tally(("contested", least), (range(len(BUCKETS)), bucket), amounts=fixed)
        away = nearest((seen[:, :2] + seen[:, 2:]) / 2, owner)
        self._tally(("nearest",), (range(len(LENGTHS) + 1), _bins(np.log2(away[np.isfinite(away)] + 1e-9), LENGTHS)))
        pairs = np.concatenate([np.empty((0, 2), dtype=np.int64), *alike])
        iou, within = overlaps(seen, pairs)
        same = category[pairs[:, 0]] == category[pairs[:, 1]]
        for threshold, gone in zip(NMS, suppressed(pairs[same], iou[same], NMS), strict=True):
            self.counts["suppressed", str(threshold)] += gone
        self._name_pairs("duplicate_boxes", chosen, pairs[same & (iou > DUPLICATE_IOU)])
        self._name_pairs("nested_boxes", chosen, pairs[same & (iou <= DUPLICATE_IOU) & (within > _WITHIN)])
        self._name_pairs("several_classes", chosen, pairs[~same & (iou > _SAME_OBJECT)])
        for code, hit in (("on_one_object", iou > _SAME_OBJECT), ("within", within > _WITHIN)):
            both = np.sort(category[pairs[~same & hit]], axis=1)
            self._tally((code,), (names, both[:, 0]), (names, both[:, 1]))

    def _name_pairs(self, code: str, chosen: Ints, pairs: Ints) -> None:
        """Count pairs of boxes under a finding's code, named by the later of each."""
        if len(pairs):
            self.counts["found", code] += len(pairs)
            self.files[code] = self._places(chosen[pairs[:, 1]])

    def _count_cells(self, space: str, xyxy: Boxes, owner: Ints, scale: NDArray[np.float64]) -> None:
        centres = (xyxy[:, :2] + xyxy[:, 2:]) / 2 * scale[:, None]
        for stride in STRIDES:
            pairs, sharing = shared_cells(centres, owner, stride)
            self.counts["cell_pairs", space, stride] += pairs
            self.counts["cell_boxes", space, stride] += sharing

    def _paths(self, images: Ints) -> list[str]:
        return [self.paths[image] for image in images]

    def _places(self, rows: Ints) -> list[str]:
        """Return where boxes are written: their label file and line, else their image."""
        written = self.rows.select(["file", "line"]).take(pa.array(rows)).to_pylist()
        images = self._paths(self.owner[rows])
        return [
            image if row["file"] is None else place(row["file"], row["line"])
            for row, image in zip(written, images, strict=True)
        ]

    def _tally(self, head: Key, *columns: tuple[Sequence[str | int], Ints], amounts: Ints | None = None) -> None:
        """Add how often each combination of labels occurs, or the sum of the amounts over it."""
        shape = tuple(max(len(labels), 1) for labels, _ in columns)
        flat = np.ravel_multi_index(tuple(codes for _, codes in columns), shape)
        sums = np.bincount(flat, amounts)  # exact: whole numbers below 2^53
        places = np.flatnonzero(sums)
        codes = [index.tolist() for index in np.unravel_index(places, shape)]
        marked = [[labels[code] for code in of] for (labels, _), of in zip(columns, codes, strict=True)]
        for *labels, number in zip(*marked, sums[places].tolist(), strict=True):
            self.counts[(*head, *labels)] += int(number)


_QUALITY: tuple[tuple[str, str, Callable[[float], bool]], ...] = (
    ("dark_images", "brightness", lambda luma: luma < 40),
    ("bright_images", "brightness", lambda luma: luma > 215),
    ("flat_images", "contrast", lambda deviation: deviation < 15),
    ("blurred_images", "sharpness", lambda variance: variance < 10),
)
_SUFFIXES = {
    "JPEG": ("jpg", "jpeg", "jpe", "jfif"), "MPO": ("jpg", "jpeg", "mpo"), "PNG": ("png", "apng"), "BMP": ("bmp",),
    "TIFF": ("tif", "tiff"), "WEBP": ("webp",), "GIF": ("gif",),
}  # fmt: skip


def _suffix_fits(path: str, found: str | None) -> bool:
    return found not in _SUFFIXES or path.rpartition(".")[2].lower() in _SUFFIXES[found]


def _coded(values: pa.ChunkedArray) -> tuple[list[str], Ints]:
    """Return the distinct values in order, and the index of each value among them."""
    labels = sorted(pc.unique(values).to_pylist())
    codes: Ints = pc.index_in(values, value_set=pa.array(labels, pa.string())).to_numpy().astype(np.int64)
    return labels, codes


def _bins(logs: NDArray[np.float64], edges: NDArray[np.float64]) -> Ints:
    """Return what `np.digitize` would of 2^logs [N], for edges that are evenly spaced powers of 2."""
    first = np.log2(edges[0])
    step = (np.log2(edges[-1]) - first) / (len(edges) - 1)
    bins: Ints = np.clip(np.floor((logs - first) / step + _EDGE) + 1, 0, len(edges)).astype(np.int64)
    return bins


def _raised(boxes: Boxes, least: float) -> Boxes:
    """Return the boxes with sides below the least raised to it about their centres."""
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, np.maximum(geometry.size(boxes), least) / 2
    return np.hstack([middle - half, middle + half])


def _farthest(rows: Iterable[tuple[float, str]]) -> tuple[tuple[float, str], ...]:
    return tuple(sorted(rows, key=lambda row: (-row[0], row[1]))[:EXTREMES])


def _first(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names))[:EXAMPLES])
