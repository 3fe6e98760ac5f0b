"""The report of a split: images and boxes of every split by size and class, the groups, and the leaks that remain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from etl import region
from etl.boxes import BUCKETS
from etl.by_size import BySize
from etl.document import Document
from etl.schema import ANNOTATIONS, DIVIDED, LEFT_OUT, SPLITS
from etl.stages.rows import ImageRow
from etl.stages.splitting.box_counts import BoxCounts, boxes_in_region, count_boxes, gate_buckets

_NO_BOXES = ANNOTATIONS.empty_table()
MOST_GROUPS = 50  # the largest groups, which a report lists

GroupKind = Literal["photo", "video", "cut", "pattern", "every", "source"]


class SplitCounts(Document):
    """Images and trained boxes of one split; ignore regions and crowds are not counted."""

    images: int
    boxes: int  # also difficult ones, which evaluation ignores
    sizes: BySize[int]  # without difficult boxes, by the size ranges of evaluation
    categories: dict[str, int]  # without difficult boxes; every class that is trained, also those without a box here

    def boxes_of(self, buckets: Sequence[str]) -> int:
        """Return the number of boxes in these size buckets."""
        return sum(self.sizes[name] for name in buckets)


class GroupCounts(Document):
    """A group of images: its name, why they belong together, what it holds, and the splits it went to.

    Kinds: `photo` (one photo, its augmented versions and photos that look the same), `video` (a sequence of frames, or
    a numbered name that is not known to be photos), `cut` (a video cut into blocks that go to several splits),
    `pattern` and `every` (of `source.group`), `source` (an image in a split that the dataset came with).
    """

    name: str
    kind: GroupKind
    images: int
    boxes: int
    sizes: BySize[int]  # without difficult boxes
    splits: tuple[str, ...]  # also left_out, if it lost images

    def boxes_of(self, buckets: Sequence[str]) -> int:
        """Return the number of boxes in these size buckets."""
        return sum(self.sizes[name] for name in buckets)


class SplitReport(Document):
    """What a split gives to train, val and test, after everything that is left out.

    A check of a split needs `splits`, `leaks` and `gate_sizes`; `groups` and `kinds` explain the split to the user.
    """

    splits: dict[str, SplitCounts]  # the splits that the configuration asks for, in order
    left_out: dict[str, int] = Field(default_factory=dict)  # images by rule, see the ledger rules of the split
    groups: tuple[GroupCounts, ...] = ()  # the largest, at most MOST_GROUPS
    group_count: int = 0
    kinds: dict[GroupKind, int] = Field(default_factory=dict)  # number of groups
    gate_sizes: tuple[str, ...] = ()  # size buckets that gate.metric measures
    leaks: int = 0  # val and test images that look like train images and are too many to leave out
    alike_blocks: int = 0  # the same within cut videos, as with a camera that does not move: no guard band helps
    divided: int = 0  # images divided into regions of several splits

    @field_validator("splits")
    @classmethod
    def _in_order(cls, splits: dict[str, SplitCounts]) -> dict[str, SplitCounts]:
        return {name: splits[name] for name in SPLITS if name in splits}  # a JSON file has them by name

    @property
    def boxes(self) -> int:
        """The number of trained boxes in all splits."""
        return sum(split.boxes for split in self.splits.values())


def asked_splits(held_out: tuple[float, float] | None) -> tuple[str, ...]:
    """Return the names of the splits that shares of val and test ask for; train and val without shares."""
    val, test = held_out if held_out is not None else (1.0, 0.0)
    return ("train", *(("val",) if val > 0 else ()), *(("test",) if test > 0 else ()))


def make_report(
    rows: Sequence[ImageRow],
    counts: BoxCounts,
    held_out: tuple[float, float] | None,
    metric: str,
    *,
    kinds: Mapping[str, GroupKind],
    left_out: Mapping[str, str],
    leaks: int = 0,
    alike_blocks: int = 0,
    of_divided: pa.Table = _NO_BOXES,
) -> SplitReport:
    """Return the report of the rows of `images` with their final splits.

    `counts` are the boxes of the rows, `of_divided` those of the divided images; `kinds` gives the kind of each group.
    """
    asked = [*asked_splits(held_out)]
    asked += [name for name in ("test",) if name not in asked and any(row["split"] == name for row in rows)]
    splits = {name: _split_counts(rows, counts, name) for name in asked}
    for row in rows:
        if row["split"] == DIVIDED:
            splits = _add_regions(splits, row, of_divided, held_out, counts.names)
    names = {row["group"] for row in rows}
    return SplitReport(
        splits=splits,
        left_out=dict(sorted(Counter(left_out.values()).items())),
        groups=tuple(_largest_groups(rows, counts, kinds)),
        group_count=len(names),
        kinds=dict(sorted(Counter(kinds.get(name, "photo") for name in names).items())),
        gate_sizes=tuple(BUCKETS[index] for index in gate_buckets(metric, counts.sizes.sum(axis=0))),
        leaks=leaks,
        alike_blocks=alike_blocks,
        divided=sum(row["split"] == DIVIDED for row in rows),
    )


def _split_counts(rows: Sequence[ImageRow], counts: BoxCounts, split: str) -> SplitCounts:
    mask = np.array([row["split"] == split for row in rows], dtype=np.bool_)
    sizes, categories = counts.sizes[mask].sum(axis=0), counts.categories[mask].sum(axis=0)
    return SplitCounts(
        images=int(mask.sum()),
        boxes=int(counts.trained[mask].sum()),
        sizes=BySize[int].of(sizes.tolist()),
        categories=dict(zip(counts.names, categories.tolist(), strict=True)),
    )


def _add_regions(
    splits: Mapping[str, SplitCounts],
    image: ImageRow,
    boxes: pa.Table,
    held_out: tuple[float, float] | None,
    categories: Sequence[str],
) -> dict[str, SplitCounts]:
    """Return the counts with the regions of a divided image: an image in each of its splits."""
    added = dict(splits)
    for split, window in region.regions_of(image, held_out):
        inside = count_boxes([image["image_id"]], [boxes_in_region(image, boxes, window)])
        found = dict(zip(inside.names, inside.categories[0].tolist(), strict=True))
        before = splits[split]
        added[split] = SplitCounts(
            images=before.images + 1,
            boxes=before.boxes + int(inside.trained.sum()),
            sizes=BySize[int].of(
                [old + new for old, new in zip(before.sizes.values(), inside.sizes[0].tolist(), strict=True)]
            ),
            categories={name: before.categories[name] + found.get(name, 0) for name in categories},
        )
    return added


def _largest_groups(rows: Sequence[ImageRow], counts: BoxCounts, kinds: Mapping[str, GroupKind]) -> list[GroupCounts]:
    """Return the MOST_GROUPS groups with most images."""
    images = Counter(row["group"] for row in rows)
    listed = sorted(images, key=lambda name: (-images[name], name))[:MOST_GROUPS]
    members: dict[str, list[int]] = {name: [] for name in listed}
    for place, row in enumerate(rows):
        if row["group"] in members:
            members[row["group"]].append(place)
    groups = []
    for name, places in members.items():
        sizes = counts.sizes[places].sum(axis=0)
        splits = {rows[place]["split"] for place in places}
        groups.append(
            GroupCounts(
                name=name,
                kind=kinds.get(name, "photo"),
                images=len(places),
                boxes=int(counts.trained[places].sum()),
                sizes=BySize[int].of(sizes.tolist()),
                splits=tuple(sorted(splits, key=lambda split: (split == LEFT_OUT, split))),
            )
        )
    return groups
