"""What those who watch a training see of it: TensorBoard's event files and MLflow's runs."""

import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from train.engine import run as engine, tracking, trainer
from train.models.model import load_saved_model

OPTIONS = {"optimizer": "AdamW", "lr0": 0.01, "nbs": 8, "warmup_epochs": 1}


def seen(folder):
    """The steps of each scalar that TensorBoard shows of a run, and the values."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {name: [(row.step, row.value) for row in events.Scalars(name)] for name in events.Tags()["scalars"]}


@pytest.fixture
def always_validated(monkeypatch):
    monkeypatch.setattr(trainer, "_VALIDATION_SHARE", 1.0)


def test_losses_rates_and_ap_of_each_epoch_are_there_to_be_watched(published, config, tmp_path, always_validated):
    answer = engine.train(config(tmp_path, epochs=2, options=OPTIONS), published())
    (run,) = (tmp_path / "squares" / "runs").iterdir()
    assert [path.name.split(".")[0] for path in run.iterdir()] == ["events"]
    scalars = seen(run)
    for name in ("train/box_loss", "train/cls_loss", "lr/pg0", "metrics/mAP50-95(B)", "metrics/mAP50(B)"):
        assert [step for step, _ in scalars[name]] == [1, 2]
    assert all(value > 0 for _, value in scalars["train/box_loss"])
    assert load_saved_model(answer["model"]).meta["run"] == run.name


def test_an_epoch_that_is_not_validated_shows_no_metrics(published, config, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "_VALIDATION_SHARE", 0.0)
    engine.train(config(tmp_path, epochs=3, options=OPTIONS), published())
    scalars = seen(next((tmp_path / "squares" / "runs").iterdir()))
    assert [step for step, _ in scalars["train/box_loss"]] == [1, 2, 3]
    assert [step for step, _ in scalars["metrics/mAP50(B)"]] == [1, 3]


def test_a_run_that_goes_on_is_one_line_without_what_its_end_undid(published, config, tmp_path, monkeypatch):
    snapshot, settings = published(), config(tmp_path, epochs=3, options=OPTIONS)
    keep = trainer.Trainer._save_state

    def killed(self):
        if self.epoch == 1:
            raise KeyboardInterrupt  # the second epoch has been written, but not kept
        keep(self)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(trainer.Trainer, "_save_state", killed)
        engine.train(settings, snapshot)
    engine.train(settings, snapshot)
    scalars = seen(next((tmp_path / "squares" / "runs").iterdir()))
    assert [step for step, _ in scalars["train/box_loss"]] == [1, 2, 3]


def test_event_files_are_on_this_machine_wherever_the_store_is(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert tracking.log_folder("s3://bucket/cars/runs/abc") == tmp_path / "speck" / "runs" / "abc"
    assert tracking.log_folder("/store/cars/runs/abc") == Path("/store/cars/runs/abc")


def test_without_tensorboard_a_line_says_so_and_nothing_is_left(published, config, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "speck")
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto", None)
    engine.train(config(tmp_path, options=OPTIONS), published())
    assert len([text for text in caplog.messages if "tensorboard is not installed" in text]) == 1
    assert not list((tmp_path / "squares" / "runs").iterdir())


def test_without_mlflow_a_line_says_so_where_a_place_for_runs_is_named(
    published, config, tmp_path, monkeypatch, caplog
):
    caplog.set_level(logging.INFO, "speck")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    snapshot, settings = published(), config(tmp_path, options=OPTIONS)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    engine.train(settings, snapshot)
    assert "mlflow is not installed" not in caplog.text
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///nowhere")
    engine.train(settings, snapshot)
    assert len([text for text in caplog.messages if "mlflow is not installed" in text]) == 1


def test_mlflow_has_a_run_with_the_scalars_of_each_epoch(published, config, tmp_path, monkeypatch, always_validated):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)  # where it keeps artifacts
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    engine.train(config(tmp_path, epochs=2, options=OPTIONS), published())
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("squares").experiment_id])
    assert run.info.run_name == next((tmp_path / "squares" / "runs").iterdir()).name
    assert run.info.status == "FINISHED"
    assert run.data.params["lr0"] == "0.01"
    for name in ("train/box_loss", "metrics/mAP50-95B"):
        assert [row.step for row in client.get_metric_history(run.info.run_id, name)] == [1, 2]


def test_a_full_disk_ends_no_training_and_prints_no_traceback(published, config, tmp_path, monkeypatch, caplog, capfd):
    pytest.importorskip("tensorboard")
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *a, **b: opened(full if "tfevents" in path.name else path, *a, **b))
    with caplog.at_level(logging.WARNING, logger="speck"):
        assert engine.train(config(tmp_path, epochs=1, options=OPTIONS), published())["epochs"] == 1
    assert "TensorBoard is off: [Errno 28] No space left on device" in caplog.text
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_disk_that_fills_up_ends_no_tracker_and_prints_no_traceback(tmp_path, caplog, capfd):
    pytest.importorskip("tensorboard")
    tracker = tracking.TensorBoardTracker(tmp_path, 0)
    with open("/dev/full", "wb") as full:
        os.dup2(full.fileno(), tracker._file.fileno())
    with caplog.at_level(logging.WARNING, logger="speck"):
        tracker.write({"loss": 1.0}, 1)
        tracker.write({"loss": 1.0}, 2)
        tracker.close(finished=False)
    assert "could not write epoch 1 to TensorBoard: [Errno 28] No space left on device" in caplog.text
    assert "could not close the TensorBoard event file: [Errno 28] No space left on device" in caplog.text
    assert "Traceback" not in capfd.readouterr().err


def test_no_tracker_of_ultralytics_joins_a_training(tmp_path):
    """Outside of pytest, which Ultralytics keeps its trackers away from, with a package that it would use."""
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "__init__.py").write_text("__version__ = '3.0'\n")
    script = textwrap.dedent(
        f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from train import compat
        compat.install()
        from ultralytics.utils import callbacks
        trainer = type("T", (), {{"callbacks": callbacks.get_default_callbacks()}})()
        callbacks.add_integration_callbacks(trainer)
        joined = {{f.__module__ for functions in trainer.callbacks.values() for f in functions}}
        from ultralytics.utils.events import events
        print(events.enabled, sorted(joined - {{"ultralytics.utils.callbacks.base", "ultralytics.utils.events"}}))
        """
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environ)
    assert done.stdout.splitlines()[-1] == "False []"
