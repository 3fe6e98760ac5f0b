"""The dataset that Ultralytics trains on, read directly from a snapshot's shards."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from torch.utils.data import default_collate
from ultralytics.data.augment import Compose, Format, RandomFlip, RandomHSV
from ultralytics.data.dataset import YOLODataset

from etl.boxes import xyxy_to_cxcywh
from etl.imaging.mask import GREY, mask_out
from etl.snapshots.samples import ShardReader, box_lists, category_lists
from train import compat
from train.engine.sample_cache import Pixels, SampleCache

compat.install()
_GEOMETRY = ("degrees", "translate", "scale", "shear", "perspective", "mosaic", "mixup", "cutmix")


class ShardDataset(YOLODataset):
    """The samples of one split, padded on the right and at the bottom to a square.

    A sample is resized only if the image size differs from the tile size. Its ignore regions are painted grey except
    inside labelled boxes. No cache file is written; up to `cache_bytes` of decoded samples are kept in memory.
    """

    def __init__(
        self, samples: pa.Table, reader: ShardReader, categories: Sequence[str], *, scale: float,
        cache_bytes: int = 0, **settings: Any,
    ) -> None:  # fmt: skip
        self.samples = samples
        self._scale = scale
        self._seed = int(getattr(settings.get("hyp"), "seed", 0))
        self._reader = reader
        self._boxes = box_lists(samples["boxes"])
        self._ignore = box_lists(samples["ignore"])
        self._labels = category_lists(samples["boxes"], categories)
        self._places = list(zip(*(samples[name].to_pylist() for name in ("shard", "offset", "size")), strict=True))
        data = {"names": dict(enumerate(categories)), "nc": len(categories), "channels": 3}
        super().__init__(img_path="", data=data, task="detect", rect=False, cache=None, **settings)
        self.sample_cache = SampleCache(len(samples), self.imgsz, cache_bytes)

    def __getitem__(self, index: int) -> Any:
        """Return a sample by the index epoch * len + row.

        Seed, epoch and row determine the augmentation, independently of the number of workers. The exception is a
        mosaic: its other three samples are among the last ones that this worker read, which saves three reads.
        """
        epoch, row = divmod(index, len(self))
        if self.augment:
            seed = np.random.SeedSequence([self._seed, epoch, row]).generate_state(1)[0]
            random.seed(int(seed))
            np.random.seed(int(seed))
        return super().__getitem__(row)

    def get_img_files(self, img_path: str | list[str]) -> list[str]:
        """Return the samples' names; no such files exist."""
        return [f"{name}.jpg" for name in self.samples["sample_id"].to_pylist()]

    def get_labels(self) -> list[dict[str, Any]]:
        """Return one dict per sample, with boxes as cxcywh relative to the padded square."""
        side = self.imgsz / self._scale  # the square in sample pixels
        return [
            {
                "im_file": name,
                "shape": (self.imgsz, self.imgsz),
                "cls": labels[:, None].astype(np.float32),  # [N, 1]
                "bboxes": (xyxy_to_cxcywh(boxes) / side).astype(np.float32),  # [N, 4]
                "segments": [],
                "keypoints": None,
                "normalized": True,
                "bbox_format": "xywh",
            }
            for name, boxes, labels in zip(self.im_files, self._boxes, self._labels, strict=True)
        ]

    def load_image(
        self, i: int, rect_mode: bool = True, resize_short: bool = False
    ) -> tuple[Pixels, tuple[int, int], tuple[int, int]]:
        """Return the padded square BGR image of a sample, and its (height, width) twice."""
        image = self.ims[i]
        if image is None:
            image = self._padded(i)
            if self._in_mosaics:
                self._buffer_for_mosaic(i, image)
        if self.ims[i] is not None or i < self.sample_cache.samples:
            image = image.copy()  # colour augmentation changes it in place
        return image, (self.imgsz, self.imgsz), (self.imgsz, self.imgsz)

    @staticmethod
    def collate_fn(batch: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a batch as Ultralytics does; a worker process stacks the images in shared memory at once."""
        labels = [{name: value for name, value in sample.items() if name != "img"} for sample in batch]
        images = default_collate([sample["img"] for sample in batch])
        return {**YOLODataset.collate_fn(labels), "img": images}

    def build_transforms(self, hyp: Any) -> Any:
        """Return the transforms; without geometric augmentation no pixel is resampled and no box is filtered."""
        self._in_mosaics = bool(self.augment and hyp.mosaic)
        if self._has_geometry(hyp):
            seeded = copy.copy(hyp)
            seeded.augmentations = []  # Albumentations has its own random state, which cannot be seeded from here
            return super().build_transforms(seeded)
        formatting = Format(
            bbox_format="xywh", normalize=True, batch_idx=True, mask_ratio=hyp.mask_ratio,
            mask_overlap=hyp.overlap_mask, bgr=hyp.bgr if self.augment else 0.0,
        )  # fmt: skip
        if not self.augment:
            return Compose([formatting])
        colour = RandomHSV(hgain=hyp.hsv_h, sgain=hyp.hsv_s, vgain=hyp.hsv_v)
        flips = [RandomFlip(direction="vertical", p=hyp.flipud), RandomFlip(direction="horizontal", p=hyp.fliplr)]
        return Compose([colour, *flips, formatting])

    def _has_geometry(self, hyp: Any) -> bool:
        return bool(self.augment) and any(getattr(hyp, name) for name in _GEOMETRY)

    def _padded(self, i: int) -> Pixels:
        image = self.sample_cache.load(i)
        if image is None:
            image = self.sample_cache.store(i, pad_to_square(self._resized(self._painted(i)), self.imgsz))
        return image

    def _painted(self, i: int) -> Pixels:
        rgb = self._reader.read_image(*self._places[i])
        return mask_out(np.ascontiguousarray(rgb[..., ::-1]), self._ignore[i], self._boxes[i])

    def _resized(self, image: Pixels) -> Pixels:
        height, width = image.shape[:2]
        scale = min(self._scale, self.imgsz / max(height, width))
        if scale == 1:
            return image
        wh = (min(round(width * scale), self.imgsz), min(round(height * scale), self.imgsz))
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(image, wh, interpolation=method), np.uint8)

    def _buffer_for_mosaic(self, i: int, image: Pixels) -> None:
        """Keep the image in memory: a mosaic takes its other three samples from the latest ones."""
        self.ims[i], self.im_hw0[i], self.im_hw[i] = image, image.shape[:2], image.shape[:2]
        self.buffer.append(i)
        if 1 < len(self.buffer) >= self.max_buffer_length:
            oldest = self.buffer.pop(0)
            self.ims[oldest] = self.im_hw0[oldest] = self.im_hw[oldest] = None


def pad_to_square(image: Pixels, side: int) -> Pixels:
    """Return the image [h, w, 3] in the top left corner of a grey square [side, side, 3]."""
    height, width = image.shape[:2]
    if height == width == side:
        return image
    square = np.full((side, side, 3), GREY, np.uint8)
    square[:height, :width] = image
    return square
