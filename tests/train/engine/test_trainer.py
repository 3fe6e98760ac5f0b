"""How the trainer runs: its rates, steps, samples and mosaics, epoch by epoch and against the clock."""

import dataclasses
import time

import pytest
import torch

from etl.errors import SpeckError
from etl.storage import store
from train.engine import clock, run as engine, schedule, trainer
from train.models import model

OPTIONS = {"optimizer": "AdamW", "lr0": 0.01, "nbs": 8, "warmup_epochs": 1}


def test_a_time_budget_ends_the_run_whatever_the_epochs(published, tmp_path, config):
    answer = engine.train(config(tmp_path, epochs=1, max_seconds=0.001, options=OPTIONS), published())
    assert answer["epochs"] == 1
    assert model.load_saved_model(answer["model"]).meta["trained"]["best_epoch"] == 1


def test_a_time_budget_that_is_not_needed_ends_with_the_epochs(published, tmp_path, config):
    answer = engine.train(config(tmp_path, epochs=2, max_seconds=600, options=OPTIONS), published())
    assert answer["epochs"] == 2


@pytest.mark.parametrize("cosine", [False, True])
def test_the_rate_rises_with_warmth_and_falls_to_its_end_with_the_budget(cosine):
    cold, warm, half, end, late = (
        schedule.learning_rate_factor(spent, warmth, final=0.1, cosine=cosine)
        for spent, warmth in ((0, 0.25), (0, 1), (0.5, 5), (1, 20), (1.2, 24))
    )
    assert (cold, warm) == (0.25, 1)
    assert half == pytest.approx(0.55)
    assert end == late == pytest.approx(0.1)


def test_a_loss_that_is_not_finite_stops_the_run(published, tmp_path, config):
    with pytest.raises(SpeckError, match="lr0"):
        engine.train(
            config(tmp_path, epochs=3, options={**OPTIONS, "optimizer": "SGD", "lr0": 1e30}), published(train=16)
        )


@pytest.mark.parametrize(("nbs", "stepped"), [(8, [1, 2, 3, 4]), (16, [2, 4]), (24, [2, 4]), (64, [4])])
def test_the_batches_of_an_epoch_are_spread_evenly_over_its_steps(
    published, tmp_path, monkeypatch, nbs, stepped, config
):
    taken, step = [], trainer.DetectionTrainer.optimizer_step

    def steps(self):
        taken.append(self._batch)
        step(self)

    monkeypatch.setattr(trainer.DetectionTrainer, "optimizer_step", steps)
    options = {**OPTIONS, "nbs": nbs, "warmup_epochs": 0}
    engine.train(config(tmp_path, epochs=2, options=options), published())
    assert taken == 2 * stepped


@pytest.fixture
def closed(monkeypatch):
    """The epochs before which the mosaic was closed."""
    found, close = [], trainer.Trainer._close_dataloader_mosaic

    def closing(self):
        close(self)
        found.append(self.epoch)
        assert not self.train_loader.dataset._in_mosaics

    monkeypatch.setattr(trainer.Trainer, "_close_dataloader_mosaic", closing)
    return found


CLOSING = {**OPTIONS, "mosaic": 1.0, "close_mosaic": 2}


@pytest.mark.parametrize("seconds", [None, 600])
def test_the_last_epochs_see_no_mosaics_whether_or_not_time_is_limited(published, tmp_path, closed, seconds, config):
    assert engine.train(config(tmp_path, epochs=4, max_seconds=seconds, options=CLOSING), published())["epochs"] == 4
    assert closed == [2]


def test_the_last_epochs_of_a_run_that_its_time_ends_see_no_mosaics(published, tmp_path, monkeypatch, closed, config):
    moment, report = [1e9], trainer.Trainer._report_step
    monkeypatch.setattr(clock, "now", lambda: moment[0])

    def second(self):
        moment[0] += 1
        report(self)

    monkeypatch.setattr(trainer.Trainer, "_report_step", second)
    settings = config(tmp_path, epochs=50, max_seconds=24.5, options=CLOSING)  # of 4 s each, 7 fit
    assert engine.train(settings, published())["epochs"] == 7
    assert closed == [5]


@pytest.mark.parametrize("jump", [86_400, -86_400])
def test_a_change_of_the_system_time_neither_ends_nor_prolongs_a_run(published, tmp_path, monkeypatch, jump, config):
    system, report = [time.time()], trainer.Trainer._report_step
    monkeypatch.setattr("time.time", lambda: system[0])

    def jumping(self):
        system[0] += jump
        report(self)

    snapshot, settings = published(), config(tmp_path, epochs=3, max_seconds=600, options=OPTIONS)
    monkeypatch.setattr(trainer.Trainer, "_report_step", jumping)
    trained = store.read_json(f"{engine.train(settings, snapshot)['model']}/model.json")["trained"]
    assert (trained["epochs"], trained["ended"]) == (3, "epochs")
    assert 0 < trained["seconds"] < 600


@pytest.mark.parametrize("seconds", [None, 600])
def test_a_run_that_goes_on_in_its_last_epochs_makes_no_mosaics(
    published, tmp_path, monkeypatch, closed, seconds, config
):
    snapshot = published(train=16)
    settings = config(tmp_path, epochs=4, max_seconds=seconds, options=CLOSING)
    steps, report = iter(range(100)), trainer.Trainer._report_step

    def killed(self):
        report(self)
        if next(steps) == 6:  # in the last epoch of 2 steps
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(trainer.Trainer, "_report_step", killed)
        engine.train(settings, snapshot)
    engine.train(settings, snapshot)
    assert closed == [2, 3]


