import logging

import numpy as np
import pytest
import torch

from etl import anchors, codec, schema, shard, store
from etl.config import Augment, Config
from etl.errors import ConfigError, SpeckError, StoreError
from etl.plan import Plan, TilePlan
from etl.snapshot import Snapshot
from train import checkpoint, compat, engine, loss, model, trainer

compat.install()

from ultralytics.nn import tasks  # noqa: E402 - after the operators are there

COLOURS = {"red": (230, 40, 30), "blue": (30, 60, 230)}
OPTIONS = {"optimizer": "AdamW", "lr0": 0.01, "nbs": 8, "warmup_epochs": 1}


def scene(rng):
    """A grey 64 px tile with one square of 12 px, and its box."""
    name = ("red", "blue")[int(rng.integers(2))]
    image = np.full((64, 64, 3), 128, np.uint8)
    x, y = (int(side) for side in rng.integers(0, 52, 2))
    image[y : y + 12, x : x + 12] = COLOURS[name]
    return image, {
        "x0": x,
        "y0": y,
        "x1": x + 12,
        "y1": y + 12,
        "category": name,
        "annotation_id": "a",
        "visibility": 1,
    }


@pytest.fixture
def published(tmp_path):
    """A function that publishes tiles of coloured squares and returns the snapshot."""

    def publish(train=32, val=8, kind="tile"):
        rng = np.random.default_rng(0)
        home = tmp_path / "squares"
        (home / "shards").mkdir(parents=True)
        writer = shard.ShardWriter(tmp_path / "part.tar")
        rows = []
        for number in range(train + val):
            image, box = scene(rng)
            data = codec.encode(image, 95)
            blocks, start = shard.sample_blocks(f"s{number:03d}", data, b"{}")
            rows.append(
                {
                    "sample_id": f"s{number:03d}", "split": "train" if number < train else "val", "width": 64,
                    "height": 64, "offset": writer.add(blocks) + start, "size": len(data), "boxes": [box], "ignore": [],
                    "recipe": {"kind": kind, "seed": 0, "parameters": "{}", "parents": []},
                }
            )  # fmt: skip
        done = writer.close()
        store.upload(done.path, str(home / "shards" / f"{done.sha256}.tar"))
        uri = str(home / "snapshots" / "abc")
        store.write_table(
            f"{uri}/samples.parquet", schema.table(schema.SAMPLES, [{**row, "shard": done.sha256} for row in rows])
        )
        tile = TilePlan(size=64, overlap=0.25, min_visibility=0.4, scales=(1.0,))
        plan = Plan(
            split_salt=0, near_duplicates=False, categories=("blue", "red"), tile=tile, negatives=1.0, codec="c"
        )
        manifest = {
            "id": "abc", "categories": ["blue", "red"], "plan": plan.model_dump(mode="json"),
            "config": config(tmp_path).resolved(),
        }  # fmt: skip
        store.write_json(f"{uri}/manifest.json", manifest)
        return Snapshot.open(uri)

    return publish


def config(tmp_path, **train):
    settings = {"model": "speck-micro", "weights": "scratch", "epochs": 1, "batch": 8, "device": "cpu", **train}
    return Config(name="squares", store=str(tmp_path), source={"format": "yolo", "images": "x"}, train=settings)


def test_training_saves_a_model_that_loads_and_says_where_it_came_from(published, tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "speck")
    monkeypatch.chdir(tmp_path)
    answer = engine.train(config(tmp_path, options=OPTIONS), published())
    assert answer.keys() == {"model", "epochs", "seconds", "device"}
    assert (answer["epochs"], answer["device"]) == (1, "cpu")
    loaded = model.load(answer["model"])
    assert loaded.categories == ("blue", "red")
    assert (loaded.meta["snapshot"], loaded.meta["dataset"], loaded.image_size) == ("abc", "squares", 64)
    assert loaded.meta["trained"]["weights"] == "scratch"
    assert any("epoch 1, step" in text and "s left" in text for text in caplog.messages)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["squares"]
    assert sorted(path.name for path in (tmp_path / "squares").iterdir()) == ["models", "runs", "shards", "snapshots"]


