"""The settings that mend a split, with examples taken from the dataset."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from etl.config import Source, SplitRatios
from etl.stages.group_pattern import GroupPattern, suggest_group
from etl.stages.leakage import look_alikes

BLOCKS = 10  # of the longest sequence, in the suggested source.group.every


@dataclass(frozen=True)
class Remedies:
    """What may mend the split of a dataset: its images after the split, and the settings they were split by."""

    images: pa.Table
    source: Source

    def describe(self) -> str:
        """Return the settings that may mend the split, numbered, with examples."""
        return "To mend it, one of: " + " ".join(f"({place}) {text}" for place, text in enumerate(self._settings(), 1))

    def _settings(self) -> Iterator[str]:
        if not isinstance(self.source.split, SplitRatios):
            yield "Remove source.split, or set source.split: {val: 0.2}: images are then assigned by group."
            yield "Name other images, source.split: {train: [...], val: [...]}."
            return
        if self.pattern is not None:
            yield f"Set source.group: '{self.pattern.pattern}', which makes {self.pattern.groups:,} groups here."
        if self.frames_per_block is not None:
            yield f"Cut sequences into blocks, source.group: {{every: {self.frames_per_block}}}."
        yield "Name folders or lists of images, source.split: {train: [...], val: [...]}."
        yield "Add images of other scenes."

    @cached_property
    def pattern(self) -> GroupPattern | None:
        """A pattern that makes enough groups and separates no two images that look alike."""
        splits = self.source.split
        asked = 1 + (splits.val > 0) + (splits.test > 0) if isinstance(splits, SplitRatios) else 2
        found = suggest_group(self.images["path"].to_pylist(), [*_alike(self.images)], asked)
        return None if found is None or found.pattern == self.source.group else found

    @cached_property
    def frames_per_block(self) -> int | None:
        """The frames of a block that cuts the longest sequence into BLOCKS; None without a long sequence."""
        frames: dict[str, list[int]] = {}
        for row in self.images.select(["sequence", "frame"]).to_pylist():
            if row["frame"] is not None:
                frames.setdefault(row["sequence"], []).append(row["frame"])
        longest = max(frames.values(), key=len, default=[])
        return -(-(max(longest) - min(longest) + 1) // BLOCKS) if len(longest) >= 2 * BLOCKS else None


def _alike(images: pa.Table) -> Iterator[tuple[str, str]]:
    """Yield pairs of paths that connect all images of equal bytes or similar looks."""
    paths: list[str] = images["path"].to_pylist()
    first_of: dict[str, str] = {}
    for path, content in zip(paths, images["sha256"].to_pylist(), strict=True):
        first_path = first_of.setdefault(content, path)
        if first_path != path:
            yield first_path, path
    for first, *others in look_alikes(images["phash"].to_pylist()):
        yield from ((paths[first], paths[other]) for other in others)
