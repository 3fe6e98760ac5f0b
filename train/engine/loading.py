"""Load the samples of a training: how many processes, and which of them in which order."""

from __future__ import annotations

import logging
import os
from typing import Any

import numpy as np
import torch

from etl import boxes
from etl.numbers import count, count_of
from train import compat
from train.engine import memory
from train.engine.dataset import ShardDataset
from train.engine.sampler import EpochSampler, rarity_weights

compat.install()

from ultralytics.data.build import InfiniteDataLoader, build_dataloader, seed_worker  # noqa: E402

log = logging.getLogger("speck")

_MOST_WORKERS = 12  # at 5 ms a sample of 640 px they load 2,400 a second
_PREFETCH = 2  # batches that each worker loads ahead
_HELD = 6  # training batches of space that a worker takes: two of training and two of validation, twice as large
_SHARED_SHARE = 0.75  # of the free space in /dev/shm
_MEMORY_SHARE = 0.25  # of the free memory
_CACHE_SHARE = 0.5  # of the free memory


def choose_workers(batch_bytes: int) -> int:
    """Return how many processes load the samples for a GPU: as many as processors and memory allow, at most 12."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = min(processors - 1, _MOST_WORKERS)
    room = min(_SHARED_SHARE * memory.free_shared_bytes(), _MEMORY_SHARE * memory.free_bytes())
    workers = min(wanted, int(room / (_HELD * batch_bytes)))
    if workers < wanted:
        log.warning(
            "samples are loaded by only %s of %s: %.1f GB in %s and memory are too little for more",
            count(workers), count_of(wanted, "possible process"), room / 1e9, memory.SHARED,
        )  # fmt: skip
    return workers


def cache_bytes() -> int:
    """Return how much memory decoded samples may take."""
    return int(_CACHE_SHARE * memory.free_bytes())


def training_loader(
    dataset: ShardDataset, sampler: EpochSampler, batch_size: int, workers: int, *, pinned: bool
) -> Any:
    """Return a loader of the samples in the sampler's order."""
    batch = min(batch_size, len(dataset))
    workers = min(workers, len(dataset) // batch if len(dataset) > batch else 0)
    return InfiniteDataLoader(
        dataset=dataset, batch_size=batch, sampler=sampler, num_workers=workers,
        prefetch_factor=_PREFETCH if workers else None, pin_memory=pinned, collate_fn=dataset.collate_fn,
        worker_init_fn=seed_worker,
        multiprocessing_context="fork" if workers else None,  # the workers share the decoded samples
    )  # fmt: skip


def validation_loader(dataset: ShardDataset, batch_size: int, workers: int, device: torch.device) -> Any:
    """Return a loader of all samples, always in the same order."""
    return build_dataloader(dataset, batch_size, workers, shuffle=False, device=device)


def sampling_weights(dataset: ShardDataset) -> Any:
    """Return the sampling weight of each sample by its categories and the sizes of its boxes."""
    labels = []
    for label in dataset.labels:
        sizes = boxes.bucket(np.sqrt(label["bboxes"].prod(axis=1)) * dataset.imgsz)
        labels.append(np.concatenate([label["cls"][:, 0].astype(np.int64) + len(boxes.BUCKETS), sizes]))
    return rarity_weights(labels)
