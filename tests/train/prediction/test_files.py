"""What `speck predict` writes: which detections, under which names, and how they are drawn."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, TiffImagePlugin
from pycocotools.coco import COCO
from typer.testing import CliRunner

from etl.errors import ConfigError
from etl.execution import progress
from tests.train.prediction.test_tiled import saved
from train.cli import app
from train.detections import Detections
from train.prediction import files, inputs

BOXES = np.array([(10.0, 12.0, 22.0, 20.0), (40.0, 30.0, 50.0, 44.0), (0.0, 0.0, 8.0, 6.0)])
SCORES = np.array([0.9, 0.6, 0.1])
CATEGORIES = np.array([0, 1, 0])


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of a model that finds the same three objects in every image, one of them below the threshold."""

    def detect(_: Any, images: Any, *__: Any, **___: Any) -> Iterator[tuple[Any, Detections]]:
        for key, _pixels in images:
            yield key, Detections(BOXES, SCORES, CATEGORIES, BOXES)

    monkeypatch.setattr(files, "predict_images", detect)
    return saved(tmp_path / "store")


def put(*paths: Path) -> None:
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((60, 80, 3), 40 + 20 * number, np.uint8))


def document_of(answer: files.PredictAnswer) -> dict[str, Any]:
    return dict(json.loads(Path(answer["detections"]).read_text()))


@pytest.mark.parametrize(("every", "written"), [(False, [0.9, 0.6]), (True, [0.9, 0.6, 0.1])])
def test_the_tables_hold_what_is_drawn_or_on_request_everything(
    model: str, tmp_path: Path, every: bool, written: list[float]
) -> None:
    put(tmp_path / "a.png")
    answer = files.predict_files(model, [tmp_path / "a.png"], tmp_path / "out", output=files.Output(every=every))
    assert [row["score"] for row in document_of(answer)["annotations"]] == written
    assert pq.read_table(answer["table"])["score"].to_pylist() == written
    assert answer["objects"] == {"bus": 1, "car": 1}


def test_pycocotools_reads_the_results_of_the_document(model: str, tmp_path: Path) -> None:
    put(tmp_path / "a.png", tmp_path / "b.png")
    answer = files.predict_files(model, [tmp_path / "b.png", tmp_path / "a.png"], tmp_path / "out")
    truth = COCO(answer["detections"])
    results = truth.loadRes(answer["results"])
    assert Counter(row["image_id"] for row in results.dataset["annotations"]) == {1: 2, 2: 2}
    assert [truth.imgs[number]["file_name"] for number in (1, 2)] == ["b.png", "a.png"]
    first = results.dataset["annotations"][0]
    assert (first["bbox"], first["category_id"], first["score"]) == ([10.0, 12.0, 12.0, 8.0], 1, 0.9)


def test_results_name_their_files_and_categories(model: str, tmp_path: Path) -> None:
    put(tmp_path / "a.png", tmp_path / "b.png")
    answer = files.predict_files(model, [tmp_path / "b.png", tmp_path / "a.png"], tmp_path / "out")
    results = json.loads(Path(answer["results"]).read_bytes())
    expected = {(1, "b.png", 1, "car"), (1, "b.png", 2, "bus"), (2, "a.png", 1, "car"), (2, "a.png", 2, "bus")}
    keys = ("image_id", "file_name", "category_id", "category_name")
    assert {tuple(row[key] for key in keys) for row in results} == expected


def test_files_have_names_relative_to_what_was_given(model: str, tmp_path: Path) -> None:
    given = tmp_path / "given"
    put(given / "a.png", given / "north" / "a.png", given / "north" / "deep" / "c.jpg", tmp_path / "other" / "d.png")
    put(tmp_path / "other" / "e.bmp")
    paths = [given, tmp_path / "other" / "d.png", str(tmp_path / "oth*" / "*.bmp")]
    answer = files.predict_files(model, paths, tmp_path / "out")
    names = [row["file_name"] for row in document_of(answer)["images"]]
    assert names == ["a.png", "north/a.png", "north/deep/c.jpg", "d.png", "other/e.bmp"]
    assert set(pq.read_table(answer["table"])["file"].to_pylist()) == set(names)
    drawn = [Path(file).relative_to(tmp_path / "out").as_posix() for file in answer["drawn"]]
    assert drawn == ["a.jpg", "north/a.jpg", "north/deep/c.jpg", "d.jpg", "other/e.jpg"]


def test_files_that_would_get_one_name_have_their_paths(tmp_path: Path) -> None:
    put(tmp_path / "x" / "a.png", tmp_path / "y" / "a.png", tmp_path / "y" / "b.png")
    names = inputs.name_files([str(tmp_path / "x"), str(tmp_path / "y")])
    inside = str(tmp_path).lstrip("/")
    assert list(names.values()) == [f"{inside}/x/a.png", f"{inside}/y/a.png", "b.png"]
    assert len(set(names)) == 3
    fsspec.filesystem("memory").pipe("/named/deep/far.jpg", (tmp_path / "x" / "a.png").read_bytes())
    assert list(inputs.name_files(["memory://named"]).values()) == ["deep/far.jpg"]


