"""One training run: what it takes from its configuration and snapshot, and what it leaves."""

import contextlib
import dataclasses
import logging

import numpy as np
import pytest
import torch

from etl.config import Anchors, Augment, Tile
from etl.errors import ConfigError, SpeckError
from etl.snapshots import anchors
from etl.snapshots.snapshot import Snapshot
from etl.stages.anchors import fit
from etl.storage import store
from train import compat
from train.engine import checkpoint, precision, run as engine, trainer
from train.models import losses, model

compat.install()

from ultralytics.models.yolo.detect import DetectionTrainer  # noqa: E402 - after compat.install()
from ultralytics.nn import tasks  # noqa: E402

PRESET = [[[6.0, 6.0], [12.0, 12.0]], [[20.0, 20.0], [30.0, 24.0]]]
OPTIONS = {"optimizer": "AdamW", "lr0": 0.01, "nbs": 8, "warmup_epochs": 1}


def test_training_saves_a_model_that_loads_and_says_where_it_came_from(
    published, tmp_path, caplog, monkeypatch, config
):
    caplog.set_level(logging.INFO, "speck")
    monkeypatch.chdir(tmp_path)
    answer = engine.train(config(tmp_path, options=OPTIONS), published())
    assert answer.keys() == {"model", "epochs", "seconds", "device"}
    assert (answer["epochs"], answer["device"]) == (1, "cpu")
    loaded = model.load_saved_model(answer["model"])
    assert loaded.categories == ("blue", "red")
    assert (loaded.meta["snapshot"], loaded.meta["dataset"], loaded.image_size) == ("abc", "squares", 64)
    assert loaded.trained_labels is not None and loaded.trained_labels.most_in_tile > 0
    trained = loaded.meta["trained"]
    assert trained["weights"] == "scratch"
    assert (trained["ended"], trained["planned_epochs"], trained["time_limit"]) == ("epochs", 1, None)
    assert trained["steps"] == next(int(text.split("; ")[1].split()[0]) for text in caplog.messages if "batch " in text)
    (epoch,) = trained["history"]
    assert epoch["losses"].keys() == {"box_loss", "cls_loss", "l1_loss"}
    assert 0 <= epoch["AP"] <= epoch["AP50"] <= 1
    assert any("epoch 1, step" in text and "s left" in text for text in caplog.messages)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["squares"]
    assert sorted(path.name for path in (tmp_path / "squares").iterdir()) == ["models", "runs", "shards", "snapshots"]


def test_a_model_states_the_settings_of_the_build_as_they_were_for_its_snapshot(published, tmp_path, config):
    snapshot = published()
    edited = config(tmp_path, options=OPTIONS).model_copy(
        update={"tile": Tile(size=512), "augment": Augment(copies=7), "anchors": Anchors(per_level=5)}
    )
    stated = model.load_saved_model(engine.train(edited, snapshot)["model"]).meta["config"]
    built = snapshot.config.resolved()
    for section in ("ontology", "tile", "augment", "shard", "anchors"):
        assert stated[section] == built[section], section
    places = {"images", "annotations", "categories"}  # of the machine: no file of a model has a path
    assert stated["source"] == {key: value for key, value in built["source"].items() if key not in places}
    assert stated["train"] == edited.resolved()["train"] != built["train"]


def test_a_model_keeps_the_range_of_the_images_that_it_was_trained_on(published, tmp_path, config):
    snapshot = published()
    snapshot.manifest["plan"]["pixel_range"] = [0.0, 4095.0]
    trained = model.load_saved_model(
        engine.train(config(tmp_path, max_seconds=0.001, options=OPTIONS), snapshot)["model"]
    )
    assert trained.pixel_settings.value_range == (0.0, 4095.0)