@pytest.mark.parametrize("strides", [(4, 8), (8, 16)])
def test_a_detector_with_anchors_is_trained_with_the_snapshots(published, tmp_path, caplog, strides):
    caplog.set_level(logging.INFO, "speck")
    settings = config(tmp_path, model="speck-micro-anchors", loss={"gamma": 1.5, "nwd": 0.5}, options=OPTIONS)
    snapshot = published()
    fitted = anchors.fit(np.full((32, 2), 12.0), image_size=64, strides=strides, per_level=2, seed=0)
    store.write_json(f"{snapshot.uri}/anchors.json", anchors.to_json(fitted))
    loaded = model.load(engine.train(settings, snapshot)["model"])
    used = loaded.meta["architecture"]["anchors"]
    assert any("anew" in text for text in caplog.messages) == (strides != (4, 8))
    assert (used == anchors.to_json(fitted)["anchors"]) == (strides == (4, 8))
    assert [loaded.module.model[-1].anchors(level).tolist() for level in (0, 1)] == [
        pytest.approx(np.array(level), abs=1e-4) for level in used
    ]
    assert loaded.meta["config"]["train"]["loss"] == {"gamma": 1.5, "nwd": 0.5, "class_weights": "none"}
    assert any("objectness" not in text and "epoch 1, step" in text for text in caplog.messages)


def test_a_recipe_is_chosen_from_the_audit_and_said(published, tmp_path, caplog):
    caplog.set_level(logging.INFO, "speck")
    snapshot = published()
    audit = {
        "tiny": {"network": {"under_16": 1.0}}, "coverage": {"configured": {"covered": 1.0}}, "image_size": 64,
        "resolution": {"8": {"tiled": 90}}, "classes": {"red": {"train": 900}, "blue": {"train": 5}},
    }  # fmt: skip
    store.write_json(f"{snapshot.uri}/audit.json", audit)
    answer = engine.train(config(tmp_path, recipe="auto", options=OPTIONS), snapshot)
    loaded = model.load(answer["model"])
    assert loaded.image_size == 96
    assert [reason.split()[0] for reason in loaded.meta["recipe"]] == ["image_size", "sampling", "options"]
    assert loaded.meta["config"]["train"]["image_size"] is None
    assert any("recipe: sampling weighted: blue" in text for text in caplog.messages)


def test_the_loss_for_small_objects_is_any_detectors(published, tmp_path):
    settings = config(tmp_path, loss={"gamma": 2.0, "nwd": 0.5}, options=OPTIONS)
    run = engine.prepare(settings, published(train=8, val=4))
    made = trainer.Trainer(run, tmp_path, str(tmp_path / "runs"))
    made.train()
    assert made.model.criterion.bce.keywords == {"gamma": 2.0}
    assert all(value.isfinite() for value in made.tloss.values())


@pytest.mark.parametrize("name", ["speck-micro", "speck-micro-anchors"])
def test_balanced_weights_of_classes_reach_the_loss(published, tmp_path, name):
    snapshot = published()
    store.write_json(f"{snapshot.uri}/anchors.json", {"strides": [], "image_size": 0})
    settings = config(tmp_path, model=name, loss={"class_weights": "balanced"}, options=OPTIONS)
    made = trainer.Trainer(engine.prepare(settings, snapshot), tmp_path, str(tmp_path / "runs"))
    made.train()
    counts = made.get_class_counts()
    weights = loss.balanced(counts)
    criterion = made.model.init_criterion()
    used = criterion._weights if name.endswith("anchors") else criterion.class_weights
    assert used.flatten().tolist() == pytest.approx((weights / weights.mean()).tolist())
    assert counts.argmax() == used.argmin()


def test_classes_are_weighed_in_one_way_only(published, tmp_path):
    settings = config(tmp_path, loss={"class_weights": "balanced"}, options={"cls_pw": 0.5})
    with pytest.raises(ConfigError, match=r"train\.options\.cls_pw"):
        engine.prepare(settings, published(2, 2))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["speck-micro", "speck-micro-anchors"])
def test_a_detector_learns_coloured_squares(published, tmp_path, caplog, name):
    caplog.set_level(logging.INFO, "speck")
    snapshot = published(train=64, val=16)
    store.write_json(f"{snapshot.uri}/anchors.json", {"strides": [], "image_size": 0})  # of another time: fitted anew
    engine.train(config(tmp_path, model=name, epochs=25, options=OPTIONS), snapshot)
    best = max(float(text.split("AP50 ")[1][:5]) for text in caplog.messages if "AP50" in text)
    assert best > 0.7


def test_equal_runs_give_equal_weights_and_another_seed_others(published, tmp_path):
    snapshot = published(train=16)
    first, again, other = (
        engine.train(config(tmp_path, seed=seed, options=OPTIONS), snapshot)["model"] for seed in (0, 0, 1)
    )
    assert first == again != other


def test_a_time_budget_ends_the_run_whatever_the_epochs(published, tmp_path):
    answer = engine.train(config(tmp_path, epochs=1, max_seconds=0.001, options=OPTIONS), published())
    assert answer["epochs"] == 1
    assert model.load(answer["model"]).meta["trained"]["best_epoch"] == 1


def test_a_time_budget_that_is_not_needed_ends_with_the_epochs(published, tmp_path):
    answer = engine.train(config(tmp_path, epochs=2, max_seconds=600, options=OPTIONS), published())
    assert answer["epochs"] == 2


