"""The audit of a dataset: what audit.json and `speck audit --json` hold.

Objects are the boxes as trained: of the images in a split, after the ontology and cut at the image border, without
crowds and ignore regions; classes have their trained names. `source` is the same dataset as its label files have it.
Lengths are sqrt(w * h) in pixels, shares lie in 0..1. A value is None if there are no boxes to compute it from. The
keys of tables are names of splits or classes, or numbers: percentiles, strides, thresholds, pixels.
"""

from __future__ import annotations

from typing import Annotated, Generic, Literal, NamedTuple, TypeVar

from pydantic import Field

from etl.by_size import BySize
from etl.document import FIRST_ERROR, Document
from etl.findings import Finding
from etl.stages.remap import CategoryPreview

T = TypeVar("T")
Percentiles = dict[int, float | None]  # by percentile


class NetworkSpaces(Document, Generic[T]):
    """One value in network pixels of tiles, one in network pixels of whole images shrunk to the input size."""

    network: T
    full_image: T


class Spaces(NetworkSpaces[T], Generic[T]):
    """The same, and one value in source pixels."""

    source: T


class Resolution(Document):
    """What takes the 5th percentile of the lengths to a goal: one of two input sizes, or smaller tiles, in pixels."""

    tiled: int | None  # input size with tiles
    full_image: int | None  # input size with whole images
    factor: float | None  # by which the length misses the goal; also that of a higher capture resolution
    tile_size: int | None
    cost: float | None  # times the computing


class Resolutions(Document):
    """The resolution needed for 8 and for 16 network pixels."""

    px_8: Resolution = Field(alias="8")
    px_16: Resolution = Field(alias="16")


class CocoShares(Document):
    """Shares of the boxes by COCO's three sizes, in source pixels."""

    small: float | None
    medium: float | None
    large: float | None


class CocoComparison(Document):
    """The dataset's shares, and those of COCO."""

    dataset: CocoShares
    coco: CocoShares


class BoxesPerImage(Document):
    """Images by their number of boxes, in each split, and the percentiles over all images."""

    histogram: dict[str, dict[int, int]]
    percentiles: dict[int, int | None]


class CellSharing(Document):
    """The boxes whose centre lies in one feature cell with another box's centre, and the pairs of such boxes."""

    pairs: int
    boxes: int
    share: float | None


class CoverageMeans(Document):
    """The share of boxes with a candidate of an assigner, and the mean number of candidates."""

    covered: float | None
    candidates: float | None


class GroupedCoverage(CoverageMeans):
    """The same for all boxes, by size in network pixels and by class."""

    by_size: BySize[CoverageMeans]
    by_class: dict[str, CoverageMeans]


class CoverageByLevels(Document):
    """Coverage with the levels P3 to P5, and with P2."""

    p3_p5: GroupedCoverage
    p2_p5: GroupedCoverage


class Change(Document):
    """A change of the configuration, its cost in times the computing, and the share of boxes with a candidate."""

    name: str
    cost: float
    covered: float


class Positives(Document):
    """What boxes get to learn from; null without boxes."""

    boxes: int
    positives: float | None  # mean number of positive cells, at most 10 a box with `tal`
    taught: float | None  # share of the boxes that are expected to get a positive cell
    iou: float | None  # mean of the highest IoU that a positive cell is expected to reach
    contested: float | None  # share of the boxes that lose half or more of their positives; null where none can be lost
    lost: float | None = None  # share of the positives that the boxes lose to neighbours; null as `contested`


class Configuration(Document):
    """The positives of all boxes under one choice of levels and input size; sizes are those at the present input."""

    name: str
    strides: tuple[int, ...]
    input_factor: float  # times the present input size
    cost: float  # times the present computing
    all: Positives
    by_size: BySize[Positives]


class AdvisedChange(Document):
    """A change of levels or input size that is worth its cost."""

    name: str
    cost: float  # times the present computing
    p2: bool
    input_factor: float
    boxes: int  # in the sizes that gain


class AssignerCoverage(Document):
    """Coverage under each assigner and under that of the configured model."""

    assigner: str
    strides: tuple[int, ...]
    network: dict[str, CoverageByLevels]
    full_image: dict[str, CoverageByLevels]
    configured: GroupedCoverage
    change: Change | None  # the cheapest after which enough boxes have a candidate
    configurations: tuple[Configuration, ...] = ()  # as configured first; empty in audits of earlier versions
    advice: AdvisedChange | None = None  # the configuration that is worth its cost; null: none


class ClassPair(NamedTuple):
    """Two classes, and a number of pairs of their boxes, or of boxes of the first."""

    first: str
    second: str
    pairs: int


class Neighbours(Document):
    """What boxes lose to others of their image."""

    nms_recall: dict[float, float | None]  # by IoU threshold
    cap_recall: dict[int, float | None]  # by the limit of detections per image
    nearest_px: Percentiles  # distance of the centres
    on_one_object: tuple[ClassPair, ...]
    within: tuple[ClassPair, ...]  # boxes of the first class that lie in a larger one of the second


class AnchorRecall(Document):
    """Best possible recall with the anchors of the last snapshot, and with as many new ones."""

    before: float
    new: float