@pytest.mark.parametrize("strides", [(4, 8), (8, 16)])
def test_a_detector_with_anchors_is_trained_with_the_snapshots(published, tmp_path, caplog, strides, config):
    caplog.set_level(logging.INFO, "speck")
    settings = config(tmp_path, model="speck-micro-anchors", loss={"gamma": 1.5, "nwd": 0.5}, options=OPTIONS)
    snapshot = published()
    fitted = fit.fit_anchors(np.full((32, 2), 12.0), image_size=64, strides=strides, per_level=2, seed=0)
    store.write_json(f"{snapshot.uri}/anchors.json", fit.to_json(fitted))
    loaded = model.load_saved_model(engine.train(settings, snapshot)["model"])
    used = loaded.meta["architecture"]["anchors"]
    assert any("refitting" in text for text in caplog.messages) == (strides != (4, 8))
    assert (used == fit.to_json(fitted)["anchors"]) == (strides == (4, 8))
    assert [loaded.module.model[-1].anchors(level).tolist() for level in (0, 1)] == [
        pytest.approx(np.array(level), abs=1e-4) for level in used
    ]
    assert loaded.meta["config"]["train"]["loss"] == {"gamma": 1.5, "nwd": 0.5, "class_weights": "none"}
    assert any("objectness" not in text and "epoch 1, step" in text for text in caplog.messages)


@pytest.mark.parametrize("image_size", [64, 128])
def test_a_detector_is_trained_with_preset_anchors_scaled_to_its_input(published, tmp_path, config, image_size):
    snapshot = with_preset(published(), tmp_path)
    used = config(tmp_path, model="speck-micro-anchors", image_size=image_size, options=OPTIONS)
    loaded = model.load_saved_model(engine.train(used, snapshot)["model"])
    scale = image_size / 64
    expected = [[[w * scale, h * scale] for w, h in level] for level in PRESET]
    assert loaded.meta["architecture"]["anchors"] == expected
    assert [loaded.module.model[-1].anchors(level).tolist() for level in (0, 1)] == expected
    assert loaded.meta["config"]["anchors"]["preset"] == PRESET


def test_a_preset_for_other_levels_than_the_models_is_refused(published, tmp_path, config):
    snapshot = with_preset(published(), tmp_path)
    with pytest.raises(ConfigError, match=r"anchors\.preset: found 2 levels, expected 3"):
        engine.prepare_run(config(tmp_path, model="yolo26n-anchors", image_size=64), snapshot)


def with_preset(snapshot, tmp_path):
    """Return the snapshot as a build with preset anchors would have made it."""
    manifest = snapshot.manifest
    manifest["config"]["anchors"]["preset"] = PRESET
    manifest["config"]["train"] |= {"model": "speck-micro-anchors", "image_size": 64}
    store.write_json(f"{snapshot.uri}/manifest.json", manifest)
    snapshot = Snapshot.open(snapshot.uri)
    content = anchors.refit(snapshot)
    assert (content["anchors"], content["image_size"], content["boxes"]) == (PRESET, 64, 32)
    store.write_json(f"{snapshot.uri}/anchors.json", content)
    return snapshot


def test_a_recipe_is_chosen_from_the_audit_and_said(published, tmp_path, caplog, config, audit_with):
    caplog.set_level(logging.INFO, "speck")
    snapshot = published()
    classes = {"red": {"train": 900}, "blue": {"train": 5}}
    audit = audit_with(under_16=1.0, image_size=64, needed=180, classes=classes)
    store.write_json(f"{snapshot.uri}/audit.json", audit.to_dict())
    answer = engine.train(config(tmp_path, recipe="auto", options=OPTIONS), snapshot)
    loaded = model.load_saved_model(answer["model"])
    assert loaded.image_size == 96
    assert [reason.split()[0] for reason in loaded.meta["recipe"]] == ["image_size", "sampling", "options"]
    assert loaded.meta["config"]["train"]["image_size"] is None
    assert any("recipe: sampling weighted: blue" in text for text in caplog.messages)


