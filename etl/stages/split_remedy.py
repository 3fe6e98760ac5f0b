"""The settings that mend a split, with examples taken from the dataset."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import pyarrow as pa

from etl.config import Source, SplitRatios
from etl.numbers import count_of
from etl.stages.group_pattern import GroupPattern, suggest_group
from etl.stages.leakage import GUARD, look_alikes
from etl.stages.splitting.looks import find_photos, frames_by_sequence

BLOCKS = 10  # of the longest sequence, in the suggested source.group.every


@dataclass(frozen=True)
class Remedies:
    """What may mend the split of a dataset: its images after the split, and the settings they were split by."""

    images: pa.Table
    source: Source
    pinned: bool = False  # the plan of an earlier build pins the split

    def describe(self, *, leaking: bool = False) -> str:
        """Return the settings that may mend the split, numbered, with examples; `leaking` ones need no more groups."""
        settings = enumerate(self._settings(leaking), 1)
        return "To mend it, one of: " + " ".join(f"({place}) {text}" for place, text in settings)

    def _settings(self, leaking: bool) -> Iterator[str]:
        if not isinstance(self.source.split, SplitRatios):
            yield "Remove source.split, or set source.split: {val: 0.2}: images are then assigned by group."
            yield "Name other images, source.split: {train: [...], val: [...]}."
            return
        if self.pinned:
            yield (
                "Delete plan.json in the folder of the dataset's store, which pins this split: the next build makes "
                "a new split and new tiles."
            )
        if self.source.group is not None:
            yield "Remove source.group: names and looks then make the groups, and long videos are cut into blocks."
        if self.pattern is not None and (leaking or self.pattern.groups > len(self.images["group"].unique())):
            groups = count_of(self.pattern.groups, "group")
            yield f"Set source.group: '{self.pattern.pattern}', which makes {groups} here."
        if self.frames_per_block is not None:
            yield f"Cut sequences into blocks, source.group: {{every: {self.frames_per_block}}}."
        yield "Name folders or lists of images, source.split: {train: [...], val: [...]}."
        yield "Add images of other scenes."

    @cached_property
    def pattern(self) -> GroupPattern | None:
        """A pattern that makes enough groups and separates neither images that look alike nor frames of a video."""
        splits = self.source.split
        asked = 1 + (splits.val > 0) + (splits.test > 0) if isinstance(splits, SplitRatios) else 2
        together = [*_alike(self.images), *self._neighbours()]
        found = suggest_group(self.images["path"].to_pylist(), together, asked)
        return None if found is None or found.pattern == self.source.group else found

    @cached_property
    def frames_per_block(self) -> int | None:
        """The numbers of a block that cuts the longest sequence into BLOCKS.

        None without a long sequence whose frames differ, or if guard bands would take most of a block.
        """
        frames: dict[str, dict[str, int]] = {}  # sequence -> content -> a frame
        for name, number, content in zip(*self._columns("sequence", "frame", "sha256"), strict=True):
            if number is not None:
                frames.setdefault(name, {})[content] = number
        numbers = max((sorted(found.values()) for found in frames.values()), key=len, default=[])
        if len(numbers) < 2 * BLOCKS:
            return None
        length = -(-(numbers[-1] - numbers[0] + 1) // BLOCKS)
        return length if length > 2 * GUARD + 1 else None

    def _neighbours(self) -> Iterator[tuple[str, str]]:
        """Yield the paths of every two neighbouring frames of a video."""
        names, numbers, hashes, paths = self._columns("sequence", "frame", "phash", "path")
        sequences = frames_by_sequence(names, numbers, hashes)
        videos = sequences.keys() - {*find_photos(sequences)}
        frames = sorted(
            (name, number, path)
            for name, number, path in zip(names, numbers, paths, strict=True)
            if number is not None and name in videos
        )
        yield from ((one[2], other[2]) for one, other in pairwise(frames) if one[0] == other[0])

    def _columns(self, *names: str) -> list[list[Any]]:
        return [self.images[name].to_pylist() for name in names]


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
