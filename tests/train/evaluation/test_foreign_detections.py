"""Detections of other detectors in every form of ids, against pycocotools on the user's own files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest

from etl.config import load
from etl.errors import ConfigError
from etl.execution import cluster
from etl.jobs import build
from etl.snapshots.snapshot import Snapshot
from tests.train.evaluation.foreign import (
    GROUPS,
    NAMES,
    PLACES,
    Document,
    Made,
    as_dataset,
    detect,
    judge,
    make,
    make_document,
    on_val,
    pycocotools,
    renamed,
    same,
    write,
)
from train.evaluation import run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("foreign"))


FORMS: dict[str, Callable[[Made], Any]] = {
    "ids of the own file": lambda made: made.results,
    "ids as text": lambda made: renamed(made.results, str, str),
    "ids as floats": lambda made: renamed(made.results, float, float),
    "numbers in file names": lambda made: renamed(
        made.results, lambda number: int(PurePosixPath(made.files[number]).stem), same
    ),
    "stems": lambda made: renamed(made.results, lambda number: PurePosixPath(made.files[number]).stem, same),
    "file names": lambda made: renamed(made.results, lambda number: PurePosixPath(made.files[number]).name, same),
    "paths of another machine": lambda made: renamed(
        made.results, lambda number: f"/mnt/d/data/images/{made.files[number]}", same
    ),
    "paths of Windows": lambda made: renamed(
        made.results, lambda number: "D:\\data\\" + made.files[number].replace("/", "\\"), same
    ),
    "relative paths": lambda made: renamed(made.results, lambda number: f"../images/{made.files[number]}", same),
    "paths without extension": lambda made: renamed(
        made.results, lambda number: str(PurePosixPath(made.files[number]).with_suffix("")), same
    ),
    "another extension": lambda made: renamed(
        made.results, lambda number: str(PurePosixPath(made.files[number]).with_suffix(".jpg")), same
    ),
    "category names": lambda made: renamed(made.results, same, NAMES.__getitem__),
    "category names in another spelling": lambda made: renamed(
        made.results, same, lambda number: NAMES[number].upper().replace("-", "_")
    ),
    "classes from 0": lambda made: renamed(made.results, same, PLACES.__getitem__),
    "classes from 1": lambda made: renamed(made.results, same, lambda number: PLACES[number] + 1),
    "ultralytics": lambda made: [
        {**row, "file_name": PurePosixPath(made.files[own["image_id"]]).name}
        for row, own in zip(
            renamed(
                made.results,
                lambda number: int(PurePosixPath(made.files[number]).stem),
                lambda number: PLACES[number] + 1,
            ),
            made.results,
            strict=True,
        )
    ],
    "sahi": lambda made: [
        {**row, "category_name": NAMES[row["category_id"]], "category_id": PLACES[row["category_id"]]}
        for row in made.results
    ],
    "dataset file": lambda made: as_dataset(made, same),
    "dataset file with relative paths": lambda made: as_dataset(made, lambda name: f"../../images/{name}"),
    "dataset file with file names": lambda made: as_dataset(made, lambda name: PurePosixPath(name).name),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_ids_gives_the_metrics_of_pycocotools(made: Made, tmp_path: Path, form: str) -> None:
    values, reading = judge(made, tmp_path, FORMS[form](made))
    np.testing.assert_allclose(values, pycocotools(made, made.results), rtol=0, atol=1e-9)
    assert 0.05 < values[0] < 0.9, "neither all nor nothing"
    own = on_val(made)
    assert (reading.detections, reading.judged, reading.unexplained) == (len(made.results), len(own), 0)
    assert reading.other_images == len(made.results) - len(own) > 0


@pytest.mark.parametrize("form", ["ids of the own file", "numbers in file names", "classes from 0", "sahi"])
def test_a_file_of_val_alone_is_read_likewise(made: Made, tmp_path: Path, form: str) -> None:
    part = Made(made.config, made.snapshot, made.document, on_val(made))
    values, reading = judge(part, tmp_path, FORMS[form](part))
    np.testing.assert_allclose(values, pycocotools(made, part.results), rtol=0, atol=1e-9)
    assert (reading.judged, reading.other_images) == (len(part.results), 0)


def number_from_1(document: Document) -> Document:
    """The same document with image ids from 1 on."""
    numbers = {image["id"]: place for place, image in enumerate(document["images"], start=1)}
    return {
        **document,
        "images": [{**image, "id": numbers[image["id"]]} for image in document["images"]],
        "annotations": [{**row, "image_id": numbers[row["image_id"]]} for row in document["annotations"]],
    }


def split_in_two(document: Document) -> tuple[Document, Document]:
    """Two documents of half of the images each, both with ids from 1 on."""
    halves = []
    for part in (0, 1):
        images = document["images"][part::2]
        own = {image["id"] for image in images}
        rows = [row for row in document["annotations"] if row["image_id"] in own]
        halves.append(number_from_1({**document, "images": images, "annotations": rows}))
    return halves[0], halves[1]


def test_ids_of_one_of_several_files_with_the_same_ids_are_told_by_the_boxes(tmp_path: Path) -> None:
    document = make_document()
    first, second = split_in_two(document)
    whole = make(tmp_path / "data", document, files={"first.json": first, "second.json": second})
    for name, half in (("first", first), ("second", second)):
        part = Made(whole.config, whole.snapshot, half, detect(half))
        values, reading = judge(part, tmp_path, part.results)
        assert reading.images == f"image ids of {name}.json"
        np.testing.assert_allclose(values[:3], pycocotools_on_half(part), rtol=0, atol=1e-9)


def pycocotools_on_half(part: Made) -> np.ndarray:
    """AP, AP50 and AP75 with the boxes of the other half, on which there is no detection."""
    names = set(part.snapshot.table("images")["path"].to_pylist()) - set(part.files.values())
    images = [*part.document["images"]]
    annotations = [*part.document["annotations"]]
    for image in make_document()["images"]:
        if image["file_name"] in names:
            rows = [row for row in make_document()["annotations"] if row["image_id"] == image["id"]]
            images.append({**image, "id": 1000 + image["id"]})
            annotations += [{**row, "id": 1000 + row["id"], "image_id": 1000 + image["id"]} for row in rows]
    document = {**part.document, "images": images, "annotations": annotations}
    return pycocotools(Made(part.config, part.snapshot, document, []), part.results)[:3]


def test_two_readings_that_the_boxes_do_not_tell_apart_are_refused_with_both_names(made: Made, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    rows = [
        {"image_id": int(rng.integers(1, GROUPS + 1)), "category_id": 3, "bbox": [60, 60, 1, 1], "score": 0.5}
        for _ in range(30)
    ]
    with pytest.raises(ConfigError, match=r"can be image ids of labels\.json; or positions among all images by path"):
        judge(made, tmp_path, rows)
    rows = [{**row, "image_id": made.files[row["image_id"]], "category_id": 1} for row in rows]
    with pytest.raises(ConfigError, match=r"category_id: found ids that can be positions in .*, from 1; or .*, from 0"):
        judge(made, tmp_path, rows)


def test_a_reading_that_puts_boxes_outside_of_their_images_is_not_taken(tmp_path: Path) -> None:
    document = number_from_1(make_document())
    for image in document["images"]:
        image["width"], image["height"] = (240, 60) if image["id"] % 2 else (60, 240)
        image["id"] = image["id"] % GROUPS + 1  # the next position
    shape = {"category_id": 3, "bbox": [2, 2, 9, 9], "area": 81, "iscrowd": 0}
    document["annotations"] = [{**shape, "id": image["id"], "image_id": image["id"]} for image in document["images"]]
    data = make(tmp_path / "data", document)
    rows = []
    for image in document["images"]:
        corner = [image["width"] - 9, image["height"] - 9, 3, 3]
        rows.append({"image_id": image["id"], "category_id": "car", "bbox": corner, "score": 0.5})
    assert judge(data, tmp_path, rows)[1].images == "image ids of labels.json"


def test_one_percent_of_unknown_images_is_left_out_and_more_is_refused(made: Made, tmp_path: Path) -> None:
    rows = made.results
    few = [{**rows[0], "image_id": 7000 + number} for number in range(len(rows) // 100)]
    values, reading = judge(made, tmp_path, [*rows, *few])
    np.testing.assert_allclose(values, pycocotools(made, rows), rtol=0, atol=1e-9)
    assert reading.unexplained == len(few) > 0
    more = [{**rows[0], "image_id": 7000 + number} for number in range(len(rows) // 50)]
    message = (
        rf"image_id: found 7000, 7001, 7002 and {len(more) - 3} more \({len(more)} of {len(rows) + len(more)} detect"
    )
    with pytest.raises(ConfigError, match=message):
        judge(made, tmp_path, [*rows, *more])


def test_a_file_of_other_splits_is_refused(made: Made, tmp_path: Path) -> None:
    val = made.val()
    rows = [row for row in made.results if row["image_id"] not in val]
    with pytest.raises(ConfigError, match=rf"found {len(rows)} detections on other images, 0 of other categories"):
        judge(made, tmp_path, rows)


def test_a_detection_outside_of_val_whose_id_is_ambiguous_is_refused(made: Made, tmp_path: Path) -> None:
    other = next(row for row in made.results if row["image_id"] not in made.val())
    with pytest.raises(ConfigError, match=r"can be image ids of labels\.json; or positions among all images by path"):
        judge(made, tmp_path, [other])


def test_equal_file_names_in_train_and_val_mean_those_of_val(tmp_path: Path) -> None:
    document = make_document()
    for place, image in enumerate(document["images"]):
        image["file_name"] = f"{'val' if place % 2 else 'train'}/{place // 2:06d}.png"
    folder = tmp_path / "data"
    write(folder, document)
    text = (folder / "made.yaml").read_text().replace("group: '([0-9]{6})', split: {val: 0.4}", "split: source")
    (folder / "made.yaml").write_text(text)
    config = load(folder / "made.yaml")
    with cluster.serial() as engine:
        snapshot = Snapshot.open(build.build(config, engine).snapshot)
    data = Made(config, snapshot, document, detect(document))
    val = on_val(data)
    assert {data.files[number] for number in data.val()} == {f"val/{n:06d}.png" for n in range(GROUPS // 2)}
    for name in (lambda path: int(PurePosixPath(path).stem), lambda path: PurePosixPath(path).name):
        rows = [{**row, "image_id": name(data.files[row["image_id"]])} for row in val]
        values, reading = judge(data, tmp_path, rows)
        np.testing.assert_allclose(values, pycocotools(data, val), rtol=0, atol=1e-9)
        assert reading.images.endswith("of the evaluated images")


def test_classes_follow_the_ontology_and_dropped_ones_are_counted(tmp_path: Path) -> None:
    more = "ontology: {rename: {bus: coach}, drop: [car]}\n"
    data = make(tmp_path / "data", more=more)
    kept = [row for row in data.results if row["category_id"] != 3]
    for category in (same, NAMES.__getitem__, PLACES.__getitem__, {3: "car", 17: "hot-air balloon", 90: "coach"}.get):
        values, reading = judge(data, tmp_path, renamed(data.results, same, category))
        expected = pycocotools(without(data, 3), kept)
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-9)
        assert reading.other_categories > 0


def without(data: Made, category: int) -> Made:
    rows = [row for row in data.document["annotations"] if row["category_id"] != category]
    categories = [row for row in data.document["categories"] if row["id"] != category]
    return Made(data.config, data.snapshot, {**data.document, "annotations": rows, "categories": categories}, [])


def test_detections_off_by_their_scale_are_suspicious_and_right_ones_are_not(made: Made, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    for scale, suspicious in ((1.0, False), (0.001, True), (3.0, True)):
        rows = renamed(on_val(made), made.files.__getitem__, NAMES.__getitem__)
        rows = [{**row, "bbox": [side * scale for side in row["bbox"]]} for row in rows]
        file.write_text(json.dumps(rows))
        answer = run.evaluate(made.config, made.snapshot, detections=str(file), comparable=True)
        assert answer.reading is not None and answer.reading.is_suspicious == suspicious, scale
        page = Path(answer.html).read_text()
        assert ("Suspicious: " in page) == suspicious
        assert "read as file names, its category ids as category names: " in page and "as pycocotools" in page
        assert f"{len(rows)} of {len(rows)} detections are evaluated." in page


@pytest.mark.parametrize("number", [19, 20])
def test_numbers_that_are_those_of_other_images_are_refused(tmp_path: Path, number: int) -> None:
    document = make_document()
    for key, rows in (("id", document["images"]), ("image_id", document["annotations"])):
        for row in rows:
            row[key] += 50_000  # no positions, and not in file names
    made = make(tmp_path / "data", document)
    val = sorted(made.val())
    after = dict(zip(val, [*val[1:], val[0]], strict=True))  # every id exists
    rows = renamed(on_val(made), after.__getitem__, same)[:number]
    file = tmp_path / "results.json"
    file.write_text(json.dumps(rows))
    if number < 20:  # too few to tell
        assert run.evaluate(made.config, made.snapshot, detections=str(file)).reading is not None
        return
    expected = r"image_id: found numbers read as .*: 0 of 20 detections overlap .* another image, expected file names"
    with pytest.raises(ConfigError, match=expected):
        run.evaluate(made.config, made.snapshot, detections=str(file))
    named = [{**row, "image_id": made.files[row["image_id"]]} for row in rows]  # believed, whatever they are about
    file.write_text(json.dumps(named))
    reading = run.evaluate(made.config, made.snapshot, detections=str(file)).reading
    assert reading is not None and reading.is_suspicious


def test_a_file_without_detections_is_evaluated_and_said(made: Made, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text("[]")
    answer = run.evaluate(made.config, made.snapshot, detections=str(file))
    assert answer.combined.AP == 0 and "The file holds no detection." in Path(answer.html).read_text()


def test_classes_that_the_dataset_does_not_have_are_named(made: Made, tmp_path: Path) -> None:
    file = tmp_path / "detections.json"
    document = as_dataset(made, same)
    document["categories"].append({"id": 4, "name": "tram"})
    document["annotations"] += [{**document["annotations"][0], "category_id": 4}] * 5
    document["annotations"] = [row for row in document["annotations"] if row["category_id"] != 2]
    file.write_text(json.dumps(document))
    answer = run.evaluate(made.config, made.snapshot, detections=str(file))
    assert answer.unshared.to_dict() == {"detector": ["tram"], "labels": ["hot-air balloon"]}
    assert answer.reading is not None and answer.reading.other_categories == 5


def test_the_ids_of_a_file_with_names_of_its_own_are_never_read_as_others(made: Made, tmp_path: Path) -> None:
    document = as_dataset(made, lambda name: f"x{name}" if name.endswith(("100.png", "101.png")) else name)
    for image in document["images"]:
        image["id"] -= 499  # numbers that the label file has, too
    for row in document["annotations"]:
        row["image_id"] -= 499
    with pytest.raises(ConfigError, match=r"image_id: found 'xsite0/000100\.png', 'xsite1/000101\.png' \("):
        judge(made, tmp_path, document)
    document = as_dataset(made, same)
    for category in document["categories"]:
        category["name"] = f"class {category['id']}"
    with pytest.raises(
        ConfigError, match=r"category_id: found 'class \d', .*, expected a category of the snapshot: car"
    ):
        judge(made, tmp_path, document)


def test_images_that_the_build_could_not_use_are_other_images(tmp_path: Path) -> None:
    document = make_document()
    folder = tmp_path / "data"
    write(folder, document)
    unlisted = folder / "images" / "site0" / "000900.png"
    unlisted.write_bytes((folder / "images" / document["images"][0]["file_name"]).read_bytes())
    (folder / "images" / document["images"][1]["file_name"]).write_bytes(b"broken")
    settings = (folder / "made.yaml").read_text().replace("allow:", "max_rejects: 0.2, allow:")
    (folder / "made.yaml").write_text(settings)
    config = load(folder / "made.yaml")
    with cluster.serial() as engine:
        snapshot = Snapshot.open(build.build(config, engine).snapshot)
    broken = document["images"][1]
    usable = {**document, "images": [image for image in document["images"] if image is not broken]}
    usable["annotations"] = [row for row in document["annotations"] if row["image_id"] != broken["id"]]
    data = Made(config, snapshot, usable, detect(usable))
    names = ("site0/000900.png", broken["file_name"])
    rows = [{**row, "image_id": f"elsewhere/{data.files[row['image_id']]}"} for row in data.results]
    rows += [{**row, "image_id": f"elsewhere/{name}"} for row in detect(document)[:9] for name in names]
    values, reading = judge(data, tmp_path, rows)
    np.testing.assert_allclose(values, pycocotools(data, data.results), rtol=0, atol=1e-9)
    assert reading.unexplained == 0 and reading.other_images == len(rows) - len(on_val(data))