def test_the_loss_for_small_objects_is_any_detectors(published, tmp_path, config):
    settings = config(tmp_path, loss={"gamma": 2.0, "nwd": 0.5}, options=OPTIONS)
    run = engine.prepare_run(settings, published(train=8, val=4))
    made = trainer.Trainer(run, tmp_path, str(tmp_path / "runs"))
    made.train()
    assert made.model.criterion.bce.keywords == {"gamma": 2.0}
    assert all(value.isfinite() for value in made.tloss.values())


@pytest.mark.parametrize("name", ["speck-micro", "speck-micro-anchors"])
def test_balanced_weights_of_classes_reach_the_loss(published, tmp_path, name, config):
    snapshot = published()
    store.write_json(f"{snapshot.uri}/anchors.json", {"anchors": [], "strides": [], "image_size": 0, "boxes": 0})
    settings = config(tmp_path, model=name, loss={"class_weights": "balanced"}, options=OPTIONS)
    made = trainer.Trainer(engine.prepare_run(settings, snapshot), tmp_path, str(tmp_path / "runs"))
    made.train()
    counts = made.get_class_counts()
    weights = losses.class_balanced_weights(counts)
    criterion = made.model.init_criterion()
    used = criterion._class_weights if name.endswith("anchors") else criterion.class_weights
    assert used.flatten().tolist() == pytest.approx((weights / weights.mean()).tolist())
    assert counts.argmax() == used.argmin()


def test_classes_are_weighed_in_one_way_only(published, tmp_path, config):
    settings = config(tmp_path, loss={"class_weights": "balanced"}, options={"cls_pw": 0.5})
    with pytest.raises(ConfigError, match=r"train\.options\.cls_pw"):
        engine.prepare_run(settings, published(2, 2))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["speck-micro", "speck-micro-anchors"])
def test_a_detector_learns_coloured_squares(published, tmp_path, caplog, name, config):
    caplog.set_level(logging.INFO, "speck")
    snapshot = published(train=64, val=16)
    store.write_json(
        f"{snapshot.uri}/anchors.json", {"anchors": [], "strides": [], "image_size": 0, "boxes": 0}
    )  # of another time, so that it is fitted again
    engine.train(config(tmp_path, model=name, epochs=25, options=OPTIONS), snapshot)
    best = max(float(text.split("AP50 ")[1][:5]) for text in caplog.messages if "AP50" in text)
    assert best > 0.7


def test_equal_runs_give_equal_weights_and_another_seed_others(published, tmp_path, config):
    snapshot = published(train=16)
    first, again, other = (
        engine.train(config(tmp_path, seed=seed, options=OPTIONS), snapshot)["model"] for seed in (0, 0, 1)
    )
    assert first == again != other


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_empty_split_is_an_error_of_the_command(published, tmp_path, split, config):
    with pytest.raises(ConfigError, match=f"no {split} image in snapshot abc") as caught:
        engine.train(config(tmp_path), published(**{split: 0}))
    assert (caught.value.exit_code, caught.value.key) == (2, "source.split")
    assert "source.split: {train: [...], val: [...]}" in str(caught.value)


def test_images_without_a_labelled_box_are_the_cause_and_not_the_split(published, tmp_path, config):
    with pytest.raises(ConfigError, match="no labelled box in the 1 train image of snapshot abc") as caught:
        engine.prepare_run(config(tmp_path), published(train=3, val=2, boxes=[]))
    assert caught.value.key == "source.annotations"
    assert "source.split" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 1}, "learning_rate"),
        ({"lr0": "fast"}, "lr0"),
        ({"mosaic": 7.0}, "mosaic"),
        ({"epochs": 3}, "epochs"),
        ({"optimizer": "Adan"}, "optimizer"),
        ({"workers": -1}, "workers"),
    ],
)
def test_an_option_that_is_unknown_ours_or_impossible_is_named(published, tmp_path, options, message, config):
    with pytest.raises(ConfigError, match=rf"train\.options\.{message}"):
        engine.prepare_run(config(tmp_path, options=options), published(train=1, val=1))


