"""The result of a build: what `speck build --json` prints, and the log of publications holds.

Sizes are those of etl.boxes.BUCKETS, measured in source pixels.
"""

from __future__ import annotations

from pydantic import Field

from etl.by_size import BySize
from etl.document import Document


class BuiltSnapshot(Document):
    """The snapshot that a build made."""

    snapshot: str  # URI
    published: bool  # false if it was the newest snapshot already


class SnapshotCounts(Document):
    """What a snapshot holds; its manifest has the same counts."""

    images: int  # rows of the table `images`
    annotations: int  # boxes in the source
    added: int = 0  # boxes that a review added; the ledger's counts are of these and of `annotations`
    rejects: dict[str, int]  # files, images and annotations that could not be used, by reason
    ledger: dict[str, int]  # boxes by final outcome
    samples: dict[str, int]  # by split
    base_tiles: dict[str, int]  # samples that are not augmented, by split
    shards: int  # files that hold the samples


class NegativeShare(Document):
    """The share of empty tiles among the base train tiles."""

    asked: float  # `tile.negatives` of the configuration
    found: float | None  # null without train tiles


class LabelSizes(Document):
    """The train labels by size: counts in base tiles, and shares of the labels of all train samples."""

    base_tiles: BySize[int]  # labels
    asked: BySize[float]  # share by the configuration
    forecast: BySize[float]  # share when the plan was made
    found: BySize[float]  # share in this snapshot


class Difference(Document):
    """How many ids were added and removed."""

    added: int  # only in the new snapshot
    removed: int  # only in the previous one


class ClassChange(Document):
    """Boxes that are in both snapshots and changed their class.

    A class is null for boxes that have none: in the source, no box of the other class before or now; in training,
    boxes that are dropped or ignored.
    """

    before: str | None = Field(alias="from")  # class in the previous snapshot
    after: str | None = Field(alias="to")  # class in the new one
    boxes: int
    of: int  # boxes of `from` in the previous snapshot; of `to` in the new one if `from` is null


class ClassNumber(Document):
    """A trained class whose number in exports and models changed."""

    category: str
    before: int = Field(alias="from")
    after: int = Field(alias="to")


class ClassChanges(Document):
    """Which class became which, for how many boxes."""

    source: tuple[ClassChange, ...] = ()  # as labelled
    trained: tuple[ClassChange, ...] = ()  # after the ontology
    renumbered: tuple[ClassNumber, ...] = ()  # classes of both snapshots


class SnapshotChange(Document):
    """The difference from the snapshot that was the newest before; everything is new in a first one."""

    images: Difference  # by image id
    boxes: Difference  # by annotation id, without labels that a review removed
    share: float  # boxes added, removed or changed, divided by the previous number, at most 1; 1 if that is 0
    classes: ClassChanges = ClassChanges()


class AnchorMetrics(Document):
    """Anchors and how well they fit the boxes of the train tiles; the metrics are null without boxes."""

    anchors: tuple[tuple[tuple[float, float], ...], ...]  # (w, h) in network pixels, by level
    bpr: float | None  # best possible recall: share of boxes that an anchor reaches
    aat: float | None  # anchors above threshold: mean number of anchors that reach a box
    fitness: float | None  # mean best agreement of a box, 0 to 1


class FittedAnchors(AnchorMetrics):
    """Anchors fitted to the boxes of the train tiles, or defaults without boxes; or `anchors.preset`."""

    strides: tuple[int, ...]  # of the levels
    fitted_anchors: AnchorMetrics | None = None  # those fitted to the same boxes, if `anchors.preset` is used


class BuildAnswer(SnapshotCounts, BuiltSnapshot):  # fields of BuiltSnapshot come first
    """The snapshot of a build, its counts, its change, and how its samples compare with the plan."""

    reused_samples: int  # copied from an earlier snapshot
    negatives: NegativeShare  # empty tiles asked for and found
    sizes: LabelSizes  # of the train labels
    change: SnapshotChange  # since the previous snapshot
    anchors: FittedAnchors  # for models whose name ends with `-anchors`
    mended: tuple[str, ...] = ()  # damaged files of the store, and what was done about each
    stages: dict[str, float]  # seconds by stage
    seconds: float  # wall-clock time of all stages
    cpu_seconds: float  # CPU time of all stages and of their parts on workers, without the start of the processes
