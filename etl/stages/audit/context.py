"""What the audit needs besides the counts, and what its checks read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Literal

import pyarrow as pa

from etl.config import Merge, Ontology
from etl.findings import Finding
from etl.schema import IMAGES, REJECTS
from etl.stages.audit.counts import Summary
from etl.stages.audit.model import Audit, SourceView
from etl.stages.remap import CategoryPreview
from etl.stages.splitting.crossing import CrossingPairs

_IN_TABLE = (  # rejected boxes that the annotations table holds too
    *("zero_size", "outside_image", "unknown_category"),
    *("shares_for_pixels", "corners_for_size", "size_for_corners"),
)


@dataclass(frozen=True, kw_only=True)
class Context:
    """Settings of the audit, the tables of the source, and what other stages found."""

    tile_size: int
    image_size: int
    assigner: str = "tal"  # of the configured model, see etl.assigner
    strides: Sequence[int] = (8, 16, 32)  # of its levels
    reach: float = inf  # strides from a cell's centre to the edges of its box at most
    anchors: Sequence[Sequence[Sequence[float]]] = ()  # preset, else of the last snapshot; [level][k](w, h)
    drift_since: str = "the last snapshot"  # or the champion's: the one that new images are compared with
    p2_variant: str | None = None  # of the configured model; None if it has a P2 level or no such variant
    recipe: Literal["manual", "auto"] = "manual"
    preset_anchors: bool = False
    images: pa.Table = field(default_factory=IMAGES.empty_table)
    rejects: pa.Table = field(default_factory=REJECTS.empty_table)
    declared: Sequence[str] = ()  # the source's list of classes; empty when it has none
    lists_classes: bool = False  # the dataset file has source.categories
    names_classes: bool = True  # the label files name classes, rather than number them
    ontology: Ontology = field(default_factory=Ontology)
    trained: Mapping[str, str] = field(default_factory=dict)  # class -> its name after the ontology; dropped ones lack
    preview: Sequence[CategoryPreview] = ()  # what the ontology makes of each class
    untrained: Mapping[str, int] = field(default_factory=dict)  # boxes by the rule that takes them
    grouped_by: Literal["source.group", "own split"] | None = None  # what keeps images together
    near_duplicates: CrossingPairs = field(default_factory=CrossingPairs)
    merge: Merge = field(default_factory=Merge)  # of the detections of overlapping views
    findings: Sequence[Finding] = ()  # of other stages
    max_rejects: float = 0.05
    varies_quality: bool = True  # whether augmented samples vary light, contrast and noise
    lossless_remedy: str | None = None  # what makes tiles lossless; None if they are, or if encoding is configured

    @property
    def classes(self) -> list[str]:
        """The trained classes, in the order of the source."""
        return list(dict.fromkeys(self.trained.values())) if self.trained else list(self.declared)

    @property
    def unread_boxes(self) -> int:
        """The number of boxes in label files that have no row in the annotations table."""
        reasons = zip(self.rejects["kind"].to_pylist(), self.rejects["reason"].to_pylist(), strict=True)
        return sum(kind == "annotation" and reason not in _IN_TABLE for kind, reason in reasons)


@dataclass(frozen=True)
class CheckInput:
    """What a check may read: the audit without findings, the summary that it was concluded from, and its context.

    Audit and summary are of the boxes as trained, `source` of those in the label files.
    """

    audit: Audit
    summary: Summary
    context: Context

    @property
    def source(self) -> SourceView | None:
        """The boxes as the label files have them."""
        return self.audit.source

    def counted(self, code: str) -> int:
        """Return how many images, boxes or pairs were counted under the code of a finding."""
        return self.summary.counts.get(("found", code), 0)

    def largest_boxes(self, classes: Iterable[str]) -> list[str]:
        """Return the place of the largest box of each trained class that has one."""
        return [place for name in classes for _, place in self.summary.extremes.get(f"most size/{name}", ())[:1]]

    def measured(self, code: str) -> int:
        """Return how many measured images or objects have the fault of a finding."""
        return self.summary.counts.get(("measured", code), 0)
