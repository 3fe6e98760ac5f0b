"""A snapshot's samples as a plain Torch dataset, for training loops without Ultralytics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import torch
from torch.utils.data import Dataset

from etl.errors import ConfigError
from etl.snapshots.snapshot import Snapshot


class Target(TypedDict):
    """The labels of one sample, in the form that torchvision's detection models train on."""

    boxes: torch.Tensor  # float32 [N, 4], xyxy in pixels of the sample
    labels: torch.Tensor  # int64 [N], from 1
    weights: torch.Tensor  # float32 [N]
    image_id: int  # index of the sample in the dataset


Item = tuple[torch.Tensor, Target]


class SnapshotDataset(Dataset[Item]):
    """The samples of one split of a snapshot, ordered by sample id.

    An item is `(image, target)`: the image uint8 [3, H, W] RGB, and a dict with `boxes` (float32 [N, 4], xyxy in pixels
    of the sample), `labels` (int64 [N]), `weights` (float32 [N]) and `image_id` (the item's index). The samples are
    neither padded nor resized, and may differ in size: use `SnapshotDataset.collate` as `collate_fn`.

    Labels start at 1, as torchvision's detection models expect: 0 is the background. `categories[label - 1]` is the
    name of a label; the number of classes of a torchvision model is `len(categories) + 1`.

    A weight is 1/k for an object that is labelled in k overlapping tiles, so that the weights of an object sum to 1; in
    augmented samples it is 1. Models are free to ignore it.

    Args:
        snapshot: A snapshot or its URI.
        split: `train`, `val` or `test`.
        paint_ignore: Paint ignore regions grey (114) except inside labelled boxes, as Speck's own training does.

    Raises:
        ConfigError: Another split, or one without samples.
        StoreError: There is no such snapshot. When an item is read: its shard is missing or damaged.
    """

    def __init__(self, snapshot: Snapshot | str, split: str, paint_ignore: bool = True) -> None:
        snapshot = Snapshot.open(snapshot) if isinstance(snapshot, str) else snapshot
        self.categories = tuple(snapshot.categories)
        self._samples = snapshot.samples(split)
        self._paint_ignore = paint_ignore
        if not len(self._samples):
            raise ConfigError(snapshot.uri, "split", f"no samples in {split!r}", "a split with samples")

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Item:
        sample = self._samples[index]
        image = sample.masked() if self._paint_ignore else sample.image
        target: Target = {
            "boxes": torch.tensor(sample.boxes, dtype=torch.float32),
            "labels": torch.tensor(sample.labels + 1, dtype=torch.int64),
            "weights": torch.tensor(np.nan_to_num(sample.weights, nan=1.0), dtype=torch.float32),
            "image_id": index % len(self),
        }
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), target

    @staticmethod
    def collate(items: Sequence[Item]) -> tuple[list[torch.Tensor], list[Target]]:
        """Return a batch as a list of images and a list of targets."""
        images, targets = zip(*items, strict=True)
        return list(images), list(targets)