class DriftMeasure(Document):
    """The distribution of one measure over new images or their objects, and over those of the snapshot.

    Bins lie between the edges, with one below the first and one above the last; classes have no edges.
    """

    name: Literal["size", "class", "brightness", "contrast"]  # of objects, objects, images, images
    edges: tuple[float, ...]  # source px of sqrt(w * h), or levels of luma
    classes: tuple[str, ...]
    trained: tuple[int, ...]
    new: tuple[int, ...]
    distance: float  # 0 to 1: the largest difference of the shares below an edge; of classes the total variation
    limit: float  # a distance above it is drift

    @property
    def has_drifted(self) -> bool:
        """Whether the distributions differ by more than the limit."""
        return self.distance > self.limit


class Drift(Document):
    """How far the images that are new since a snapshot differ from those it holds; too small samples are left out."""

    trained: int  # images
    new: dict[str, int]  # images by split
    measures: tuple[DriftMeasure, ...]


class Since(Document):
    """What depends on the last snapshot or on that of the champion.

    Of the rest of an audit only the findings that are made of it depend on history.
    """

    anchors: AnchorRecall | None
    drift: Drift | None = None  # null without new images, and in audits by earlier versions


class ShiftedOverlap(Document):
    """Mean IoU and NWD of boxes with themselves after a shift."""

    iou: float | None
    nwd: float | None


class ImageQuality(Document):
    """Percentiles of what was measured on a sample of the images, in full; contrast and sharpness are of objects."""

    images: int
    noise: dict[int, float] | None  # levels of luma
    clipped_percent: dict[int, float] | None  # of the pixels
    jpeg_quality: dict[int, float] | None
    contrast: BySize[dict[int, float] | None]  # levels of luma
    sharpness: BySize[dict[int, float] | None]


class ConfusablePair(Document):
    """Two classes, and the share of their objects whose nearest neighbours are of the other class."""

    classes: tuple[str, str]
    objects: int  # of each class
    told_wrongly: float


class Outliers(Document):
    """Boxes of a class far outside its usual range of sizes or shapes."""

    category: str
    kind: Literal["size", "shape"]
    than: str  # larger, smaller, wider, taller or longer
    count: int
    usual: tuple[float, float]  # source px of sqrt(w * h), or width over height
    files: tuple[str, ...]


class Histogram(Document):
    """Counts between edges; with bins below the first and above the last edge where there are two more than edges."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


class Histogram2D(Document):
    """Counts of boxes by width [column] and height [row]; bin 0 is below the first edge."""

    edges: tuple[float, ...]
    counts: tuple[tuple[int, ...], ...]


class Histograms(Document):
    """Boxes by length, by width and height, and by aspect ratio."""

    length: Spaces[Histogram]
    wh: Histogram2D
    aspect: Histogram


class AspectOfClass(Document):
    """The boxes of a class, and percentiles of the log2 of their width over height."""

    boxes: int
    log2: dict[int, float]


class Tiny(Document):
    """The shares of boxes under 8 and under 16 px."""

    under_8: float | None
    under_16: float | None


SizeTable = dict[str, BySize[int]]  # boxes by split or class, and size


class SourceView(Document):
    """The boxes as the label files have them; objects are the valid ones that are no crowds or ignore regions."""

    objects: int
    classes: dict[str, dict[str, int]]  # objects by class and split
    sizes_by_class: SizeTable  # objects, source pixels
    length_percentiles: Percentiles
    untrained: dict[str, int]  # boxes that are no trained objects, by the rule that takes them
    ontology: tuple[CategoryPreview, ...]


class Audit(Document):
    """Counts, shares, percentiles and findings of a dataset."""

    images: int
    annotations: int  # boxes in the label files
    objects: int  # boxes as trained
    images_by_split: dict[str, int]
    tile_size: int
    image_size: int
    sizes: SizeTable  # by split, source pixels
    sizes_network: SizeTable
    sizes_full_image: SizeTable
    sizes_by_class: SizeTable  # source pixels
    sizes_network_by_class: SizeTable
    classes: dict[str, dict[str, int]]  # objects by class and split
    length_percentiles: Spaces[Percentiles]
    resolution: Resolutions
    coco: CocoComparison
    boxes_per_image: BoxesPerImage
    crowding: NetworkSpaces[dict[int, CellSharing]]  # by stride
    coverage: AssignerCoverage
    neighbours: Neighbours
    since: Since
    localisation: BySize[dict[int, ShiftedOverlap]]  # by shift in source px along both axes
    quality: ImageQuality
    alike: tuple[ConfusablePair, ...]
    outliers: tuple[Outliers, ...]
    histograms: Histograms
    image_sizes: dict[str, int]
    formats: dict[str, int]
    tiny: NetworkSpaces[Tiny]
    source: SourceView | None = None  # null in audits by earlier versions, whose objects are those of the source
    centres: tuple[tuple[int, ...], ...] = ()  # boxes by row and column of their centre; empty in earlier audits
    aspects: dict[str, AspectOfClass] = Field(default={})  # by class, of 20 boxes or more; empty in earlier audits
    class_sizes: dict[str, SizeTable] = Field(default={})  # boxes by split, class and size at the network
    findings: Annotated[tuple[Finding, ...], FIRST_ERROR] = ()

    @property
    def objects_by_class(self) -> dict[str, int]:
        """The number of objects of each trained class, classes without any included."""
        return {name: sum(splits.values()) for name, splits in self.classes.items()}


class AuditAnswer(Audit):
    """The audit of a source without a build."""

    html: str  # URI of the page