def test_the_trainers_mosaic_is_off_and_refused_beside_mosaics_in_the_shards(published, tmp_path, config):
    snapshot = published(train=2, val=2, kind="mosaic")
    assert engine.prepare_run(config(tmp_path), snapshot).settings["mosaic"] == 0
    with pytest.raises(ConfigError, match=r"train\.options\.mosaic"):
        engine.prepare_run(config(tmp_path, options={"mosaic": 1.0}), snapshot)


@pytest.mark.parametrize(
    ("augment", "options", "mosaic"),
    [({}, {}, 0.5), ({"mosaic": 0.2}, {}, 0.2), ({"mosaic": 0.2}, {"mosaic": 0.7}, 0.7)],
)
def test_the_trainer_makes_the_mosaics_that_the_shards_do_not_hold(
    published, tmp_path, augment, options, mosaic, config
):
    settings = config(tmp_path, options=options).model_copy(update={"augment": Augment(**augment)})
    assert engine.prepare_run(settings, published(2, 2)).settings["mosaic"] == mosaic


@pytest.mark.parametrize(
    ("name", "options", "nms_free"),
    [("yolo26n-p2", {}, True), ("yolo26n-p2", {"nms": True}, False), ("yolov8n", {"nms": False}, False)],
)
def test_yolo26_is_used_without_nms_unless_asked(published, tmp_path, name, options, nms_free, config):
    run = engine.prepare_run(config(tmp_path, model=name, options=options), published(2, 2))
    assert run.nms_free is nms_free
    assert run.settings["nms"] is (False if nms_free else None)


def test_several_devices_are_refused(published, tmp_path, config):
    with pytest.raises(ConfigError, match="such as 0: multi-GPU training is not supported, because the order"):
        engine.prepare_run(config(tmp_path, device="0,1"), published())


def test_a_gpu_that_is_not_there_is_an_error_of_the_command(published, tmp_path, config):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    snapshot = published(2, 2)
    with pytest.raises(ConfigError, match=r"train\.device"):
        engine.prepare_run(config(tmp_path, device="0"), snapshot)
    assert engine.prepare_run(config(tmp_path, device="auto"), snapshot).settings["device"] == "cpu"


@pytest.mark.parametrize("amp", [True, False])
def test_the_cpu_computes_in_full_precision(published, tmp_path, amp, config):
    assert engine.prepare_run(config(tmp_path, options={"amp": amp}), published(2, 2)).settings["amp"] is False


@pytest.mark.slow
def test_yolo26_trains_without_nms(published, tmp_path, config):
    answer = engine.train(config(tmp_path, model="yolo26n-p2", options=OPTIONS), published(train=8, val=4))
    assert model.load_saved_model(answer["model"]).nms_free


@pytest.mark.parametrize(
    ("message", "raised", "reported"),
    [("AutoBatch: no usable batch size found", SpeckError, "not even a batch of 1"), ("no kernel", RuntimeError, "no")],
)
def test_no_automatic_batch_that_fits_ends_the_training(
    published, tmp_path, monkeypatch, config, on_gpu, message, raised, reported
):
    def fails(self):
        raise RuntimeError(message)

    settings, snapshot = config(tmp_path, batch="auto", device="auto"), published()
    spec = on_cpu(on_gpu(settings, snapshot))
    monkeypatch.setattr(engine, "prepare_run", lambda *_: spec)
    monkeypatch.setattr(DetectionTrainer, "auto_batch", fails)
    with pytest.raises(raised, match=reported):
        engine.train(settings, snapshot)


def test_another_error_of_torch_ends_the_training(published, tmp_path, monkeypatch, config):
    def fails(self, batch, preds=None):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(tasks.DetectionModel, "loss", fails)
    with pytest.raises(RuntimeError, match="multiplied"):
        engine.train(config(tmp_path, options=OPTIONS), published())