@pytest.mark.parametrize("workers", [0, 2])
def test_augmentation_follows_from_the_sample_and_the_epoch(published, tmp_path, workers, config):
    settings = config(tmp_path, options={**OPTIONS, "workers": workers, "hsv_v": 0.4})
    run = engine.prepare_run(settings, published())
    batches = []
    for _ in range(2):
        made = trainer.Trainer(run, tmp_path, str(tmp_path / "runs"))
        loader = made.get_dataloader("train", 8)
        batches.append([[*loader], [*loader]])
        loader.close()
    for first, second in zip(*batches, strict=True):
        assert all(torch.equal(a["img"], b["img"]) for a, b in zip(first, second, strict=True))
        seen = sorted(name for batch in first for name in batch["im_file"])
        assert seen == sorted(made.build_dataset("train", "train", 8).im_files)
    names = [[name for batch in epoch for name in batch["im_file"]] for epoch in batches[0]]
    assert names[0] != names[1]


def make_trainer(spec, tmp_path, **changes):
    return trainer.Trainer(dataclasses.replace(spec, **changes), tmp_path, str(tmp_path / "runs"))


def test_a_training_in_float16_scales_its_gradients_and_resumes_with_the_scale(published, tmp_path, config):
    spec = engine.prepare_run(config(tmp_path, epochs=2, options=OPTIONS), published())
    made = make_trainer(spec, tmp_path, precision="fp16")
    made.add_callback("on_train_epoch_start", lambda self: self.scaler.set_growth_interval(3))
    made.train()
    assert made.amp is True
    assert made.scaler.get_scale() == 4 * 65536  # 8 steps of 3 until it doubles
    resumed = make_trainer(spec, tmp_path, precision="fp16")
    resumed._setup_train()
    assert resumed.scaler.state_dict() == made.scaler.state_dict()
    in_float32 = make_trainer(spec, tmp_path)
    in_float32._setup_train()  # on another device, the run goes on without a scale
    assert not in_float32.scaler.is_enabled()


def test_a_run_begun_in_float32_goes_on_in_float16(published, tmp_path, config):
    spec = engine.prepare_run(config(tmp_path, epochs=1, options=OPTIONS), published())
    make_trainer(spec, tmp_path).train()
    resumed = make_trainer(spec, tmp_path, precision="fp16")
    resumed._setup_train()
    assert resumed.scaler.is_enabled()


def test_a_gpu_that_computes_wrongly_in_float16_trains_in_float32(published, tmp_path, monkeypatch, caplog, config):
    spec = engine.prepare_run(config(tmp_path, options=OPTIONS), published(train=8))
    monkeypatch.setattr(trainer, "computes_in_float16", lambda *_: False)
    made = make_trainer(spec, tmp_path, precision="fp16")
    made._setup_train()
    assert (made.amp, made.precision) == (False, "fp32")
    assert not made.scaler.is_enabled()
    assert "training in float32: this GPU does not compute in float16 correctly" in caplog.messages


@pytest.mark.parametrize("fused", [True, None])
def test_the_optimizer_of_a_resumed_run_is_fused_as_its_device_wants(published, tmp_path, monkeypatch, config, fused):
    spec = engine.prepare_run(config(tmp_path, options=OPTIONS), published(train=8))
    made = make_trainer(spec, tmp_path)
    made.train()
    build = trainer.Trainer.build_optimizer

    def build_fused(self, **settings):
        optimizer = build(self, **settings)
        for group in optimizer.param_groups:
            group["fused"] = fused
        return optimizer

    monkeypatch.setattr(trainer.Trainer, "build_optimizer", build_fused)
    resumed = make_trainer(spec, tmp_path)
    resumed._setup_train()
    assert {group["fused"] for group in resumed.optimizer.param_groups} == {fused}
    assert resumed.optimizer.state_dict()["state"].keys() == made.optimizer.state_dict()["state"].keys()


@pytest.mark.parametrize(
    ("elapsed", "cost", "due"), [(10.0, 0.0, True), (10.0, 0.4, True), (10.0, 0.6, False), (13.0, 0.6, True)]
)
def test_a_state_is_saved_when_that_takes_a_twentieth_of_the_time(elapsed, cost, due):
    assert schedule.is_save_due(elapsed, cost) is due


@pytest.mark.parametrize(("on_gpu", "due", "saved"), [(False, False, 5), (True, False, 1), (True, True, 5)])
def test_on_a_gpu_short_epochs_are_not_all_saved_but_the_last_is(
    published, tmp_path, monkeypatch, config, on_gpu, due, saved
):
    states = []
    monkeypatch.setattr(trainer.checkpoint, "save_state", lambda uri, state: states.append(state["epoch"]))
    monkeypatch.setattr(trainer, "is_save_due", lambda *_: due)
    spec = engine.prepare_run(config(tmp_path, epochs=5, options={**OPTIONS, "workers": 0}), published(train=8))
    monkeypatch.setattr(trainer.Trainer, "_is_on_gpu", on_gpu)
    make_trainer(spec, tmp_path).train()
    assert states == list(range(5))[-saved:]


def test_the_first_epoch_of_a_run_is_saved(published, tmp_path, monkeypatch, config):
    states = []
    monkeypatch.setattr(trainer.checkpoint, "save_state", lambda uri, state: states.append(state["epoch"]))
    monkeypatch.setattr(schedule, "_SAVING_SHARE", 0.0)
    spec = engine.prepare_run(config(tmp_path, epochs=4, options={**OPTIONS, "workers": 0}), published(train=8))
    monkeypatch.setattr(trainer.Trainer, "_is_on_gpu", True)
    make_trainer(spec, tmp_path).train()
    assert states == [0, 3]