def test_what_an_earlier_run_wrote_into_a_folder_that_is_walked_is_not_read(model: str, tmp_path: Path) -> None:
    put(tmp_path / "given" / "a.png")
    out = tmp_path / "given" / "predictions"
    for _ in range(2):
        answer = files.predict_files(model, [tmp_path / "given"], out, output=files.Output(crops=True))
        assert (answer["images"], len(answer["drawn"])) == (1, 1)


def test_a_picture_replaces_no_file_but_that_of_an_earlier_run(model: str, tmp_path: Path) -> None:
    put(tmp_path / "given" / "a.png", tmp_path / "given" / "b.png", tmp_path / "out" / "a.jpg")
    before = (tmp_path / "out" / "a.jpg").read_bytes()
    for name in ("a.png", "b.png", "a.png"):
        answer = files.predict_files(model, [tmp_path / "given" / name], tmp_path / "out")
        assert [Path(file).name for file in answer["drawn"]] == [{"a.png": "a-2.jpg", "b.png": "b.jpg"}[name]]
    assert (tmp_path / "out" / "a.jpg").read_bytes() == before
    assert document_of(answer)["info"] == {"pictures": ["a-2.jpg", "b.jpg"]}


@pytest.mark.parametrize("labels", files.LABELS)
def test_labels_and_the_width_of_lines_are_as_asked(
    model: str, tmp_path: Path, labels: files.Labels, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    put_text = cv2.putText
    monkeypatch.setattr(
        cv2, "putText", lambda *given, **named: (written.append(given[1]), put_text(*given, **named))[1]
    )
    put(tmp_path / "a.png")
    thick = files.Output(labels=labels, line_width=3)
    answer = files.predict_files(model, [tmp_path / "a.png"], tmp_path / "out", output=thick)
    assert written == {"full": ["car 0.90", "bus 0.60"], "short": ["car", "bus"], "none": []}[labels]
    drawn = cv2.imread(answer["drawn"][0]).astype(int)
    changed = np.abs(drawn - 40).max(axis=2) > 30
    assert changed[15:18, 8:11].all()  # the left side of the first box, from 1.5 px outside to 1.5 px inside
    thin = files.predict_files(model, [tmp_path / "a.png"], tmp_path / "thin", output=files.Output(labels=labels))
    assert (np.abs(cv2.imread(thin["drawn"][0]).astype(int) - 40).max(axis=2) > 30).sum() < changed.sum()


def test_nothing_is_written_outside_the_output_folder(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    geotiff(tmp_path / "x" / "a.tif", tags={**TIED, 34735: UTM})
    geotiff(tmp_path / "y" / "a.tif", tags={**TIED, 34735: UTM})
    (tmp_path / "far" / "away" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "far" / "away" / "here")
    before = set(tmp_path.rglob("*"))
    files.predict_files(model, ["../../../x", "../../../y"], "out", output=files.Output(crops=True))
    written = set(tmp_path.rglob("*")) - before
    assert {Path("out")} == {path.relative_to(Path.cwd()).parents[-2] for path in written if path.is_file()}
    assert sorted(path.suffix for path in written if path.is_file() and path.stem.startswith("a")) == [
        *[".geojson"] * 2, *[".jpg"] * 6
    ]  # fmt: skip


def test_crops_show_each_drawn_detection_with_a_margin(model: str, tmp_path: Path) -> None:
    put(tmp_path / "given" / "north" / "a.png")
    files.predict_files(model, [tmp_path / "given"], tmp_path / "out", output=files.Output(crops=True))
    crops = sorted((tmp_path / "out" / "crops").rglob("*.jpg"))
    assert [path.relative_to(tmp_path / "out").as_posix() for path in crops] == [
        "crops/north/a.png-1.jpg", "crops/north/a.png-2.jpg"
    ]  # fmt: skip
    assert [cv2.imread(str(path)).shape[:2] for path in crops] == [(16, 24), (28, 20)]


def test_crops_of_an_earlier_run_that_are_not_drawn_any_more_are_removed(model: str, tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    for confidence, number in [(0.0, 3), (0.7, 1), (0.95, 0), (0.5, 2)]:
        files.predict_files(
            model, [tmp_path / "a.png"], tmp_path / "out", confidence=confidence, output=files.Output(crops=True)
        )
        assert len(list((tmp_path / "out").rglob("crops/*.jpg"))) == number
    files.predict_files(model, [tmp_path / "a.png"], tmp_path / "out", confidence=0.95)
    assert len(list((tmp_path / "out" / "crops").iterdir())) == 2, "those of a run that was not asked for crops stay"


def geotiff(path: Path, *, tags: dict[int, Any]) -> None:
    """A TIFF of 60 x 80 px with tags: doubles, or whole numbers for the GeoKey directory."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        info.tagtype[tag] = 3 if tag == 34735 else 12
        info[tag] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (80, 60)).save(path, tiffinfo=info)


UTM = (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32633)
TIED = {33550: (0.5, 0.25, 0.0), 33922: (0.0, 0.0, 0.0, 500_000.0, 4_649_776.0, 0.0)}


@pytest.mark.parametrize(
    ("tags", "corner"),
    [
        ({**TIED, 34735: UTM}, (500_005.0, 4_649_773.0)),
        ({**TIED, 34735: (1, 1, 0, 3, *UTM[4:], 1025, 0, 1, 2)}, (500_004.75, 4_649_773.125)),  # pixels are points
        (
            {34264: (0.0, 2.0, 0.0, 100.0, 3.0, 0.0, 0.0, 200.0, *(0.0,) * 7, 1.0), 34735: UTM},  # turned
            (100 + 2 * 12.0, 200 + 3 * 10.0),
        ),
    ],
)
def test_detections_in_a_geotiff_are_written_in_its_coordinates(
    model: str, tmp_path: Path, tags: dict[int, Any], corner: tuple[float, float]
) -> None:
    geotiff(tmp_path / "given" / "field" / "a.tif", tags=tags)
    put(tmp_path / "given" / "b.png")
    answer = files.predict_files(model, [tmp_path / "given"], tmp_path / "out")
    assert answer["geojson"] == [str(tmp_path / "out" / "field" / "a.tif.geojson")]
    found = json.loads(Path(answer["geojson"][0]).read_text())
    assert found["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32633"
    assert [row["properties"]["score"] for row in found["features"]] == [0.9, 0.6]
    (ring,) = found["features"][0]["geometry"]["coordinates"]
    assert ring[0] == ring[-1] == pytest.approx(corner) and len(ring) == 5


METRES = (1, 1, 0, 3, 1024, 0, 1, 1, 2048, 0, 1, 4326, 3075, 0, 1, 1)  # a projection of degrees, without a code


@pytest.mark.parametrize(
    "tags", [{}, TIED, {34735: UTM}, {**TIED, 34735: (1, 1, 0, 1, 3072, 0, 1, 32767)}, {**TIED, 34735: METRES}]
)
def test_an_image_without_a_known_coordinate_system_has_no_geojson(
    model: str, tmp_path: Path, tags: dict[int, Any]
) -> None:
    geotiff(tmp_path / "a.tif", tags=tags)
    assert files.predict_files(model, [tmp_path / "a.tif"], tmp_path / "out")["geojson"] == []


def test_degrees_need_no_name_of_the_coordinate_system(model: str, tmp_path: Path) -> None:
    geotiff(tmp_path / "a.tif", tags={**TIED, 34735: (1, 1, 0, 1, 2048, 0, 1, 4326)})
    (file,) = files.predict_files(model, [tmp_path / "a.tif"], tmp_path / "out")["geojson"]
    assert "crs" not in json.loads(Path(file).read_text())


@pytest.mark.parametrize(
    ("options", "output"),
    [
        ([], files.Output()),
        (["--all"], files.Output(every=True)),
        (["--labels", "short", "--line-width", "3"], files.Output(labels="short", line_width=3)),
        (["--crops"], files.Output(crops=True)),
    ],
)
def test_the_options_of_the_command_say_what_is_written(
    model: str, monkeypatch: pytest.MonkeyPatch, options: list[str], output: files.Output
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(files, "predict_files", lambda *arguments: given.append(arguments[-1]) or {})
    ran = CliRunner().invoke(app, ["predict", model, "a.png", *options])
    assert (ran.exit_code, given) == (0, [output])


def test_an_unknown_kind_of_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--labels: found 'long', expected one of full, short, none"):
        files.predict_files("nowhere", [tmp_path], tmp_path, output=files.Output(labels="long"))  # type: ignore[arg-type]


@pytest.mark.parametrize(("side", "reported"), [(200, False), (1200, True)])
def test_progress_within_a_large_image_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, side: int, reported: bool
) -> None:
    monkeypatch.setattr(progress, "_SECONDS", 0.0)
    cv2.imwrite(str(tmp_path / "a.png"), np.full((side, side, 3), 90, np.uint8))
    with caplog.at_level("INFO", logger="speck"):
        files.predict_files(saved(tmp_path / "store"), [tmp_path / "a.png"], tmp_path / "out", "tiled")
    lines = [row.getMessage() for row in caplog.records if " views (" in row.getMessage()]
    assert bool(lines) is reported
    if reported:
        done = [int(line.split()[1]) for line in lines]
        assert done == sorted(done) and len(done) > 2 and "(100%)" in lines[-1]