@pytest.mark.parametrize("cosine", [False, True])
def test_the_rate_rises_with_warmth_and_falls_to_its_end_with_the_budget(cosine):
    cold, warm, half, end, late = (
        trainer.rate(spent, warmth, final=0.1, cosine=cosine)
        for spent, warmth in ((0, 0.25), (0, 1), (0.5, 5), (1, 20), (1.2, 24))
    )
    assert (cold, warm) == (0.25, 1)
    assert half == pytest.approx(0.55)
    assert end == late == pytest.approx(0.1)


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_empty_split_is_an_error_of_the_command(published, tmp_path, split):
    with pytest.raises(ConfigError, match=f"no {split} samples in snapshot abc") as caught:
        engine.train(config(tmp_path), published(**{split: 0}))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 1}, "learning_rate"),
        ({"lr0": "fast"}, "lr0"),
        ({"mosaic": 7.0}, "mosaic"),
        ({"epochs": 3}, "epochs"),
        ({"optimizer": "Adan"}, "optimizer"),
    ],
)
def test_an_option_that_is_unknown_ours_or_impossible_is_named(published, tmp_path, options, message):
    with pytest.raises(ConfigError, match=rf"train\.options\.{message}"):
        engine.prepare(config(tmp_path, options=options), published(train=1, val=1))


def test_the_trainers_mosaic_is_off_and_refused_beside_mosaics_in_the_shards(published, tmp_path):
    snapshot = published(train=2, val=2, kind="mosaic")
    assert engine.prepare(config(tmp_path), snapshot).settings["mosaic"] == 0
    with pytest.raises(ConfigError, match=r"train\.options\.mosaic"):
        engine.prepare(config(tmp_path, options={"mosaic": 1.0}), snapshot)


@pytest.mark.parametrize(
    ("augment", "options", "mosaic"),
    [({}, {}, 0.5), ({"mosaic": 0.2}, {}, 0.2), ({"mosaic": 0.2}, {"mosaic": 0.7}, 0.7)],
)
def test_the_trainer_makes_the_mosaics_that_the_shards_do_not_hold(published, tmp_path, augment, options, mosaic):
    settings = config(tmp_path, options=options).model_copy(update={"augment": Augment(**augment)})
    assert engine.prepare(settings, published(2, 2)).settings["mosaic"] == mosaic


@pytest.mark.parametrize(
    ("name", "options", "nms_free"),
    [("yolo26n-p2", {}, True), ("yolo26n-p2", {"nms": True}, False), ("yolov8n", {"nms": False}, False)],
)
def test_yolo26_is_used_without_nms_unless_asked(published, tmp_path, name, options, nms_free):
    run = engine.prepare(config(tmp_path, model=name, options=options), published(2, 2))
    assert run.nms_free is nms_free
    assert run.settings["nms"] is (False if nms_free else None)


def test_several_devices_are_refused(published, tmp_path):
    with pytest.raises(ConfigError, match="one device"):
        engine.prepare(config(tmp_path, device="0,1"), published())


