"""A training that was killed goes on where it stood, to the same weights."""

import logging

import pytest

from etl.errors import StoreError
from etl.storage import store
from train import compat
from train.engine import checkpoint, run, trainer

compat.install()

from ultralytics.nn import tasks  # noqa: E402 - after the operators are there

OPTIONS = {"optimizer": "AdamW", "lr0": 0.01, "nbs": 8, "warmup_epochs": 1}


class KilledError(BaseException):
    """Like a killed process, it is not caught as an Exception."""


@pytest.mark.parametrize(
    ("name", "moment", "nbs"),
    [("speck-micro", 1, 8), ("speck-micro", 13, 24), ("speck-micro", 13, 8), ("speck-micro-anchors", 9, 20)],
)
def test_a_resumed_run_ends_with_the_same_weights(published, tmp_path, monkeypatch, caplog, name, moment, nbs, config):
    """Also where the batches of an epoch are no multiple of those that make a step."""
    caplog.set_level(logging.INFO, "speck")
    snapshot = published()
    store.write_json(f"{snapshot.uri}/anchors.json", {"anchors": [], "strides": [], "image_size": 0, "boxes": 0})
    settings = config(tmp_path, model=name, epochs=4, options={**OPTIONS, "nbs": nbs, "fliplr": 0.5})
    monkeypatch.setattr(trainer, "_VALIDATION_SHARE", 1.0)  # validate after every epoch
    whole = run.train(settings, snapshot)["model"]
    recorded = store.read_json(f"{whole}/model.json")["trained"]
    steps = iter(range(100))
    report = trainer.Trainer._report_step

    def killed(self):
        report(self)
        if next(steps) == moment:
            raise KilledError

    with monkeypatch.context() as patched, pytest.raises(KilledError):
        patched.setattr(trainer.Trainer, "_report_step", killed)
        run.train(settings, snapshot)
    resumed = run.train(settings, snapshot)
    assert resumed["model"] == whole
    assert resumed["epochs"] == 4
    again = store.read_json(f"{whole}/model.json")["trained"]
    assert [row["epoch"] for row in again["history"]] == [1, 2, 3, 4]
    assert {name: again[name] for name in ("history", "steps", "ended")} == {
        name: recorded[name] for name in ("history", "steps", "ended")
    }
    messages = [text for text in caplog.messages if "resuming" in text]
    assert messages == ([f"resuming after epoch {(moment + 1) // 4}"] if moment > 3 else [])
    assert not list((tmp_path / "squares" / "runs").glob("*/[!e]*"))  # all that is left are the event files


def test_a_finished_run_whose_model_was_not_saved_is_not_trained_again(published, tmp_path, monkeypatch, config):
    snapshot = published()
    settings = config(tmp_path, epochs=2, options=OPTIONS)
    whole = run.train(settings, snapshot)

    def fails(*_):
        raise OSError("the disk is full")

    for _ in range(2):
        with monkeypatch.context() as patched, pytest.raises(OSError, match="full"):
            patched.setattr(run, "save_model", fails)
            run.train(settings, snapshot)
    recorded = store.read_json(f"{whole['model']}/model.json")["trained"]
    again = run.train(settings, snapshot)
    assert (again["model"], again["epochs"]) == (whole["model"], 2)
    trained = store.read_json(f"{whole['model']}/model.json")["trained"]
    assert (trained["history"], trained["steps"]) == (recorded["history"], recorded["steps"])


def test_a_batch_halved_for_memory_stays_halved_when_the_run_resumes(published, tmp_path, monkeypatch, config):
    snapshot = published()
    settings = config(tmp_path, epochs=3, options=OPTIONS)
    plain = tasks.DetectionModel.loss

    def small_memory(self, batch, preds=None):
        if len(batch["img"]) > 4 and self.training:
            raise RuntimeError("CUDA out of memory")
        return plain(self, batch, preds)

    monkeypatch.setattr(tasks.DetectionModel, "loss", small_memory)
    steps, report = iter(range(1000)), trainer.Trainer._report_step

    def killed(self):
        report(self)
        if next(steps) == 12:  # in the second epoch of 8 steps
            raise KilledError

    with monkeypatch.context() as patched, pytest.raises(KilledError):
        patched.setattr(trainer.Trainer, "_report_step", killed)
        run.train(settings, snapshot)
    assert run.train(settings, snapshot)["epochs"] == 3


def test_a_damaged_state_says_what_to_do(tmp_path):
    store.write_bytes(f"{tmp_path}/run/last.pt", b"no tensors")
    with pytest.raises(StoreError, match="delete it to train from the start"):
        checkpoint.load_state(f"{tmp_path}/run")
    assert checkpoint.load_state(f"{tmp_path}/other") is None
