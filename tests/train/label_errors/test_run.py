"""The suspects of a built dataset are written as files, and found by one model or by cross-fitted ones."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from etl.config import Config
from etl.errors import ConfigError
from etl.lifecycle import champion, review
from etl.plan import Window
from etl.review import Answered
from etl.snapshots.snapshot import Snapshot, head
from etl.storage import store
from etl.storage.paths import DatasetPaths
from tests.train.evaluation.test_run import built
from tests.train.metrics.test_summary import make_detections, make_truth
from train.engine import run as engine
from train.engine.spec import TrainingSpec
from train.evaluation.detectors import Detector
from train.evaluation.images import EvalImage
from train.label_errors import cross_fit, files, run
from train.label_errors.judge import Judge, Judged
from train.label_errors.suspects import Suspect, from_table
from train.prediction.tiled import MODES

UNLABELLED = [118.0, 8.0, 140.0, 28.0]  # an object whose label is removed from the first image of each split


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Snapshot]:
    return built(tmp_path_factory.mktemp("made"))


@pytest.fixture(autouse=True)
def removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the label of one object from the first image of each split."""
    load = run.load_ground_truth

    def without_label(snapshot: Snapshot, split: str) -> tuple[pa.Table, pa.Table]:
        images, truth = load(snapshot, split)
        if not len(images):
            return images, truth
        in_first = pc.equal(truth["image_id"], images["image_id"][0])
        return images, truth.filter(pc.invert(pc.and_(in_first, pc.equal(truth["x0"], UNLABELLED[0]))))

    monkeypatch.setattr(run, "load_ground_truth", without_label)


def detect_labels(image: EvalImage) -> Any:
    """Return every label of an image as a detection, the object without a label, and a weak false one."""
    truth = image.truth
    rows = [*truth.xyxy[truth.counted & (truth.xyxy[:, 0] != UNLABELLED[0])].tolist(), UNLABELLED]
    kinds = [*truth.category[truth.counted & (truth.xyxy[:, 0] != UNLABELLED[0])].tolist(), 0, 0]
    return make_detections([*rows, [200.0, 5.0, 210.0, 15.0]], [0.9] * len(rows) + [0.01], kinds)