def test_a_gpu_that_is_not_there_is_an_error_of_the_command(published, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    snapshot = published(2, 2)
    with pytest.raises(ConfigError, match=r"train\.device"):
        engine.prepare(config(tmp_path, device="0"), snapshot)
    assert engine.prepare(config(tmp_path, device="auto"), snapshot).settings["device"] == "cpu"


@pytest.mark.parametrize("amp", [True, False])
def test_the_cpu_computes_in_full_precision(published, tmp_path, amp):
    assert engine.prepare(config(tmp_path, options={"amp": amp}), published(2, 2)).settings["amp"] is False


def test_a_loss_that_is_not_finite_stops_the_run(published, tmp_path):
    with pytest.raises(SpeckError, match="lr0"):
        engine.train(
            config(tmp_path, epochs=3, options={**OPTIONS, "optimizer": "SGD", "lr0": 1e30}), published(train=16)
        )


@pytest.mark.slow
def test_yolo26_trains_without_nms(published, tmp_path):
    answer = engine.train(config(tmp_path, model="yolo26n-p2", options=OPTIONS), published(train=8, val=4))
    assert model.load(answer["model"]).nms_free


class KilledError(BaseException):
    """What ends a process stops at nothing that catches an Exception."""


@pytest.mark.parametrize(
    ("name", "moment", "nbs"),
    [("speck-micro", 1, 8), ("speck-micro", 13, 24), ("speck-micro", 13, 8), ("speck-micro-anchors", 9, 20)],
)
def test_a_killed_run_goes_on_to_the_same_weights(published, tmp_path, monkeypatch, caplog, name, moment, nbs):
    """Also where the batches of an epoch are no multiple of those that make a step."""
    caplog.set_level(logging.INFO, "speck")
    snapshot = published()
    store.write_json(f"{snapshot.uri}/anchors.json", {"strides": [], "image_size": 0})
    settings = config(tmp_path, model=name, epochs=4, options={**OPTIONS, "nbs": nbs, "fliplr": 0.5})
    monkeypatch.setattr(trainer, "_VALIDATION_SHARE", 1.0)  # after every epoch, whatever the clock says
    whole = engine.train(settings, snapshot)["model"]
    steps = iter(range(100))
    report = trainer.Trainer._report_step

    def killed(self):
        report(self)
        if next(steps) == moment:
            raise KilledError

    with monkeypatch.context() as patched, pytest.raises(KilledError):
        patched.setattr(trainer.Trainer, "_report_step", killed)
        engine.train(settings, snapshot)
    found = engine.train(settings, snapshot)
    assert found["model"] == whole
    assert found["epochs"] == 4
    words = [text for text in caplog.messages if "going on" in text]
    assert words == ([f"going on after epoch {(moment + 1) // 4} of an earlier try"] if moment > 3 else [])
    assert not list((tmp_path / "squares" / "runs").glob("*"))


@pytest.mark.parametrize(("nbs", "stepped"), [(8, [1, 1, 1, 1]), (16, [2, 2]), (24, [3, 1]), (64, [4])])
def test_a_step_takes_its_batches_and_the_last_of_an_epoch_what_is_left(published, tmp_path, monkeypatch, nbs, stepped):
    taken, step = [], trainer.DetectionTrainer.optimizer_step

    def steps(self):
        taken.append(self._gathered)
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
def test_the_last_epochs_see_no_mosaics_whether_or_not_time_is_limited(published, tmp_path, closed, seconds):
    assert engine.train(config(tmp_path, epochs=4, max_seconds=seconds, options=CLOSING), published())["epochs"] == 4
    assert closed == [2]


def test_the_last_epochs_of_a_run_that_its_time_ends_see_no_mosaics(published, tmp_path, monkeypatch, closed):
    clock, report = [1e9], trainer.Trainer._report_step
    monkeypatch.setattr("time.time", lambda: clock[0])

    def second(self):
        clock[0] += 1
        report(self)

    monkeypatch.setattr(trainer.Trainer, "_report_step", second)
    settings = config(tmp_path, epochs=50, max_seconds=24.5, options=CLOSING)  # of 4 s each, 7 fit
    assert engine.train(settings, published())["epochs"] == 7
    assert closed == [5]


@pytest.mark.parametrize("seconds", [None, 600])
def test_a_run_that_goes_on_in_its_last_epochs_makes_no_mosaics(published, tmp_path, monkeypatch, closed, seconds):
    snapshot = published(train=16)
    settings = config(tmp_path, epochs=4, max_seconds=seconds, options=CLOSING)
    steps, report = iter(range(100)), trainer.Trainer._report_step

    def killed(self):
        report(self)
        if next(steps) == 6:  # in the last epoch of 2 steps
            raise KilledError

    with monkeypatch.context() as patched, pytest.raises(KilledError):
        patched.setattr(trainer.Trainer, "_report_step", killed)
        engine.train(settings, snapshot)
    engine.train(settings, snapshot)
    assert closed == [2, 3]


def test_a_run_that_could_not_save_its_model_is_not_trained_on(published, tmp_path, monkeypatch):
    snapshot = published()
    settings = config(tmp_path, epochs=2, options=OPTIONS)
    whole = engine.train(settings, snapshot)

    def fails(*_):
        raise OSError("the disk is full")

    for _ in range(2):
        with monkeypatch.context() as patched, pytest.raises(OSError, match="full"):
            patched.setattr(engine.model, "save", fails)
            engine.train(settings, snapshot)
    again = engine.train(settings, snapshot)
    assert (again["model"], again["epochs"]) == (whole["model"], 2)


def test_a_batch_that_was_halved_for_want_of_memory_stays_so_in_the_next_try(published, tmp_path, monkeypatch):
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
        engine.train(settings, snapshot)
    assert engine.train(settings, snapshot)["epochs"] == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_augmentation_follows_from_the_sample_and_the_epoch(published, tmp_path, workers):
    settings = config(tmp_path, options={**OPTIONS, "workers": workers, "hsv_v": 0.4})
    run = engine.prepare(settings, published())
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


def test_a_damaged_state_says_what_to_do(tmp_path):
    store.write_bytes(f"{tmp_path}/run/last.pt", b"no tensors")
    with pytest.raises(StoreError, match="remove it to train from the start"):
        checkpoint.read(f"{tmp_path}/run")
    assert checkpoint.read(f"{tmp_path}/other") is None
