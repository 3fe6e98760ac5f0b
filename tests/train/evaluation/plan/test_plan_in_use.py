"""The plan stored with a model is what evaluation, prediction and its ONNX file use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import train
from etl.config import Config, Evaluate
from etl.demo.dataset import write_dataset
from etl.evaluation import Evaluation, InferenceChoice, InferencePlan, MergeSettings
from etl.execution import cluster
from etl.jobs import build
from etl.snapshots.ground_truth import load_ground_truth
from etl.snapshots.snapshot import Snapshot
from tests.train.evaluation.random_model import save_random_model
from tests.train.evaluation.test_run import built
from train.detections import Detections
from train.engine.run import train as train_model
from train.evaluation import run
from train.evaluation.detectors import detect_all, load_detector
from train.evaluation.images import build_eval_images, read_pixels
from train.models import model
from train.models.load import load_model
from train.models.onnx import export_onnx
from train.prediction import files, passes, tiled

MERGE = MergeSettings(method="nms", metric="iou", threshold=0.5)
WHOLE = InferencePlan(passes=(passes.FULL_IMAGE,), merge=MERGE, max_detections=250)
CHOICE = InferenceChoice(
    name="full image", chosen=WHOLE, metric="AP", held_out=None, alternatives=(), reason="For the test."
)


@pytest.fixture
def planned(tmp_path: Path) -> tuple[Config, Snapshot, str]:
    """A dataset, and a random model whose plan is the whole image alone."""
    config, snapshot = built(tmp_path)
    config = config.model_copy(update={"evaluate": Evaluate(confidence=0.0)})  # a random model is never confident
    uri = save_random_model(config, snapshot)
    model.save_inference(uri, CHOICE)
    return config, snapshot, uri


def stored(uri: str) -> InferenceChoice:
    return InferenceChoice.from_dict(uri, json.loads(Path(uri, "model.json").read_text())["inference"])


def test_other_evaluations_use_the_stored_plan_and_leave_it(
    planned: tuple[Config, Snapshot, str], tmp_path: Path
) -> None:
    config, snapshot, uri = planned
    evaluation = run.evaluate(config, snapshot, uri, out=str(tmp_path / "elsewhere"))
    assert evaluation.inference is None and stored(uri) == CHOICE
    assert evaluation.combined.AP == evaluation.full_image.AP
    assert evaluation.combined.seconds_per_image < evaluation.tiled.seconds_per_image
    images = build_eval_images(*load_ground_truth(snapshot, "val"), snapshot.categories)
    detected = detect_all(images, load_detector(config, snapshot, uri))
    for ours, whole in zip(detected.detections["combined"], detected.detections["full_image"], strict=True):
        assert np.array_equal(ours.xyxy, whole.xyxy) and len(ours) > 0


def test_the_own_evaluation_stores_the_plan_that_it_reports(planned: tuple[Config, Snapshot, str]) -> None:
    config, snapshot, uri = planned
    evaluation = run.evaluate(config, snapshot, uri)
    assert evaluation.inference == stored(uri) != CHOICE
    written = Evaluation.from_json(uri, Path(uri, "evaluation.json").read_text())
    assert written.inference == evaluation.inference
    assert evaluation.inference is not None
    assert evaluation.inference.reason.endswith("val needs 20 objects in two images, and has 12 in 2.")


@pytest.mark.parametrize("exported", [False, True])
def test_prediction_uses_the_stored_plan_by_default(
    planned: tuple[Config, Snapshot, str], tmp_path: Path, exported: bool
) -> None:
    _, _, uri = planned
    if exported:
        pytest.importorskip("onnxruntime")
        uri = str(export_onnx(load_model(uri), tmp_path / "model.onnx")["out"])
    loaded = load_model(uri)
    assert loaded.inference == CHOICE
    image = np.random.default_rng(0).integers(0, 255, (220, 300, 3), dtype=np.uint8)
    found, whole = train.predict(loaded, image), train.predict(loaded, image, "full_image")
    assert 0 < len(found) <= 250 and np.array_equal(found.xyxy, whole.xyxy)
    assert len(train.predict(loaded, image, "tiled")) != len(found)
    Image.fromarray(image).save(tmp_path / "image.png")
    table = pq.read_table(files.predict_files(uri, [tmp_path / "image.png"], tmp_path / "out", confidence=0.0)["table"])
    assert table["score"].to_pylist() == found.score.tolist()


def nested(found: Detections) -> int:
    """Count pairs of boxes of one class, scored 0.25 or more, of which one holds 90 % of the other."""
    rows = [(*box, c) for box, s, c in zip(found.xyxy.tolist(), found.score, found.category, strict=True) if s >= 0.25]
    pairs = 0
    for number, a in enumerate(rows):
        for b in rows[number + 1 :]:
            shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
            smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
            pairs += a[4] == b[4] and shared >= 0.9 * smaller
    return pairs


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Snapshot]:
    """The demo dataset, built."""
    folder = tmp_path_factory.mktemp("demo")
    write_dataset(folder / "data")
    config = Config.model_validate(
        {
            "name": "demo", "store": str(folder / "store"),
            "source": {
                "format": "coco", "images": str(folder / "data/dataset"), "annotations": str(folder / "data/dataset"),
                "group": "^(?:.*/)?([a-z]+)_", "split": {"val": 0.25, "test": 0.0, "seed": 0},
            },
            "tile": {"size": 256, "overlap": 0.25}, "augment": {"copies": 0, "mosaic": 0, "copy_paste": 0},
            "train": {
                "model": "speck-micro", "weights": "scratch", "epochs": 10, "max_seconds": 150, "batch": 8,
                "options": {"optimizer": "AdamW", "lr0": 0.004, "nbs": 8, "warmup_epochs": 1},
            },
        }
    )  # fmt: skip
    with cluster.serial() as engine:
        return config, Snapshot.open(build.build(config, engine).snapshot)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_plan_of_the_demo_is_no_worse_than_its_tiles(demo: tuple[Config, Snapshot], seed: int) -> None:
    config, snapshot = demo
    config = config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})})
    uri = train_model(config, snapshot)["model"]
    evaluation = run.evaluate(config, snapshot, uri)
    choice = evaluation.inference
    assert choice is not None and choice.alternatives
    for metric in ("AP", choice.metric):
        ours, tiles = evaluation.combined[metric], evaluation.tiled[metric]
        assert ours is not None and tiles is not None
        assert ours >= tiles - config.gate.max_regression
    loaded = load_model(uri)
    pairs = dict.fromkeys(tiled.MODES, 0)
    for image in build_eval_images(*load_ground_truth(snapshot, "val"), snapshot.categories):
        pixels = read_pixels(config, image, loaded.pixel_settings)
        for mode in tiled.MODES:
            pairs[mode] += nested(train.predict(loaded, pixels, mode))
    assert pairs["combined"] <= pairs["tiled"]