@pytest.fixture
def of_model(made: tuple[Config, Snapshot], monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of a model that detects the labels and one more object in each image."""
    config, snapshot = made

    def load(*_: Any) -> Detector:
        def detect(images: Any) -> Any:
            for image in images:
                yield dict.fromkeys(MODES, detect_labels(image)), dict.fromkeys(MODES, 0.0)

        return Detector(detect, tuple(snapshot.categories), 96, snapshot.plan.tile)

    monkeypatch.setattr(run, "load_detector", load)
    return f"{config.home}/models/abc"


def test_suspects_are_written_as_table_coco_json_page_and_close_ups(made: Any, of_model: str) -> None:
    config, snapshot = made
    answer = run.find_missing(config, snapshot, of_model)
    table = pq.read_table(answer.table)
    queue = table.to_pylist()
    assert (answer.suspects, answer.by_kind) == (len(queue), {"missing": 2})
    assert [row["rank"] for row in queue] == [1, 2]
    assert {(row["x0"], row["y0"], row["x1"], row["y1"]) for row in queue} == {tuple(UNLABELLED)}
    assert {row["size"] for row in queue} == {"small"}
    document = json.loads(Path(answer.coco).read_text())
    assert {row["file_name"] for row in document["images"]} == {row["path"] for row in queue}
    assert [row["bbox"] for row in document["annotations"]] == [[118, 8, 22, 20]] * 2
    assert len(list(Path(answer.crops).glob("*.jpg"))) == 2
    page = Path(answer.html).read_text()
    assert all(suspect.suspect_id in page for suspect in from_table(table))
    summary = json.loads((Path(answer.html).parent / "summary.json").read_text())
    assert summary == answer.to_dict()
    assert [row.suspects for row in answer.worst_images] == [1, 1]
    assert run.find_missing(config, snapshot, of_model) == answer


@pytest.mark.parametrize(("reach", "groups"), [(np.inf, 1), (0.0, 0)])
def test_suspects_that_look_alike_have_one_group_in_answer_and_table(
    made: Any, of_model: str, monkeypatch: pytest.MonkeyPatch, reach: float, groups: int
) -> None:
    monkeypatch.setattr(Judge, "usual_distance", lambda _: reach)
    answer = run.find_missing(*made, of_model)
    found = {row.lookalike for row in from_table(pq.read_table(answer.table))}
    assert (answer.groups, len(found - {None})) == (groups, groups)


def test_missing_labels_are_found_by_the_champion_else_by_the_newest_model(
    made: Any, of_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "find_newest_model", lambda _: of_model)
    assert run.find_missing(*made).model == of_model
    monkeypatch.setattr(champion, "history", lambda _: [{"model": "best"}])
    assert run.find_missing(*made).model == f"{made[0].home}/models/best"


def test_the_worst_image_is_the_one_with_the_most_expected_errors() -> None:
    one = Suspect(
        kind="missing", path="a.jpg", image_id="a", split="train", annotation_id=None, category=None,
        suggested_category="bus", box=(20, 20, 30, 30), suggested_box=None, score=0.9, chance=0.2, size="tiny",
    )  # fmt: skip
    suspects = [one, one, replace(one, path="b.jpg", chance=0.9), replace(one, path="c.jpg", chance=0.3)]
    worst = [(row.path, row.suspects, row.expected) for row in run._worst_images(suspects)]
    assert worst == [("b.jpg", 1, 0.9), ("a.jpg", 2, 0.4), ("c.jpg", 1, 0.3)]


def test_the_log_names_the_images_that_a_model_judges_leniently(
    made: Any, of_model: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        answer = run.find_errors(*made, of_model)
    assert f"images of train ({answer.lenient}) are judged leniently" in caplog.text
    assert answer.lenient + answer.calibrated_on == answer.images == 6
    assert answer.folds is None and answer.model == of_model
    assert "the chances of missing labels are unreliable: they are learned from" in caplog.text


def of_categories(monkeypatch: pytest.MonkeyPatch, snapshot: Snapshot, names: tuple[str, ...]) -> None:
    """Let the model detect every label and one more object as of its first, in each image."""
    categories = (*snapshot.categories, *(name for name in names if name not in snapshot.categories))

    def detect(images: Any) -> Any:
        for image in images:
            found = detect_labels(image)
            found = replace(found, category=np.full(len(found), categories.index(names[0])))
            yield dict.fromkeys(MODES, found), dict.fromkeys(MODES, 0.0)

    detector = Detector(detect, categories, 96, snapshot.plan.tile, own_categories=names)
    monkeypatch.setattr(run, "load_detector", lambda *_: detector)


@pytest.mark.parametrize("names", [("boat",), ("train", "boat")])
def test_a_model_of_other_categories_is_refused(made: Any, monkeypatch: Any, names: tuple[str, ...]) -> None:
    of_categories(monkeypatch, made[1], names)
    with pytest.raises(ConfigError, match="a model of any of the labelled categories"):
        run.find_errors(*made, f"{made[0].home}/models/abc")


def test_only_categories_that_model_and_labels_share_are_judged_and_suggested(
    made: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config, snapshot = made
    own = snapshot.categories[-1]
    uri = f"{config.home}/models/abc"
    of_categories(monkeypatch, snapshot, ("boat", own))
    suspects = from_table(pq.read_table(run.find_errors(config, snapshot, uri, least=0.0).table))
    assert {suspect.category for suspect in suspects} == {own}
    assert {suspect.suggested_category for suspect in suspects} <= {own, None}
    assert f"labels of {snapshot.categories[0]} are not judged" in caplog.text
    of_categories(monkeypatch, snapshot, (own, "boat"))
    suspects = from_table(pq.read_table(run.find_errors(config, snapshot, uri, least=0.0).table))
    assert {suspect.suggested_category for suspect in suspects if suspect.kind == "missing"} == {own}


def test_what_a_review_has_answered_is_left_out(made: Any, of_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = from_table(pq.read_table(run.find_missing(*made, of_model).table))
    known = Answered(frozenset({everything[0].suspect_id}), frozenset(), {})
    monkeypatch.setattr(run, "answered", lambda _: known)
    answer = run.find_missing(*made, of_model)
    rest = from_table(pq.read_table(answer.table))
    assert {row.suspect_id for row in rest} == {row.suspect_id for row in everything[1:]}
    assert answer.answered == 1
    assert review.answered(made[0].home).suspects == frozenset()


@pytest.fixture
def trained_without(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """The images that each fold's model was trained on; it detects what `detect_labels` does."""
    seen: list[set[str]] = []

    def train(_config: Any, snapshot: Snapshot, fold_of: Any, fold: int, home: str, _seconds: Any) -> str:
        rows = cross_fit.without_fold(snapshot.table("samples"), fold_of, fold)
        seen.append(set(rows["image_id"].to_pylist()))
        return home

    def detect(config: Any, uri: str, images: Any, fold: int) -> Iterator[Judged]:
        used = Snapshot.open(str(head(config))).uri
        assert store.read_json(f"{uri.rpartition('/')[0]}/run.json") == {"snapshot": used}  # `speck gc` keeps it
        for split, image in images:
            assert image.image_id not in seen[fold]
            yield Judged(image, split, detect_labels(image), fold)

    monkeypatch.setattr(cross_fit, "_train_fold", train)
    monkeypatch.setattr(cross_fit, "_detect_fold", detect)
    return seen


def test_cross_fitted_models_judge_images_of_groups_that_they_never_saw(
    made: Any, trained_without: list[set[str]], caplog: pytest.LogCaptureFixture
) -> None:
    config, snapshot = made
    with caplog.at_level(logging.WARNING):
        answer = run.find_errors(config, snapshot)
    assert not list(Path(answer.html).parent.glob("run.json"))
    assert (answer.folds, answer.model, answer.images, answer.lenient) == (3, None, 6, 0)
    assert "leniently" not in caplog.text
    group = dict(zip(*(snapshot.table("images")[name].to_pylist() for name in ("image_id", "group")), strict=True))
    for own in trained_without:
        assert len({group[image] for image in own}) == 2
    assert not list((Path(answer.html).parent).glob("fold_*"))
    assert answer.suspects == pq.read_table(answer.table).num_rows


def test_the_epoch_of_a_fold_is_chosen_without_the_labels_to_be_judged(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, snapshot = made
    fold_of = cross_fit.assign_folds(snapshot, 3, 0)
    specs: list[TrainingSpec] = []
    monkeypatch.setattr(engine, "fit", lambda *given: specs.append(given[2]) or {"model": ""})
    cross_fit._train_fold(config, snapshot, fold_of, 1, str(tmp_path), None)
    for rows in (specs[0].train, specs[0].val):
        assert len(rows) > 0
        assert 1 not in {fold_of[image] for image in rows["image_id"].to_pylist()}


def test_a_group_is_in_one_fold_and_folds_are_even(made: Any) -> None:
    _, snapshot = made
    fold_of = cross_fit.assign_folds(snapshot, 3, 0)
    group = dict(zip(*(snapshot.table("images")[name].to_pylist() for name in ("image_id", "group")), strict=True))
    assert len({(group[image], fold) for image, fold in fold_of.items()}) == 3
    assert sorted(fold_of.values()) == [0, 0, 1, 1, 2, 2]


def test_more_folds_than_groups_are_refused(made: Any) -> None:
    with pytest.raises(ConfigError, match=r"found 4, but .* only 3 groups \(source.group\), expected at most 3, or"):
        cross_fit.assign_folds(made[1], 4, 0)


def test_images_of_one_group_have_no_folds(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    images = made[1].table("images")
    of_one = images.set_column(images.schema.get_field_index("group"), "group", pa.array(["all"] * len(images)))
    tables = {"images": of_one, "annotations": made[1].table("annotations")}
    monkeypatch.setattr(Snapshot, "table", lambda _, name: tables[name])
    with pytest.raises(ConfigError, match=r"found 2, but .* only 1 group \(source.group\), expected more groups, or"):
        cross_fit.assign_folds(made[1], 2, 0)


def test_a_sample_made_from_images_of_a_fold_is_not_trained_on(made: Any) -> None:
    _, snapshot = made
    samples = snapshot.table("samples")
    rows = samples.to_pylist()
    other = next(row for row in rows if row["image_id"] != rows[0]["image_id"])
    rows[0]["recipe"]["parents"] = [other["sample_id"]]
    changed = samples.from_pylist(rows, schema=samples.schema)
    fold_of = dict.fromkeys((row["image_id"] for row in rows), 0) | {other["image_id"]: 1}
    left = set(cross_fit.without_fold(changed, fold_of, 1)["sample_id"].to_pylist())
    assert rows[0]["sample_id"] not in left
    assert left == {row["sample_id"] for row in rows[1:] if row["image_id"] != other["image_id"]}


def test_a_suspect_of_a_divided_image_is_cropped_from_the_window_of_its_split(made: Any) -> None:
    windows = {"train": Window(0, 0, 150, 220), "val": Window(150, 0, 300, 220)}
    images = {
        ("big", split): EvalImage("big", "big.jpg", (300, 220), window, 1, make_truth([]))
        for split, window in windows.items()
    }
    suspect = Suspect(
        kind="missing", path="big.jpg", image_id="big", split="train", annotation_id=None, category=None,
        suggested_category="bus", box=(20, 20, 30, 30), suggested_box=None, score=0.9, chance=0.8, size="tiny", rank=1,
    )  # fmt: skip
    read: list[Window] = []

    def read_pixels(image: EvalImage) -> np.ndarray:
        read.append(image.window)
        return np.zeros((220, 150, 3), np.uint8)

    files._write_crops(DatasetPaths(made[0].home).label_errors("m"), [suspect], images, read_pixels)
    assert read == [windows["train"]]
