"""An evaluation from a published snapshot to its page, on a small dataset built for real."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest

from etl import boxes
from etl.config import Config, Gate, load
from etl.errors import ConfigError, SourceError, StoreError
from etl.execution import cluster
from etl.imaging import codec
from etl.jobs import build
from etl.lifecycle import champion
from etl.snapshots.ground_truth import load_ground_truth
from etl.snapshots.snapshot import Snapshot
from etl.storage import sealed, store
from tests.train.evaluation.random_model import save_random_model
from train.evaluation import run
from train.evaluation.detectors import Detector, from_file_or_truth, load_detector
from train.evaluation.gate import eligibility, promotion, rule
from train.evaluation.images import build_eval_images
from train.prediction import tiled

MODES = tiled.MODES
WH = (300, 220)
BUCKETS = ("AP_very_tiny", "AP_tiny", "AP_small", "AP_medium", "AP_large")


def write_dataset(folder: Path, val: int) -> Path:
    """Write images of three groups, each with objects of every size, the largest larger than a tile."""
    rng = np.random.default_rng(0)
    annotations: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    objects = [(5, 5, 6, 6), (30, 5, 12, 12), (60, 4, 25, 25), (118, 8, 22, 20), (10, 50, 150, 40), (180, 60, 110, 150)]
    for number in range(6):
        name = f"{'abc'[number % 3]}_{number}.jpg"
        pixels = rng.integers(60, 120, (WH[1], WH[0], 3), dtype=np.uint8)
        images.append({"id": number + 1, "file_name": name, "width": WH[0], "height": WH[1]})
        for x, y, w, h in objects:
            pixels[y : y + h, x : x + w] = (250, 250, 250)
            entry = {
                "id": len(annotations) + 1,
                "image_id": number + 1,
                "category_id": 1 + (w > 30),
                "bbox": [x, y, w, h],
            }
            annotations.append({**entry, "area": w * h, "iscrowd": 0})
        annotations.append({**entry, "id": len(annotations) + 1, "bbox": [5, 150, 100, 60], "iscrowd": 1})
        (folder / name).write_bytes(codec.encode(pixels, 95))
    document = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "small car"}, {"id": 2, "name": "bus"}],
    }
    (folder / "labels.json").write_text(json.dumps(document))
    settings, share = folder / "made.yaml", 0.34 if val else 0.0
    settings.write_text(
        f"name: made\nstore: {folder}/store\n"
        f"source: {{format: coco, images: ., annotations: ., group: '^([abc])_', split: {{val: {share}}}}}\n"
        "tile: {size: 96, overlap: 0.25, scales: [1, 0.5]}\naugment: {copies: 0, mosaic: 0, copy_paste: 0}\n"
        "train: {model: speck-micro, weights: scratch}\n"
    )
    return settings


def built(folder: Path, val: int = 1) -> tuple[Config, Snapshot]:
    config = load(write_dataset(folder, val))
    with cluster.serial() as engine:
        return config, Snapshot.open(build.build(config, engine).snapshot)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Snapshot]:
    return built(tmp_path_factory.mktemp("made"))


def test_the_ground_truth_has_an_ap_of_1_in_every_size_with_objects_and_every_mode(
    made: tuple[Config, Snapshot],
) -> None:
    answer = run.evaluate(*made, detections="truth")
    for mode in MODES:
        assert {key: answer.modes[mode][key] for key in BUCKETS} == dict.fromkeys(BUCKETS, 1.0), mode
        assert {answer.modes[mode][f"NWD_{key}"] for key in ("AP", *BUCKETS)} == {1.0}, mode
        assert answer.modes[mode].AP == 1.0 and answer.modes[mode].AR == 1.0
    assert answer.combined.boxes == 6 * answer.images  # the crowd is none


def test_the_page_is_one_file_and_every_plot_has_a_caption(made: tuple[Config, Snapshot]) -> None:
    answer = run.evaluate(*made, detections="truth")
    page = Path(answer.html).read_text(encoding="utf-8")
    assert not re.search(r"\b(src|href)=(?![\"']data:)|url\(|https?://", page)
    assert page.count("<figcaption>") >= page.count("<svg") > 0
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page
    for plot in (
        "AP by object size", "NWD-AP by object size", "Matched and missed objects", "Confusion matrix",
        "Precision, recall and F1 by confidence", "Precision-recall curve", "Calibration",
    ):  # fmt: skip
        assert f"<h3>{plot}</h3>" in page
    assert "constant 12.7 source px, thresholds 0.7, 0.75, 0.8, 0.85" in page
    assert " on cpu" not in page  # no model ran
    saved = json.loads((Path(answer.html).parent / "evaluation.json").read_text())
    assert saved == answer.to_dict()


def detections_of(snapshot: Snapshot, name: str = "file_name") -> list[dict[str, Any]]:
    images, truth = load_ground_truth(snapshot, "val")
    paths = dict(zip(images["image_id"].to_pylist(), images["path"].to_pylist(), strict=True))
    rows = []
    for box in truth.to_pylist():
        if not box["ignore"]:
            bbox = [box["x0"], box["y0"], box["x1"] - box["x0"], box["y1"] - box["y0"]]
            image = box["image_id"] if name == "id" else paths[box["image_id"]]
            rows.append({"image_id": image, "category_id": box["category"], "bbox": bbox, "score": 0.9})
    return rows


def test_every_category_with_objects_has_its_own_curve_of_precision_and_recall(made: tuple[Config, Snapshot]) -> None:
    answer = run.evaluate(*made, detections="truth")
    assert {name: curve.recall[0] for name, curve in answer.curves.items()} == {"bus": 1.0, "small car": 1.0}
    assert "All categories together, and each." in Path(answer.html).read_text()


def test_boxes_far_outside_of_the_image_are_evaluated_and_drawn(made: tuple[Config, Snapshot], tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    rows = [{**row, "bbox": [-1e12, 5, 3e12, 9]} for row in detections_of(made[1])]
    file.write_text(json.dumps(rows))
    assert run.evaluate(*made, detections=str(file)).combined.AP == 0.0


def test_a_file_of_speck_predict_on_all_images_is_evaluated_on_the_val_images(
    made: tuple[Config, Snapshot], tmp_path: Path
) -> None:
    config, snapshot = made
    rows = detections_of(snapshot)
    rows.append({**rows[0], "image_id": next(iter(set(snapshot.table("images")["path"].to_pylist()) - paths(rows)))})
    names = sorted(paths(rows))
    kinds = dict(enumerate(snapshot.categories))
    document = {
        "images": [{"id": i, "file_name": f"{config.source.images}/{name}"} for i, name in enumerate(names)],
        "categories": [{"id": i, "name": name} for i, name in kinds.items()],
        "annotations": [
            {
                **row,
                "image_id": names.index(row["image_id"]),
                "category_id": snapshot.categories.index(row["category_id"]),
            }
            for row in rows
        ],
    }
    file = tmp_path / "detections.json"
    file.write_text(json.dumps(document))
    assert run.evaluate(config, snapshot, detections=str(file)).combined.AP == 1.0


def paths(rows: list[dict[str, Any]]) -> set[str]:
    return {row["image_id"] for row in rows}


@pytest.mark.parametrize("name", ["file_name", "id"])
def test_a_results_file_is_evaluated_as_it_is(made: tuple[Config, Snapshot], name: str, tmp_path: Path) -> None:
    config, snapshot = made
    rows = detections_of(snapshot, name)
    rows[0] = {**rows[0], "bbox": [0, 210, 5, 5]}  # one object missed, one false positive
    file = tmp_path / "results.json"
    file.write_text(json.dumps(rows))
    answer = run.evaluate(config, snapshot, detections=str(file), out=str(tmp_path / "out"))
    assert answer.combined.AP < 1.0
    assert answer.combined.AP == answer.full_image.AP == answer.tiled.AP
    page = (tmp_path / "out" / "evaluation.html").read_text(encoding="utf-8")
    assert "false positive, score 0.90" in page and "missed" in page


def test_numbered_results_follow_the_export_of_the_snapshot(made: tuple[Config, Snapshot], tmp_path: Path) -> None:
    config, snapshot = made
    everything = snapshot.table("images").sort_by("path")["path"].to_pylist()
    rows = [
        {
            **row,
            "image_id": everything.index(row["image_id"]) + 1,
            "category_id": snapshot.categories.index(row["category_id"]) + 1,
        }
        for row in detections_of(snapshot)
    ]
    file = tmp_path / "results.json"
    file.write_text(json.dumps(rows))
    assert run.evaluate(config, snapshot, detections=str(file)).combined.AP == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "{}",
        '[{"image_id": 1}]',
        "null",
        "[3]",
        '[{"image_id": "z", "category_id": "bus", "bbox": [0, 0, 1, 1], "score": 1}]',
        '[{"image_id": 1, "category_id": "bus", "bbox": [0, 0, -1, 1], "score": 1}]',
        '[{"image_id": 1, "category_id": "bus", "bbox": [1e308, 0, 1e308, 1], "score": 1}]',
        '[{"image_id": 1, "category_id": "bus", "bbox": [0, 0, 1], "score": 1}]',
        '[{"image_id": [], "category_id": "bus", "bbox": [0, 0, 1, 1], "score": 1}]',
        '{"images": [{"id": []}], "categories": [], "annotations": []}',
        '{"images": [], "categories": [{"id": 1, "name": ["bus"]}], "annotations": []}',
    ],
)
def test_a_broken_results_file_is_a_config_error(made: tuple[Config, Snapshot], text: str, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(str(file))):
        run.evaluate(*made, detections=str(file))


def test_a_val_split_without_images_is_a_config_error(tmp_path: Path) -> None:
    config, snapshot = built(tmp_path, val=0)
    with pytest.raises(ConfigError, match=r"source\.split.*: found no val image in snapshot"):
        run.evaluate(config, snapshot, detections="truth")


def test_without_a_model_the_error_says_to_train_one(made: tuple[Config, Snapshot]) -> None:
    with pytest.raises(ConfigError, match="no model"):
        run.evaluate(*made)


def test_a_saved_model_is_evaluated_and_its_page_is_written_into_its_folder(
    made: tuple[Config, Snapshot], tmp_path: Path
) -> None:
    config, snapshot = made
    uri = save_random_model(config, snapshot, str(tmp_path))
    answer = run.evaluate(config, snapshot, uri)
    assert answer.html == f"{uri}/evaluation.html" and Path(answer.html).is_file()
    assert answer.runs_on == "cpu, float32"
    assert f"model {uri} on cpu, float32" in Path(answer.html).read_text()
    assert {"AP", "AP50", "AP75", "AP50_small", "AR", *BUCKETS} <= answer.tiled.to_dict().keys()
    assert answer.seconds_per_image > 0
    assert run.evaluate(config, snapshot, uri).combined.AP == answer.combined.AP


@pytest.fixture
def untrained(tmp_path: Path) -> tuple[Config, Snapshot, list[str]]:
    """A dataset and the URIs of two models with random weights."""
    config, snapshot = built(tmp_path)
    config = config.model_copy(update={"gate": Gate(metric="AP_small", min_boxes=4)})  # val has 12 objects
    uris = [save_random_model(config, snapshot, seed=seed) for seed in (0, 1)]
    return config, snapshot, uris


def test_a_model_without_a_correct_detection_is_never_promoted(untrained: tuple[Config, Snapshot, list[str]]) -> None:
    config, snapshot, (blind, by_hand) = untrained
    settings = config.evaluate.model_copy(update={"confidence": 1.0})  # random weights are never that confident
    config = config.model_copy(update={"evaluate": settings})
    reason = "AP_small is 0: no correct detection in val"
    first = run.evaluate(config, snapshot, blind, promote=True)
    assert first.combined.AP == 0
    assert (first.gate.champion, first.gate.passed, first.gate.promoted) == (None, False, False)
    assert (first.gate.reasons, first.gate.gains, first.gate.metric) == ((reason,), {}, "AP_small")
    assert champion.current_champion(config.home) is None
    shown = html.escape("AP below 32 px (COCO's small) is 0: no correct detection in val").replace("&#x27;", "&#39;")
    assert f"Not promoted: {shown}. There is no champion yet." in Path(first.html).read_text()
    standing = by_hand.rsplit("/", 1)[1]
    champion.promote(config.home, standing, "by hand", over=None)
    second = run.evaluate(config, snapshot, blind, promote=True)
    assert (second.gate.champion, second.gate.promoted) == (standing, False)
    assert champion.current_champion(config.home) == standing
    assert f"Not promoted: {shown}. {standing} stays the champion." in Path(second.html).read_text()


def test_a_model_becomes_champion_by_the_gate_and_one_that_fails_does_not(
    untrained: tuple[Config, Snapshot, list[str]], monkeypatch: Any
) -> None:
    config, snapshot, uris = untrained
    ids = [uri.rsplit("/", 1)[1] for uri in uris]
    images, _ = load_ground_truth(snapshot, "val")
    perfect = from_file_or_truth(config, snapshot, "truth", images)
    monkeypatch.setattr(run, "load_detector", lambda *_: perfect)  # the challenger's detections
    refused_first = run.evaluate(config, snapshot, uris[0], promote=True).gate
    assert "does not look at the image: 1.0000 by its own detections on other images" in refused_first.reasons[0]
    monkeypatch.setattr(promotion, "disqualify", lambda *_: [])  # all images have their objects at the same places
    first = run.evaluate(config, snapshot, uris[0], promote=True).gate
    assert (first.champion, first.promoted) == (None, True)
    again = run.evaluate(config, snapshot, uris[0], promote=True)
    assert (again.gate.champion, again.gate.promoted) == (ids[0], False)
    assert "This model is the champion." in Path(again.html).read_text()
    refused = rule.Decision(passed=False, reasons=("AP_tiny falls by 0.2 (99 objects)",), warnings=())
    with monkeypatch.context() as patched:
        patched.setattr(rule, "decide", lambda *_, **__: refused)
        assert not run.evaluate(config, snapshot, uris[1], promote=True).gate.promoted
    assert champion.current_champion(config.home) == ids[0]
    passed = run.evaluate(config, snapshot, uris[1], promote=True)
    assert passed.gate.gains.keys() == {f"AP_{name}" for name in boxes.BUCKETS}
    assert (passed.gate.promoted, champion.current_champion(config.home)) == (True, ids[1])
    assert f"compared with {ids[0]}" in Path(passed.html).read_text()


def test_a_model_of_a_trial_is_evaluated_and_not_promoted(
    untrained: tuple[Config, Snapshot, list[str]], monkeypatch: Any
) -> None:
    config, snapshot, (model, _) = untrained
    trial, file = f"{config.home}/trials/t/made/snapshots/s2", Path(model, "model.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"snapshot": trial}))
    monkeypatch.setattr(promotion, "disqualify", lambda *_: [])
    gate = run.evaluate(config, snapshot, model, promote=True).gate
    reason = f"it was trained on a snapshot of a trial or of another dataset, which may have val images: {trial}"
    assert gate is not None and (gate.promoted, gate.reasons) == (False, (reason,))
    assert champion.current_champion(config.home) is None


def test_a_model_is_not_promoted_on_images_that_it_was_trained_on(
    untrained: tuple[Config, Snapshot, list[str]],
) -> None:
    _, snapshot, (model, _) = untrained
    newer = Snapshot(snapshot.uri, {**snapshot.manifest, "id": "newer"})

    def reasons(split: str, judged: Snapshot = newer) -> list[str]:
        images = build_eval_images(*load_ground_truth(snapshot, split), snapshot.categories)
        return eligibility.disqualify_training(model, judged, images)

    assert (reasons("val"), reasons("val", snapshot)) == ([], [])
    assert reasons("train") == ["it was trained on 4 of the 4 images of val"]
    assert reasons("all") == ["it was trained on 4 of the 6 images of val"]


def test_models_are_promoted_only_on_val_of_their_own_dataset(
    untrained: tuple[Config, Snapshot, list[str]], tmp_path: Path
) -> None:
    config, snapshot, (model, _) = untrained
    other = config.model_copy(update={"name": "other"})
    with pytest.raises(ConfigError, match=r"--promote, --model: found .*made/models/.*, expected a model of other"):
        run.evaluate(other, snapshot, model, promote=True)
    copy = Path(config.home, "trials", "t", "made", "snapshots", "s2")
    copytree(Path(snapshot.uri), copy)
    manifest = copy / "manifest.json"
    store.write_json(str(manifest), sealed.seal(json.loads(manifest.read_text().replace(snapshot.id, "s2"))))
    with pytest.raises(ConfigError, match=r"--promote, --snapshot: found .*/trials/t/made/snapshots/s2, expected a sn"):
        run.evaluate(config, str(copy), model, promote=True)
    assert champion.current_champion(config.home) is None


def test_a_deleted_champion_is_named_before_the_evaluation(untrained: tuple[Config, Snapshot, list[str]]) -> None:
    config, snapshot, (model, standing) = untrained
    champion.promote(config.home, standing.rsplit("/", 1)[1], "by hand", over=None)
    Path(standing, "weights.safetensors").unlink()
    with pytest.raises(StoreError, match=r"the champion .* was deleted: promote another model with `speck promote`"):
        run.evaluate(config, snapshot, model, promote=True)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no image", "broken_image"),
        (
            codec.encode(np.zeros((30, 20, 3), np.uint8), 90),
            "the image size changed since the build: was 300 x 220, now 20 x 30",
        ),
    ],
)
def test_an_image_that_changed_since_the_build_is_an_error_with_its_name(
    tmp_path: Path, data: bytes, message: str
) -> None:
    config, snapshot = built(tmp_path)
    images, _ = load_ground_truth(snapshot, "val")
    name = images["path"][0].as_py()
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError, match=f"{name}: .*{message}"):
        run.evaluate(config, snapshot, detections="truth")


def test_in_network_pixels_the_objects_of_a_downscaled_image_are_in_smaller_buckets(
    made: tuple[Config, Snapshot],
) -> None:
    config, snapshot = made
    settings = config.evaluate.model_copy(update={"size_reference": "network"})
    answer = run.evaluate(config.model_copy(update={"evaluate": settings}), snapshot, detections="truth")
    # 96 network pixels for 300 source pixels of the whole image, for 96 of a tile
    assert answer.full_image.buckets.very_tiny > answer.tiled.buckets.very_tiny
    assert answer.size_reference == "network"


def test_the_combined_mode_has_the_scale_of_its_finer_pass(made: tuple[Config, Snapshot]) -> None:
    detector = Detector(lambda _: ({}, {}), ("bus",), 96, made[1].plan.tile)
    assert [detector.scale(mode, (48, 40)) for mode in MODES] == [2.0, 1.0, 2.0]
    assert [detector.scale(mode, (192, 40)) for mode in MODES] == [0.5, 1.0, 1.0]


def test_a_gpu_that_this_machine_does_not_have_is_an_error_of_the_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    config, snapshot = built(tmp_path)
    config = config.model_copy(update={"train": config.train.model_copy(update={"device": "0"})})
    with pytest.raises(ConfigError, match=r"made: train\.device: found '0', expected auto or cpu"):
        load_detector(config, snapshot, "no model is needed")
