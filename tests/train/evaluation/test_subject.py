"""Evaluations on other images than a model's own: each writes its own report and leaves the model unchanged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from etl.config import Config, load
from etl.errors import ConfigError, SourceError
from etl.execution import cluster
from etl.jobs import build
from etl.snapshots.ground_truth import load_ground_truth
from etl.snapshots.snapshot import Snapshot
from tests.train.evaluation.random_model import save_random_model
from tests.train.evaluation.test_run import built, write_dataset
from train.cli import app
from train.evaluation import run, subject
from train.evaluation.detectors import Detector
from train.prediction import tiled

CONFIDENCE = 0.9


@pytest.fixture
def made(tmp_path: Path) -> tuple[Config, Snapshot]:
    return built(tmp_path)


def save(config: Config, snapshot: Snapshot, categories: list[str] | None = None) -> str:
    names = categories or snapshot.categories
    return save_random_model(config, snapshot, categories=names, thresholds={"bus": 0.125})


def content(folder: str) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in Path(folder).iterdir()}


def test_without_a_snapshot_the_one_that_the_model_was_trained_on_is_evaluated_on(
    made: tuple[Config, Snapshot], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, snapshot = made
    older, (_, newer) = save(config, snapshot), rebuild(tmp_path)
    newest = save(config, newer, ["bus"])
    other = save(config.model_copy(update={"store": str(tmp_path / "elsewhere")}), snapshot)
    assert subject.training_snapshot(config, older) == snapshot.uri
    assert [subject.training_snapshot(config, model) for model in (newest, None)] == [newer.uri] * 2
    assert subject.training_snapshot(config, other) is None
    monkeypatch.chdir(tmp_path)
    assert subject.training_snapshot(config, str(Path(older).relative_to(tmp_path))) == snapshot.uri
    done = CliRunner().invoke(app, ["evaluate", str(tmp_path / "made.yaml"), "--model", older, "--json"])
    assert done.exit_code == 0 and Path(older, "evaluation.html").is_file()
    shutil.rmtree(snapshot.uri)
    assert subject.training_snapshot(config, older) is None


def rebuild(folder: Path) -> tuple[Config, Snapshot]:
    """Build the dataset again with one object less."""
    labels = json.loads((folder / "labels.json").read_text())
    labels["annotations"].pop(0)
    (folder / "labels.json").write_text(json.dumps(labels))
    config = load(folder / "made.yaml")
    with cluster.serial() as engine:
        return config, Snapshot.open(build.build(config, engine).snapshot)


def test_only_val_of_the_snapshot_a_model_was_trained_on_is_kept_with_the_model(
    made: tuple[Config, Snapshot], tmp_path: Path
) -> None:
    config, snapshot = made
    uri = save(config, snapshot)
    own = run.evaluate(config, snapshot, uri)
    assert own.is_own and own.html == f"{uri}/evaluation.html"
    kept = content(uri)
    _, newer = rebuild(tmp_path)
    reports = {own.html}
    of_dataset = ({"dataset": config}, {"dataset": config, "split": "val"})
    for options in ({"split": "train"}, {"split": "all"}, {"snapshot": newer}, *of_dataset):
        answer = run.evaluate(config, options.pop("snapshot", snapshot), uri, **options)
        reports.add(answer.html)
        assert not answer.is_own and "is unchanged" in Path(answer.html).read_text()
        assert json.loads(Path(answer.html).with_suffix(".json").read_text()) == answer.to_dict()
        assert answer.html.startswith(f"{config.home}/evaluations/")
    assert content(uri) == kept
    assert len(reports) == 5, "all images of the dataset are the same images as split=all"
    run.evaluate(config, snapshot, uri)
    assert json.loads(content(uri)["evaluation.json"])["split"] == "val"


def test_the_images_are_those_of_the_split(made: tuple[Config, Snapshot]) -> None:
    config, snapshot = made
    splits = snapshot.table("images")["split"].to_pylist()
    for split in ("train", "val"):
        answer = run.evaluate(config, snapshot, detections="truth", split=split)
        assert (answer.images, answer.combined.AP) == (splits.count(split), 1.0)
    everything = run.evaluate(config, snapshot, detections="truth", split="all")
    assert (everything.images, everything.combined.boxes) == (6, 36)
    with pytest.raises(ConfigError, match=r"found no test image in snapshot"):
        run.evaluate(config, snapshot, detections="truth", split="test")
    with pytest.raises(ConfigError, match=r"--split: found 'half', expected one of train, val, test, all"):
        run.evaluate(config, snapshot, detections="truth", split="half")


def test_all_images_include_those_that_the_split_left_out_and_divided_ones_are_whole(
    made: tuple[Config, Snapshot],
) -> None:
    images, truth = load_ground_truth(made[1], "all")
    assert images.num_rows == 6 and truth.num_rows == 42
    assert {tuple(row[side] for side in ("x0", "y0", "x1", "y1")) for row in images.to_pylist()} == {(0, 0, 300, 220)}


def test_another_dataset_is_judged_on_all_its_images_by_the_names_of_its_classes(
    made: tuple[Config, Snapshot], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, snapshot = made
    uri = save(config, snapshot)
    folder = tmp_path / "other"
    folder.mkdir()
    file = write_dataset(folder, 1)
    file.write_text(file.read_text().replace("name: made", "name: other") + "ontology: {rename: {small car: van}}\n")
    other = load(file)
    with cluster.serial() as engine:
        judged = Snapshot.open(build.build(other, engine).snapshot)
    before = content(uri)
    caplog.set_level("INFO", "speck")
    answer = run.evaluate(config, judged, uri, dataset=other)
    assert (answer.dataset, answer.images, answer.split) == ("other", 6, "all")
    assert answer.unshared.to_dict() == {"detector": ["small car"], "labels": ["van"]}
    page = Path(answer.html).read_text()
    of_detector, of_labels = "of the detector without labels here: small car.", "of the labels without detections: van;"
    for sentence in (f"Categories {of_detector}", f"Categories {of_labels}"):
        assert sentence in page and sentence in caplog.text
    assert run.evaluate(config, judged, uri, dataset=other, split="val").images == 2
    assert content(uri) == before
    assert not Path(other.home, "evaluations").exists()


def test_a_model_that_shares_no_class_with_the_labels_is_refused(made: tuple[Config, Snapshot]) -> None:
    config, snapshot = made
    with pytest.raises(ConfigError, match=r"found a detector of tram for labels of small car, bus, expected"):
        run.evaluate(config, snapshot, save(config, snapshot, ["tram"]))


@pytest.mark.parametrize("options", [{"split": "train"}, {"dataset": True}])
def test_the_gate_judges_on_val_alone(made: tuple[Config, Snapshot], options: dict[str, Any]) -> None:
    config, snapshot = made
    options = {key: config if value is True else value for key, value in options.items()}
    with pytest.raises(ConfigError, match=r"--promote, --(split|dataset).*: found both, expected one of them"):
        run.evaluate(config, snapshot, save(config, snapshot), promote=True, **options)


@pytest.mark.parametrize("by_model", [False, True])
def test_exchanged_images_are_refused_by_name_and_restored_ones_are_not(
    made: tuple[Config, Snapshot], tmp_path: Path, by_model: bool
) -> None:
    config, snapshot = made
    images, _ = load_ground_truth(snapshot, "val")
    one, other = (tmp_path / name for name in images["path"].to_pylist())
    options = {"model": save(config, snapshot)} if by_model else {"detections": "truth"}
    contents = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])
    with pytest.raises(SourceError, match=rf"^{one.name}: the file changed since the build, .*; restore it, or run"):
        run.evaluate(config, snapshot, **options)
    one.write_bytes(contents[0])
    other.write_bytes(contents[1])
    assert run.evaluate(config, snapshot, **options).images == 2


def detect_squares(boxes_of: Any) -> Any:
    """A detector of one bus of score 0.5, 0.3 and 0.1 in each image."""

    def detect(images: Any) -> Any:
        for image in images:
            yield dict.fromkeys(tiled.MODES, boxes_of(image)), dict.fromkeys(tiled.MODES, 0.0)

    return detect


def test_val_without_objects_counts_false_alarms_by_the_thresholds_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from train.detections import Detections

    file = write_dataset(tmp_path, 1)
    labels = json.loads((tmp_path / "labels.json").read_text())
    val = {number for number, image in enumerate(labels["images"], 1) if image["file_name"].startswith("a")}
    labels["annotations"] = [row for row in labels["annotations"] if row["image_id"] not in val]
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    (tmp_path / "val.txt").write_text("a_0.jpg\na_3.jpg\n")
    (tmp_path / "train.txt").write_text("".join(f"{name}\n" for name in ("b_1.jpg", "b_4.jpg", "c_2.jpg", "c_5.jpg")))
    lists = f"split: {{train: {tmp_path}/train.txt, val: {tmp_path}/val.txt}}, allow: [no_objects, empty_split]"
    file.write_text(file.read_text().replace("split: {val: 0.34}", lists))
    config = load(file)
    with cluster.serial() as engine:
        snapshot = Snapshot.open(build.build(config, engine).snapshot)
    uri = save(config, snapshot)
    before = content(uri)
    score = np.array([0.5, 0.3, 0.1])
    xyxy = np.array([[0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9.0]])
    bus = np.full(3, snapshot.categories.index("bus"))
    found = Detections(xyxy, score, bus, np.tile([0, 0, 300, 220.0], (3, 1)))
    for thresholds, kept, origin in (({"bus": 0.125}, 2, "model"), ({}, 2, "default"), ({"bus": 0.05}, 3, "model")):
        detector = Detector(
            detect_squares(lambda _: found), tuple(snapshot.categories), 96, snapshot.plan.tile, thresholds=thresholds
        )
        monkeypatch.setattr(run, "load_detector", lambda *_, detector=detector: detector)
        answer = run.evaluate(config, snapshot, uri, promote=True)
        assert not answer.has_objects and answer.combined.AP is None and not answer.gate.promoted
        megapixels = 2 * 300 * 220 / 1e6
        assert answer.false_alarms.to_dict() == {
            "images": 2, "megapixels": megapixels, "detections": 2 * kept,
            "per_megapixel": round(2 * kept / megapixels, 6),
        }  # fmt: skip
        assert answer.thresholds_of == origin
        page = Path(answer.html).read_text()
        assert "The images hold no object to judge by: there is no AP and no recall." in page
        assert f"(0.132 megapixels): {2 * kept}, or {2 * kept / megapixels:.3g} false alarms per megapixel." in page
    assert content(uri)["model.json"] == before["model.json"], "no threshold was chosen"


def test_without_an_empty_image_there_is_no_rate_of_false_alarms(made: tuple[Config, Snapshot]) -> None:
    answer = run.evaluate(*made, detections="truth")
    assert answer.has_objects and answer.false_alarms is None
    assert "false alarms per megapixel" not in Path(answer.html).read_text()