@pytest.fixture
def on_gpu(monkeypatch):
    """The settings of a run as on a GPU with compute capability 8 and memory for 1,000 samples; it runs on the CPU."""

    def prepare(settings, snapshot, fits=1000):
        with monkeypatch.context() as patched:
            patched.setattr(torch.cuda, "is_available", lambda: True)
            patched.setattr(torch.cuda, "device_count", lambda: 1)
            patched.setattr(precision.torch.cuda, "device", lambda _: contextlib.nullcontext())
            patched.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not including_emulation)
            spec = engine.prepare_run(settings, snapshot)
        assert spec.settings["device"] == "0"
        monkeypatch.setattr(trainer.DetectionTrainer, "auto_batch", lambda self: fits)
        return spec

    return prepare


def on_cpu(spec):
    return dataclasses.replace(spec, settings={**spec.settings, "device": "cpu", "amp": False})


@pytest.mark.parametrize(
    ("train", "fits", "options", "batch", "steps"),
    [
        (64, 1000, {}, 2, 32), (64, 1, {}, 1, 32), (20, 1000, {}, 1, 20), (64, 1000, {"nbs": 32}, 32, 2),
        (64, 6, {"nbs": 32}, 5, 3),
    ],
)  # fmt: skip
def test_the_automatic_batch_of_a_gpu_makes_thirty_steps_an_epoch(
    published, tmp_path, monkeypatch, caplog, config, on_gpu, train, fits, options, batch, steps
):
    caplog.set_level(logging.INFO, "speck")
    taken, step = [], trainer.DetectionTrainer.optimizer_step
    monkeypatch.setattr(trainer.DetectionTrainer, "optimizer_step", lambda self: taken.append(1) or step(self))
    settings = config(tmp_path, batch="auto", device="auto", options={**options, "warmup_epochs": 0})
    spec = on_gpu(settings, published(train=train), fits)
    made = trainer.Trainer(on_cpu(spec), tmp_path, str(tmp_path / "runs"))
    made.train()
    assert (made.batch_size, len(taken)) == (batch, steps)
    assert made.args.batch == batch
    assert any(text.startswith(f"batch {batch}: ") and f"{steps} optimizer" in text for text in caplog.messages)


def test_the_automatic_batch_of_a_gpu_whose_memory_ran_out_before_is_halved(published, tmp_path, config, on_gpu):
    spec = on_cpu(on_gpu(config(tmp_path, batch="auto", device="auto"), published(train=240)))
    checkpoint.mark_started(str(tmp_path / "runs"), "a snapshot", 4)
    made = trainer.Trainer(spec, tmp_path, str(tmp_path / "runs"))
    made._setup_train()
    assert (made.batch_size, made.accumulate, made._batch_reason) == (4, 2, "halved, because memory ran out")


def test_the_model_keeps_the_batch_and_the_precision(published, tmp_path, config, monkeypatch, on_gpu):
    settings, snapshot = config(tmp_path, batch="auto", device="auto"), published(train=64)
    spec = on_cpu(on_gpu(settings, snapshot))
    monkeypatch.setattr(engine, "prepare_run", lambda *_: spec)
    trained = model.load_saved_model(engine.train(settings, snapshot)["model"]).meta["trained"]
    assert (trained["batch"], trained["nbs"], trained["precision"]) == (2, 2, "bf16")


def test_the_batch_of_a_cpu_stays(published, tmp_path, config):
    settings = engine.prepare_run(config(tmp_path, batch="auto"), published(2, 2)).settings
    assert (settings["batch"], settings["nbs"]) == (16, 64)


@pytest.mark.parametrize(
    ("amp", "setting", "chosen"),
    [(True, "bf16", "bf16"), ("fp32", False, "fp32"), (False, False, "fp32"), ("fp16", False, "fp16")],
)
def test_the_precision_of_a_gpu_is_the_asked_one(published, tmp_path, config, on_gpu, amp, setting, chosen):
    spec = on_gpu(config(tmp_path, device="auto", options={"amp": amp}), published(2, 2))
    assert (spec.settings["amp"], spec.precision) == (setting, chosen)
