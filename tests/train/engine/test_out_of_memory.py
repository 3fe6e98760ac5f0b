"""A training whose memory runs out: it continues with half the batch, from its last saved epoch."""

import logging
import time

import pytest
import torch

from etl.errors import SpeckError
from train import compat
from train.engine import run as engine, trainer
from train.models import model

compat.install()

from ultralytics.models.yolo.detect import DetectionTrainer  # noqa: E402 - after compat.install()
from ultralytics.nn import tasks  # noqa: E402

OPTIONS = {"optimizer": "AdamW", "lr0": 0.01, "nbs": 8, "warmup_epochs": 1}


class Memory:
    """A GPU's memory that holds `samples` of a training batch, or of a validation batch, from an epoch on."""

    def __init__(self, monkeypatch):
        self.samples, self.from_epoch, self.in_validation = 1000, 0, False
        self.batches = []  # sizes of training batches
        loss, start, memory = tasks.DetectionModel.loss, trainer.Trainer._start_epoch, self

        def limited(module, batch, preds=None):
            memory.batches += [len(batch["img"])] if module.training else []
            is_limited = module.training != memory.in_validation and memory.epoch >= memory.from_epoch
            if is_limited and len(batch["img"]) > memory.samples:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
            return loss(module, batch, preds)

        def start_epoch(self):
            memory.epoch = self.epoch
            start(self)

        monkeypatch.setattr(tasks.DetectionModel, "loss", limited)
        monkeypatch.setattr(trainer.Trainer, "_start_epoch", start_epoch)
        monkeypatch.setattr(trainer, "_VALIDATION_SHARE", 1.0)  # validate after every epoch


@pytest.fixture
def memory(monkeypatch):
    return Memory(monkeypatch)


@pytest.mark.parametrize(
    ("from_epoch", "in_validation", "samples", "sizes"),
    [
        (0, False, 4, [8] + [4] * 24), (0, False, 2, [8, 4] + [2] * 48), (2, False, 4, [8] * 9 + [4] * 8),
        (0, True, 7, [8] * 4 + [4] * 8 + [2] * 48), (2, True, 7, [8] * 12 + [4] * 8 + [2] * 16),
    ],
)  # fmt: skip
def test_a_training_whose_memory_runs_out_goes_on_with_half_the_batch(
    published, tmp_path, memory, caplog, config, from_epoch, in_validation, samples, sizes
):
    """From the last saved epoch. A batch of validation is twice as large."""
    caplog.set_level(logging.INFO, "speck")
    memory.samples, memory.from_epoch, memory.in_validation = samples, from_epoch, in_validation
    answer = engine.train(config(tmp_path, epochs=3, options=OPTIONS), published(val=16))
    assert answer["epochs"] == 3
    assert memory.batches == sizes
    trained = model.load_saved_model(answer["model"]).meta["trained"]
    assert (trained["batch"], trained["nbs"]) == (sizes[-1], 8)
    assert "the GPU's memory ran out with a batch of 8: continuing with 4" in caplog.messages
    assert any(text.startswith(f"batch {sizes[-1]}: halved, because memory ran out") for text in caplog.messages)


def test_a_resumed_training_whose_memory_runs_out_goes_on_and_so_does_its_next_try(
    published, tmp_path, memory, monkeypatch, caplog, config
):
    caplog.set_level(logging.INFO, "speck")
    snapshot, settings = published(), config(tmp_path, epochs=3, options=OPTIONS)

    def train_until(batches):
        def killed(self):
            if len(memory.batches) == batches:
                raise KeyboardInterrupt

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(trainer.Trainer, "_report_step", killed)
            engine.train(settings, snapshot)

    train_until(6)  # in the second epoch of 4 batches
    memory.samples = 4
    train_until(9)  # one of 8 fails and two of 4 are trained
    train_until(11)
    train_until(20)  # in the third epoch of 8 batches
    assert engine.train(settings, snapshot)["epochs"] == 3
    assert memory.batches == [8] * 7 + [4] * (2 + 2 + 9 + 8)
    reasons = [text.split(";")[0] for text in caplog.messages if text.startswith("batch ")]
    assert reasons == ["batch 8: set by train.batch"] * 2 + ["batch 4: halved, because memory ran out"] * 4


