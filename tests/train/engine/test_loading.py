"""How many processes load the samples, and the decoded samples that they share."""

import logging

import numpy as np
import pytest
import torch

from train.engine import loading, memory, run as engine, trainer
from train.engine.sample_cache import SampleCache

GB = 10**9


@pytest.mark.parametrize(
    ("processors", "shared", "free", "workers"),
    [
        (16, 64 * GB, 128 * GB, 12), (4, 64 * GB, 128 * GB, 3), (1, 64 * GB, 128 * GB, 0),
        (16, 64_000_000, 128 * GB, 0), (16, 2 * GB, 128 * GB, 3), (16, 64 * GB, 8 * GB, 4),
    ],
)  # fmt: skip
def test_processors_and_memory_bound_the_workers(monkeypatch, caplog, processors, shared, free, workers):
    monkeypatch.setattr(loading.os, "sched_getaffinity", lambda _: range(processors))
    monkeypatch.setattr(memory, "free_shared_bytes", lambda: shared)
    monkeypatch.setattr(memory, "free_bytes", lambda: free)
    assert loading.choose_workers(64 * 3 * 640**2) == workers  # 79 MB a batch
    assert any("too little for more" in text for text in caplog.messages) == (workers < min(processors - 1, 12))


def test_a_batch_larger_than_the_split_takes_no_more_memory_than_its_samples(published, tmp_path, monkeypatch, config):
    sizes = []
    monkeypatch.setattr(trainer.Trainer, "_is_on_gpu", True)
    monkeypatch.setattr(loading, "choose_workers", lambda size: sizes.append(size) or 0)
    spec = engine.prepare_run(config(tmp_path, options=OPTIONS), published())
    trainer.Trainer(spec, tmp_path, str(tmp_path / "runs")).get_dataloader("train", 5000)
    assert sizes == [32 * 3 * 64**2]


def test_as_many_samples_are_stored_as_fit():
    cache = SampleCache(5, 4, most_bytes=3 * (3 * 16 + 1) + 7)
    images = np.random.default_rng(0).integers(0, 255, (5, 4, 4, 3), dtype=np.uint8)
    assert cache.samples == 3
    assert all(cache.load(number) is None for number in range(5))
    assert all(np.array_equal(cache.store(number, images[number]), images[number]) for number in (4, 2, 0))
    assert [cache.load(number) is not None for number in range(5)] == [True, False, True, False, False]
    assert np.array_equal(cache.load(2), images[2])
    assert SampleCache(5, 4, most_bytes=0).samples == 0


OPTIONS = {"optimizer": "AdamW", "lr0": 0.01, "nbs": 8, "warmup_epochs": 1, "hsv_v": 0.4, "mosaic": 0.0}


def test_worker_processes_share_decoded_samples_and_yield_what_one_process_decodes(
    published, tmp_path, monkeypatch, config
):
    spec = engine.prepare_run(config(tmp_path, options=OPTIONS), published())
    plain = trainer.Trainer(spec, tmp_path, str(tmp_path / "runs")).get_dataloader("train", 8)
    monkeypatch.setattr(trainer.Trainer, "_is_on_gpu", True)
    monkeypatch.setattr(loading, "choose_workers", lambda _: 2)
    loader = trainer.Trainer(spec, tmp_path, str(tmp_path / "runs")).get_dataloader("train", 8)
    for _ in range(2):
        for expected, batch in zip(plain, loader, strict=True):
            assert torch.equal(expected["img"], batch["img"])
            assert torch.equal(expected["bboxes"], batch["bboxes"])
    assert all(loader.dataset.sample_cache.load(number) is not None for number in range(32))  # in this process, too
    loader.close()


def test_samples_that_are_kept_are_not_read_again(published, tmp_path, monkeypatch, config):
    spec = engine.prepare_run(config(tmp_path, options=OPTIONS), published())
    made = trainer.Trainer(spec, tmp_path, str(tmp_path / "runs"))
    monkeypatch.setattr(trainer.Trainer, "_is_on_gpu", True)
    monkeypatch.setattr(loading, "cache_bytes", lambda: 20 * (3 * 64**2 + 1))
    dataset = made.build_dataset("train", "train", 8)
    first = [dataset[number]["img"] for number in range(32)]
    reads, read = [], dataset._reader.read
    monkeypatch.setattr(dataset._reader, "read", lambda *place: reads.append(place) or read(*place))
    again = [dataset[number]["img"] for number in range(32)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len(reads) == 12
    assert made.build_dataset("val", "val", 8).sample_cache.samples == 0


def test_a_training_with_workers_and_kept_samples_ends_with_the_same_weights(
    published, tmp_path, monkeypatch, caplog, config
):
    caplog.set_level(logging.INFO, "speck")
    snapshot = published()
    settings = config(tmp_path, epochs=2, options=OPTIONS)
    plain = engine.train(settings, snapshot)["model"]
    monkeypatch.setattr(trainer.Trainer, "_is_on_gpu", True)
    monkeypatch.setattr(loading, "choose_workers", lambda _: 2)
    assert engine.train(settings, snapshot)["model"] == plain
    assert "samples: loaded in 2 processes; 32 of 32 are kept in memory once decoded" in caplog.messages