def test_a_batch_larger_than_nbs_is_halved_without_another_optimizer(published, tmp_path, memory, monkeypatch, config):
    """Ultralytics chooses the optimizer by the number of steps, and the saved state is of the first one."""
    choose, taken, step = DetectionTrainer.build_optimizer, [], DetectionTrainer.optimizer_step

    def as_of_a_thousand_times_the_steps(self, **settings):
        return choose(self, **{**settings, "iterations": 1000 * settings["iterations"]})

    monkeypatch.setattr(DetectionTrainer, "build_optimizer", as_of_a_thousand_times_the_steps)
    monkeypatch.setattr(DetectionTrainer, "optimizer_step", lambda self: taken.append(1) or step(self))
    memory.samples, memory.from_epoch = 4, 1
    options = {"optimizer": "auto", "nbs": 4, "warmup_epochs": 0}
    answer = engine.train(config(tmp_path, epochs=2, options=options), published())
    assert memory.batches == [8] * 5 + [4] * 8
    assert len(taken) == 8
    trained = model.load_saved_model(answer["model"]).meta["trained"]
    assert (trained["batch"], trained["nbs"]) == (4, 8)


def test_a_killed_training_whose_memory_ran_out_in_its_first_epoch_begins_with_half_the_batch(
    published, tmp_path, memory, monkeypatch, config
):
    snapshot, settings = published(), config(tmp_path, options=OPTIONS)
    memory.samples = 4

    def killed(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(trainer.Trainer, "_report_step", killed)
        engine.train(settings, snapshot)
    assert engine.train(settings, snapshot)["epochs"] == 1
    assert memory.batches == [8, 4] + [4] * 8


def test_the_seconds_of_a_training_whose_memory_ran_out_count_once(published, tmp_path, memory, config):
    memory.samples, memory.from_epoch = 4, 2
    snapshot, start = published(), time.monotonic()
    answer = engine.train(config(tmp_path, epochs=3, options=OPTIONS), snapshot)
    assert answer["seconds"] <= time.monotonic() - start + 0.1


@pytest.mark.parametrize("from_epoch", [0, 1])
def test_the_time_until_the_memory_ran_out_counts_for_the_budget(
    published, tmp_path, memory, monkeypatch, config, from_epoch
):
    memory.samples, memory.from_epoch = 4, from_epoch
    monkeypatch.setattr(trainer.Trainer, "seconds", 1000.0)
    answer = engine.train(config(tmp_path, epochs=5, max_seconds=600, options=OPTIONS), published())
    assert answer["epochs"] == from_epoch + 1


def test_the_rate_of_a_training_whose_memory_ran_out_falls_to_its_end(published, tmp_path, memory, monkeypatch, config):
    """A training with a time limit that it does not need: the rate follows the steps, of which there are more now."""
    factors, factor = [], trainer.learning_rate_factor
    monkeypatch.setattr(
        trainer, "learning_rate_factor",
        lambda *args, **settings: factors.append(factor(*args, **settings)) or factors[-1],
    )  # fmt: skip
    memory.samples, memory.from_epoch = 4, 2
    options = {**OPTIONS, "lrf": 0.01, "warmup_epochs": 0}
    engine.train(config(tmp_path, epochs=3, max_seconds=6000, options=options), published())
    assert factors[-1] == pytest.approx(0.01 + 0.99 / 24, abs=1e-3)  # before the last of 24 steps


def test_a_batch_of_one_that_does_not_fit_ends_the_training(published, tmp_path, memory, config):
    """The next try begins with the whole batch: other programs on the GPU may have ended."""
    snapshot, settings = published(), config(tmp_path, options=OPTIONS)
    memory.samples = 0
    with pytest.raises(SpeckError, match=r"not even a batch of 1 fits .* lower train\.image_size"):
        engine.train(settings, snapshot)
    assert memory.batches == [8, 4, 2, 1]
    memory.samples, memory.batches = 8, []
    engine.train(settings, snapshot)
    assert memory.batches == [8] * 4
